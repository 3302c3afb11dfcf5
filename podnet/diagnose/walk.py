"""The way that a packet takes through a state: from the wanted one it is the prediction. Pure; no NAT, no filters.

A way is a list of steps: out of a namespace, over a cable, through a bridge, forwarded by a namespace, delivered.
"""

from __future__ import annotations

from collections import deque
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, NamedTuple

from podnet.kernel.objects import Address, Bridge, Route, State, Veth

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Chosen", "Step", "Way", "World", "uses"]

_MOST_HOPS = 32


class Chosen(NamedTuple):
    """What a namespace's routes say of a destination: ``prefix`` is the route's; ``via`` is empty on the link.

    ``type`` is ``unicast``, ``local``, ``none`` (no route) or that of a route that refuses. A route that is ``learned``
    is a routing daemon's.
    """

    type: str
    dev: str = ""
    via: str = ""
    prefix: str = ""
    learned: bool = False


class Step(NamedTuple):
    """One step. Its ``kind`` tells what ``dev`` and ``out`` are:

    ``send`` (out: the device, via: the next hop), ``bridge`` (dev: port in, out: port out, via: the bridge; a port
    is empty where the bridge's own namespace sends or receives), ``forward`` (dev in, out, via: the next hop),
    ``deliver`` (dev in), ``stuck`` (dev in, via: why).
    """

    kind: str
    netns: str
    dev: str = ""
    out: str = ""
    via: str = ""


class Way(NamedTuple):
    """All steps of a packet, the last one being ``deliver`` or ``stuck``."""

    steps: tuple[Step, ...]

    @property
    def arrives(self) -> bool:
        """Whether the last step delivers the packet."""
        return self.steps[-1].kind == "deliver"

    @property
    def namespaces(self) -> list[str]:
        """Every namespace on the way, in order."""
        return list(dict.fromkeys(step.netns for step in self.steps))


class World:
    """A state, indexed for walking."""

    def __init__(self, state: State) -> None:
        self.links: dict[tuple[str, str], Bridge | Veth] = {}
        self.addresses: dict[str, list[Address]] = {}
        self.routes: dict[str, list[Route]] = {}
        self._ports: dict[tuple[str, str], list[Veth]] = {}
        self._owners: dict[str, list[Address]] = {}
        self._lookups: dict[tuple[str, str], Chosen] = {}
        for each in state.values():
            match each:
                case Bridge():
                    self.links[each.netns, each.name] = each
                case Veth():
                    self.links[each.netns, each.name] = each
                    if each.master:
                        self._ports.setdefault((each.netns, each.master), []).append(each)
                case Address():
                    self.addresses.setdefault(each.netns, []).append(each)
                    self._owners.setdefault(each.address.partition("/")[0], []).append(each)
                case Route():
                    self.routes.setdefault(each.netns, []).append(each)

    def owners(self, address: str) -> list[Address]:
        """Everything that has an address, given without its prefix length."""
        return self._owners.get(address, [])

    def lookup(self, netns: str, destination: str) -> Chosen:
        """The longest matching route of a namespace, connected ones included."""
        key = (netns, destination)
        if key not in self._lookups:
            self._lookups[key] = self._lookup(netns, destination)
        return self._lookups[key]

    def _lookup(self, netns: str, destination: str) -> Chosen:
        for each in self.addresses.get(netns, []):
            if each.address.partition("/")[0] == destination:
                return Chosen("local", each.dev)
        wanted = ip_address(destination)
        best: tuple[int, int, Chosen] | None = None
        for length, metric, chosen in self._candidates(netns):
            network = ip_network(chosen.prefix)
            if network.version == wanted.version and wanted in network:
                rank = (-length, metric)
                if best is None or rank < best[:2]:
                    best = (*rank, chosen)
        return Chosen("none") if best is None else best[2]

    def _candidates(self, netns: str) -> Iterator[tuple[int, int, Chosen]]:
        for address in self.addresses.get(netns, []):
            network = ip_interface(address.address).network
            yield network.prefixlen, 0, Chosen("unicast", address.dev, "", str(network))
        for route in self.routes.get(netns, []):
            yield (
                int(route.dst.partition("/")[2]),
                route.metric,
                Chosen(route.type, route.dev, route.via, route.dst, route.learned),
            )

    def segment(self, netns: str, dev: str) -> Iterator[tuple[str, str, tuple[Step, ...]]]:
        """Every end on the layer-2 segment of a device, with the bridges on the way to it."""
        queue: deque[tuple[str, str, tuple[Step, ...], bool]] = deque()
        seen = {(netns, dev)}
        link = self.links.get((netns, dev))
        if isinstance(link, Bridge):
            queue.append((netns, dev, (), True))
        elif link is not None:
            queue.append((link.peer_netns, link.peer, (), False))
        while queue:
            where, name, steps, inside = queue.popleft()
            there = self.links.get((where, name))
            if not inside and isinstance(there, Veth) and not there.master:
                yield where, name, steps
                continue
            bridge = name if inside else getattr(there, "master", "")
            if not bridge or there is None:
                continue
            came_in = "" if inside else name
            if not inside:
                yield where, bridge, (*steps, Step("bridge", where, came_in, "", bridge))
            for port in self._ports.get((where, bridge), []):
                if port.name != came_in and (where, port.name) not in seen:
                    seen.add((where, port.name))
                    through = (*steps, Step("bridge", where, came_in, port.name, bridge))
                    queue.append((port.peer_netns, port.peer, through, False))

    def towards(self, netns: str, dev: str, hop: str) -> tuple[str, str, tuple[Step, ...]] | None:
        """Who has a next hop's address on a device's segment (namespace, device), and the bridges on the way."""
        have = {(a.netns, a.dev) for a in self.owners(hop)}
        return next((end for end in self.segment(netns, dev) if end[:2] in have), None)

    def way(self, netns: str, destination: str) -> Way:
        """The way of a packet that a namespace sends."""
        steps: list[Step] = []
        dev = ""
        for _ in range(_MOST_HOPS):
            chosen = self.lookup(netns, destination)
            if chosen.type == "local":
                return Way((*steps, Step("deliver", netns, dev or "lo")))
            if chosen.type != "unicast":
                return Way((*steps, Step("stuck", netns, dev, via=chosen.type)))
            hop = chosen.via or destination
            steps.append(Step("forward" if dev else "send", netns, dev, chosen.dev, hop))
            end = self.towards(netns, chosen.dev, hop)
            if end is None:
                return Way((*steps, Step("stuck", netns, dev, via="nobody has the next hop")))
            netns, dev, bridges = end
            steps += bridges
        return Way((*steps, Step("stuck", netns, dev, via="loop")))


def uses(way: Way, kind: str, netns: str, **fields: str) -> bool:
    """Whether a way has a step of a kind in a namespace, with these values."""
    return any(
        step.kind == kind
        and step.netns == netns
        and all(getattr(step, name) == value for name, value in fields.items())
        for step in way.steps
    )
