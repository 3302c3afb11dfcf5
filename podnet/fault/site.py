"""A lab as faults see it: what stands where, and the way of every packet that is expected to get through. Pure."""

from __future__ import annotations

from functools import cached_property
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, NamedTuple

from podnet.diagnose.walk import Way, World
from podnet.kernel.objects import Address, Neighbours, Route, Veth
from podnet.probe.addressing import primary
from podnet.probe.expect import derive

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podnet.kernel.objects import State
    from podnet.model.lab import Lab, Target
    from podnet.model.probe import Check

__all__ = ["LIMITS", "MACHINE", "Leg", "Place", "Site", "Trip"]

MACHINE = "machine"  # the place of what is the whole machine's

# The limits of the neighbour table, which only the machine's first namespace has.
LIMITS = {v: [f"net/ipv{v}/neigh/default/gc_thresh{n}" for n in (1, 2, 3)] for v in (4, 6)}


class Place(NamedTuple):
    """Where a fault is: at a target of the lab, and for some faults towards another one."""

    at: str
    to: str = ""

    def __str__(self) -> str:
        return f"{self.at} (towards {self.to})" if self.to else self.at


class Leg(NamedTuple):
    """A part of a trip under one pair of addresses."""

    way: Way
    destination: str
    source: str


class Trip(NamedTuple):
    """A check with the way of its packet and that of the answer; NAT cuts the latter in two."""

    check: Check
    there: Leg
    back: tuple[Leg, ...]

    def legs(self) -> tuple[Leg, ...]:
        """All parts, in order."""
        return (self.there, *self.back)

    def there_only(self) -> Trip:
        """The trip of somebody who expects no answer."""
        return self._replace(back=())

    def back_only(self) -> Trip:
        """The answer's part."""
        return self._replace(there=self.back[0], back=self.back[1:])


