"""Faults below IP: links, bridge ports, MACs, the underlay."""

from __future__ import annotations

from podnet.fault.model import Fault
from podnet.fault.site import Place, Site, Trip
from podnet.fault.step import Step, link_changed, mac_pinned, neighbour_fixed, port_changed, rules_added
from podnet.kernel.objects import Neighbours, Veth

__all__ = ["FAULTS"]

_NOBODY = "02:00:00:00:00:fe"
_SMALL_MTU = 1280


def _pods(site: Site, version: int) -> list[Place]:
    """Pods whose node has a namespace of its own, and that somebody else talks to."""
    return [Place(pod.name) for pod in site.own("pod") if site.netns(pod.node) and len(site.lab.targets) > 1]


def _nodes(site: Site, version: int) -> list[Place]:
    return [
        Place(node.name)
        for node in site.own("node")
        if any(_by_uplink(site, Place(node.name), version, trip) for trip in site.trips)
    ]


def _pairs(site: Site, version: int) -> list[Place]:
    return [Place(p.at, sibling) for p in _pods(site, version) for sibling in site.siblings(p.at)]


def _port(site: Site, place: Place) -> Veth:
    return site.far_end(place.at)


# -- a pod's cable ------------------------------------------------------------------------------------------


def _port_down(site: Site, place: Place, version: int) -> list[Step]:
    port = _port(site, place)
    return [link_changed(port.netns, port.name, ("down",), ("up",))]


def _peer_down(site: Site, place: Place, version: int) -> list[Step]:
    return [link_changed(site.netns(place.at), site.uplink(place.at), ("down",), ("up",), site.found)]


def _detach(site: Site, place: Place, version: int) -> list[Step]:
    port = _port(site, place)
    again = ("master", port.master)
    back = [["run", port.netns, "", "bridge", "link", "set", "dev", port.name, "hairpin", "on"]] if port.hairpin else []
    step = link_changed(port.netns, port.name, ("nomaster",), again)
    return [step._replace(undo=[*step.undo, *back])]


def _block(site: Site, place: Place, version: int) -> list[Step]:
    port = _port(site, place)
    return [port_changed(port.netns, port.name, "state", "0", "3")]


def _across_port(site: Site, place: Place, version: int, trip: Trip) -> bool:
    port = _port(site, place)
    return site.passes_port(trip, port.netns, port.name)


def _across_or_itself(site: Site, place: Place, version: int, trip: Trip) -> bool | None:
    ends = {trip.check.source, trip.check.target}
    return place.at in ends if len(ends) > 1 else False if place.at not in ends else None


def _isolate(site: Site, place: Place, version: int) -> list[Step]:
    ports = [site.far_end(name) for name in (place.at, place.to)]
    return [port_changed(port.netns, port.name, "isolated", "on", "off") for port in ports]


def _between(site: Site, place: Place, version: int, trip: Trip) -> bool:
    return {trip.check.source, trip.check.target} == {place.at, place.to}


def _hairpin_off(site: Site, place: Place, version: int) -> list[Step]:
    port = _port(site, place)
    return [port_changed(port.netns, port.name, "hairpin", "off", "on")]


def _with_hairpin(site: Site, version: int) -> list[Place]:
    return [place for place in _pods(site, version) if _port(site, place).hairpin]


def _back_out(site: Site, place: Place, version: int, trip: Trip) -> bool:
    """Only what a bridge sends back by the port that it came in by, as a Service does for a pod that calls itself."""
    port = _port(site, place)
    steps = [step for way, _, _ in trip.legs() for step in way.steps]
    return any(s.kind == "bridge" and s.netns == port.netns and s.dev == s.out == port.name for s in steps)


def _small_port(site: Site, place: Place, version: int) -> list[Step]:
    port = _port(site, place)
    before = str(port.mtu)
    return [link_changed(port.netns, port.name, ("mtu", str(_SMALL_MTU)), ("mtu", before))]


# -- MACs ---------------------------------------------------------------------------------------------------


def _permanent(site: Site, netns: str, dev: str, address: str) -> str:
    """The MAC of a permanent neighbour that podnet wrote."""
    version = "6" if ":" in address else "4"
    found = site.found.get(("neighbours", netns, dev, version))
    return dict(found.entries).get(address, "") if isinstance(found, Neighbours) else ""


def _fix(site: Site, netns: str, dev: str, address: str) -> list[Step]:
    return [neighbour_fixed(netns, dev, address, _NOBODY, _permanent(site, netns, dev, address))]


def _with_gateway(site: Site, version: int) -> list[Place]:
    return [
        place
        for place in _pods(site, version)
        if site.gateway(place.at, version) and any(_by_gateway(site, place, version, t) for t in site.trips)
    ]


def _gateway_mac(site: Site, place: Place, version: int) -> list[Step]:
    return _fix(site, site.netns(place.at), site.uplink(place.at), site.gateway(place.at, version))


def _by_gateway(site: Site, place: Place, version: int, trip: Trip) -> bool:
    return site.sends_by(trip, site.netns(place.at), site.gateway(place.at, version))


def _pods_of_nodes(site: Site, version: int) -> list[Place]:
    return [Place(site.target(p.at).node, p.at) for p in _pods(site, version) if site.address(p.at, version)]