class Site:
    """``wanted`` is the lab's wanted state, ``found`` what is there now.

    ``bridged`` says in which namespaces, and for which IP version, a bridge hands its packets to the forward hook as
    well (``net.bridge.bridge-nf-call-iptables``). ``limits`` are the values of ``LIMITS`` where these can be set.
    """

    def __init__(
        self,
        lab: Lab,
        wanted: State,
        found: State,
        bridged: Iterable[tuple[str, int]] = (),
        limits: Mapping[str, str] | None = None,
    ) -> None:
        self.lab, self.wanted, self.found = lab, wanted, found
        self.limits = limits or {}
        self.world = World(wanted)
        self.bridged = frozenset(bridged)

    def target(self, name: str) -> Target:
        """The target of a name, which must be there."""
        found = self.lab.target(name)
        if found is None:
            raise KeyError(name)
        return found

    def netns(self, name: str) -> str:
        """The namespace of a target."""
        return self.target(name).netns

    def own(self, *kinds: str) -> list[Target]:
        """The targets of some kinds that have a namespace of their own: the machine's is never touched."""
        return [target for target in self.lab.targets if target.kind in kinds and target.netns]

    def address(self, name: str, version: int) -> str:
        """A target's address as others use it, empty if it has none of this version."""
        return primary(self.lab, self.target(name), version) or ""

    def bridge(self, node: str) -> str:
        """The name of a node's bridge."""
        return self.target(node).interfaces[1].name

    def uplink(self, name: str) -> str:
        """The name of a node's device on the underlay."""
        return self.target(name).interfaces[0].name

    def far_end(self, name: str, dev: str = "") -> Veth:
        """The other end of a target's cable: its port on a bridge."""
        netns = self.netns(name)
        near = self.world.links[netns, dev or self.uplink(name)]
        if not isinstance(near, Veth):
            raise KeyError(dev)
        far = self.world.links[near.peer_netns, near.peer]
        if not isinstance(far, Veth):
            raise KeyError(dev)
        return far

    def pods_of(self, node: str) -> list[Target]:
        """The pods on a node."""
        return [pod for pod in self.lab.of_kind("pod") if pod.node == node]

    def siblings(self, pod: str) -> list[str]:
        """The other pods on a pod's node."""
        return [each.name for each in self.pods_of(self.target(pod).node) if each.name != pod]

    def gateway(self, pod: str, version: int) -> str:
        """The next hop of a pod's default route."""
        route = self.default_route(pod, version)
        return route.via if route else ""

    def default_route(self, name: str, version: int) -> Route | None:
        """The default route of a target."""
        prefix = "0.0.0.0/0" if version == 4 else "::/0"
        return next((r for r in self.world.routes.get(self.netns(name), []) if r.dst == prefix and r.via), None)

    def addresses(self, name: str, dev: str, version: int) -> list[Address]:
        """The wanted addresses of a device."""
        found = self.world.addresses.get(self.netns(name), [])
        return [a for a in found if a.dev == dev and (":" in a.address) == (version == 6)]

    def pod_cidr(self, node: str, version: int) -> str:
        """The network of a node's bridge, empty if it has none of this version."""
        found = self.addresses(node, self.bridge(node), version)
        return str(ip_interface(found[0].address).network) if found else ""

    def route_to(self, name: str, prefix: str) -> Route | None:
        """The wanted route of a target for exactly this prefix."""
        return next((r for r in self.world.routes.get(self.netns(name), []) if r.dst == prefix), None)

    def covered_without(self, route: Route) -> bool:
        """Whether another route of the namespace leads where this one does."""
        others = {k: e for k, e in self.wanted.items() if e.netns == route.netns and e != route}
        first = str(next(ip_network(route.dst).hosts()))
        return World(others).lookup(route.netns, first).type != "none"

    def free_address(self, name: str, version: int) -> str:
        """An address of a target's underlay subnet that nobody has."""
        network = ip_interface(self.addresses(name, self.uplink(name), version)[0].address).network
        offset = min(network.num_addresses, 250) - 2
        while self.world.owners(str(network.network_address + offset)):
            offset -= 1
        return str(network.network_address + offset)

    @cached_property
    def permanent(self) -> frozenset[tuple[str, str, str]]:
        """(namespace, device, address) of the neighbours that are written for good, so that nobody asks for them."""
        found = (each for each in self.wanted.values() if isinstance(each, Neighbours))
        return frozenset((each.netns, each.dev, address) for each in found for address, _ in each.entries)

    @cached_property
    def trips(self) -> list[Trip]:
        """All checks of the lab with their ways."""
        return [trip for check in derive(self.lab) if (trip := self.trip(check)) is not None]

    def trip(self, check: Check) -> Trip | None:
        """One check with its ways, ``None`` where an address is missing."""
        source, target = self.target(check.source), self.target(check.target)
        there_to = self.address(check.target, check.version)
        if not there_to:
            return None
        there = self.world.way(source.netns, there_to)
        sender = self._sender(source, there, there_to, check.version)
        if not sender:
            return None
        out = Leg(there, there_to, sender)
        if check.seen != "node" or not source.node:
            return Trip(check, out, (Leg(self.world.way(target.netns, sender), sender, there_to),))
        # Masqueraded: the answer goes to the node, and the node forwards it to the pod.
        node = self.target(source.node)
        seen = self.address(node.name, check.version)
        first, second = self.world.way(target.netns, seen), self.world.way(node.netns, sender)
        onwards = second.steps[0]._replace(kind="forward", dev=first.steps[-1].dev)
        return Trip(
            check, out,
            (Leg(Way(first.steps[:-1]), seen, there_to), Leg(Way((onwards, *second.steps[1:])), sender, there_to)),
        )  # fmt: skip

    def _sender(self, source: Target, way: Way, destination: str, version: int) -> str:
        first = way.steps[0]
        if first.kind != "send":
            return destination
        found = [a.address.partition("/")[0] for a in self.addresses(source.name, first.out, version)]
        return found[0] if found else self.address(source.name, version)

    # -- what ways do at a place ---------------------------------------------------------------------------

    def forwards(self, trip: Trip, netns: str) -> bool:
        """Whether a namespace forwards the packet or its answer."""
        return any(step.kind == "forward" and step.netns == netns for way, _, _ in trip.legs() for step in way.steps)

    def routes(self, trip: Trip, netns: str, network: str) -> bool:
        """Whether a namespace sends or forwards something of the trip to a network (or an address)."""
        within = ip_network(network)
        return any(
            ip_address(destination).version == within.version
            and ip_address(destination) in within
            and any(s.kind in ("send", "forward") and s.netns == netns for s in way.steps)
            for way, destination, _ in trip.legs()
        )

    def filtered(self, trip: Trip, netns: str, to: str = "") -> bool:
        """Whether the forward hook of a namespace sees the packet or its answer, on the way to an address."""
        for way, destination, _ in trip.legs():
            if to and destination != to:
                continue
            for step in way.steps:
                if step.netns != netns:
                    continue
                through = step.kind == "bridge" and step.dev and step.out
                if step.kind == "forward" or (through and (netns, trip.check.version) in self.bridged):
                    return True
        return False

    def passes_port(self, trip: Trip, netns: str, port: str) -> bool:
        """Whether the packet or its answer goes through a bridge port, either way."""
        return any(
            step.kind == "bridge" and step.netns == netns and port in (step.dev, step.out)
            for way, _, _ in trip.legs()
            for step in way.steps
        )

    def sends_by(self, trip: Trip, netns: str, hop: str) -> bool:
        """Whether a namespace hands something of the trip to a next hop."""
        return any(
            step.kind in ("send", "forward") and step.netns == netns and step.via == hop
            for way, _, _ in trip.legs()
            for step in way.steps
        )

    def sends_by_default(self, trip: Trip, netns: str) -> bool:
        """Whether a namespace sends something of the trip by its default route."""
        return any(
            way.steps[0].netns == netns and self.world.lookup(netns, destination).prefix.endswith("/0")
            for way, destination, _ in trip.legs()
        )

    def sends_on(self, trip: Trip, netns: str, dev: str) -> bool:
        """Whether a namespace sends or forwards something of the trip by a device."""
        return any(
            step.kind in ("send", "forward") and step.netns == netns and step.out == dev
            for way, _, _ in trip.legs()
            for step in way.steps
        )