def _stale(site: Site, place: Place, version: int) -> list[Step]:
    return _fix(site, site.netns(place.at), site.bridge(place.at), site.address(place.to, version))


def _by_node(site: Site, place: Place, version: int, trip: Trip) -> bool:
    return site.sends_by(trip, site.netns(place.at), site.address(place.to, version))


def _pin(site: Site, place: Place, version: int) -> list[Step]:
    pod = site.target(place.at)
    return [mac_pinned(_port(site, place).netns, site.far_end(place.to).name, pod.interfaces[0].mac)]


# -- the underlay -------------------------------------------------------------------------------------------


def _by_uplink(site: Site, place: Place, version: int, trip: Trip) -> bool:
    port = site.far_end(place.at)
    return site.passes_port(trip, port.netns, port.name)


def _neighbouring(site: Site, version: int) -> list[Place]:
    """(a node, another one in the same subnet) where something goes from the first to the second directly."""
    found = []
    for one in site.own("node", "router", "client"):
        for other in site.own("node", "router", "client"):
            if one.kind == other.kind == "router" or one.name == other.name:
                continue
            ports = _ports_between(site, one.name, other.name)
            if ports and any(_one_way(site, Place(one.name, other.name), version, trip) for trip in site.trips):
                found.append(Place(one.name, other.name))
    return found


def _ports_between(site: Site, one: str, other: str) -> tuple[Veth, Veth] | None:
    """The two ends' ports, where both are in one bridge of the underlay."""
    for first in site.target(one).interfaces:
        for second in site.target(other).interfaces:
            near, far = (site.world.links.get((site.netns(n), i.name)) for n, i in ((one, first), (other, second)))
            if not isinstance(near, Veth) or not isinstance(far, Veth):
                continue
            out, into = (site.world.links.get((end.peer_netns, end.peer)) for end in (near, far))
            if not isinstance(out, Veth) or not isinstance(into, Veth) or not out.master:
                continue
            if (out.netns, out.master) == (into.netns, into.master):
                return out, into
    return None


def _partition(site: Site, place: Place, version: int) -> list[Step]:
    ports = _ports_between(site, place.at, place.to)
    if ports is None:
        return []
    out, into = ports
    chain = (
        "chain forward {\ntype filter hook forward priority filter; policy accept;\n"
        f'iifname "{out.name}" oifname "{into.name}" drop comment "cable cut one way"\n}}'
    )
    return [rules_added(out.netns, "bridge", "filter", chain)]


def _one_way(site: Site, place: Place, version: int, trip: Trip) -> bool | None:
    ports = _ports_between(site, place.at, place.to)
    if ports is None:
        return False
    out, into = ports
    steps = [s for way, _, _ in trip.legs() for s in way.steps if s.kind == "bridge" and s.netns == out.netns]
    if any((s.dev, s.out) == (out.name, into.name) for s in steps):
        return True
    # The other direction needs an answer to its ARP question now and then, which is lost.
    return None if any((s.dev, s.out) == (into.name, out.name) for s in steps) else False


FAULTS = (
    Fault(
        "bridge-port-down", "The node's end of a pod's cable is down.", ("link-down",),
        _pods, _port_down, _across_port, versions="both",
    ),
    Fault(
        "veth-peer-down", "The pod's end of its cable is down, and its routes are gone with it.", ("link-down",),
        _pods, _peer_down, _across_or_itself, versions="both",
    ),
    Fault(
        "port-detached", "A pod's port is no longer in the node's bridge.", ("port-detached",),
        _pods, _detach, _across_port, versions="both",
    ),
    Fault(
        "port-disabled", "A pod's bridge port is up, but disabled in the bridge.", ("port-disabled",),
        _pods, _block, _across_port, versions="both",
    ),
    Fault(
        "port-isolated", "The ports of two pods are isolated: they reach all but each other.", ("port-isolated",),
        _pairs, _isolate, _between, versions="both",
    ),
    Fault(
        "hairpin-off", "A pod's bridge port does not send back what came from it: a pod that reaches itself through "
        "a Service does so no longer.", ("hairpin-off",),
        _with_hairpin, _hairpin_off, _back_out, versions="both",
    ),
    Fault(
        "mac-pinned", "A node's bridge has a pod's MAC pinned at another pod's port.", ("port-wrong",),
        _pairs, _pin, _across_port, versions="both",
    ),
    Fault(
        "wrong-gateway-mac", "A pod has a permanent neighbour entry with a wrong MAC for its gateway.", ("wrong-mac",),
        _with_gateway, _gateway_mac, _by_gateway,
    ),
    Fault(
        "stale-neighbour", "A node has a permanent neighbour entry for a pod with the MAC of an earlier one.",
        ("wrong-mac",), _pods_of_nodes, _stale, _by_node,
    ),
    Fault(
        "uplink-down", "The switch's end of a node's cable is down.", ("link-down",),
        _nodes, _port_down, _by_uplink, versions="both",
    ),
    Fault(
        "underlay-partition", "The underlay loses what one host sends to another; the other direction works.",
        ("rule-drop",), _neighbouring, _partition, _one_way, versions="both",
    ),
    Fault(
        "mtu-port", "A switch port of the underlay has a smaller MTU, and drops larger frames without a word.",
        ("mtu-silent",), _nodes, _small_port, _by_uplink, versions="both", large=True,
    ),
)  # fmt: skip
