"""Faults of routing: forwarding, routes, next hops."""

from __future__ import annotations

from podnet.fault.model import Fault
from podnet.fault.site import Place, Site, Trip
from podnet.fault.step import Step, route_added, route_changed, route_deleted, rules_added, sysctl_changed
from podnet.kernel.objects import Route, Sysctl

__all__ = ["FAULTS"]

_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
_LENGTH = {4: 32, 6: 128}
_SMALL_MTU = 1280  # the least that IPv6 allows


def _any(site: Site, version: int, kinds: tuple[str, ...]) -> list[str]:
    return [t.name for t in site.own(*kinds) if site.address(t.name, version) or t.kind == "router"]


def _trips(site: Site, version: int) -> list[Trip]:
    return [trip for trip in site.trips if trip.check.version == version and trip.check.verdict != "drop"]


# -- forwarding ---------------------------------------------------------------------------------------------


def _forwarders(site: Site, version: int) -> list[Place]:
    trips = _trips(site, version)
    names = _any(site, version, ("node", "router"))
    return [Place(n) for n in names if any(site.forwards(trip, site.netns(n)) for trip in trips)]


def _forwarding_off(site: Site, place: Place, version: int) -> list[Step]:
    netns, name = site.netns(place.at), _FORWARDING[version]
    before = site.found.get(("sysctl", netns, name))
    return [sysctl_changed(netns, name, "0", before.value if isinstance(before, Sysctl) else "1")]


def _forwards(site: Site, place: Place, version: int, trip: Trip) -> bool:
    return site.forwards(trip, site.netns(place.at))


# -- routes between nodes -----------------------------------------------------------------------------------


def _fabric_routes(site: Site, version: int) -> list[tuple[Place, Route]]:
    """(who has a route to whose pods, the route) where something goes that way. A daemon would mend its own at once."""
    trips = _trips(site, version)
    found = []
    for name in _any(site, version, ("node", "router")):
        for other in site.lab.of_kind("node"):
            cidr = site.pod_cidr(other.name, version)
            route = site.route_to(name, cidr) if cidr else None
            if (
                route is not None
                and route.via
                and not route.learned
                and any(site.routes(t, site.netns(name), cidr) for t in trips)
            ):
                found.append((Place(name, other.name), route))
    return found


def _lonely_routes(site: Site, version: int) -> list[Place]:
    return [place for place, route in _fabric_routes(site, version) if not site.covered_without(route)]


def _turned(site: Site, version: int) -> list[Place]:
    """The same places, seen from the far side: the route that answers to ``to``'s pods take."""
    return sorted(_lonely_routes(site, version), key=lambda place: (place.to, place.at))


def _fabric_places(site: Site, version: int) -> list[Place]:
    return [place for place, _ in _fabric_routes(site, version)]


def _route_of(site: Site, place: Place, version: int) -> Route:
    route = site.route_to(place.at, site.pod_cidr(place.to, version))
    if route is None:
        raise KeyError(place.to)
    return route


def _delete_route(site: Site, place: Place, version: int) -> list[Step]:
    return [route_deleted(_route_of(site, place, version))]


def _misdirect(site: Site, place: Place, version: int) -> list[Step]:
    return [route_changed(_route_of(site, place, version), via=site.free_address(place.to, version))]


def _reachable_subnet(site: Site, version: int) -> list[Place]:
    """Places where the wrong next hop is on the link of the right one."""
    return [p for p, route in _fabric_routes(site, version) if site.address(p.to, version) == route.via]


def _to_pods_of(site: Site, place: Place, version: int, trip: Trip) -> bool:
    return site.routes(trip, site.netns(place.at), site.pod_cidr(place.to, version))


def _small_route(site: Site, place: Place, version: int) -> list[Step]:
    return [route_changed(_route_of(site, place, version), mtu=_SMALL_MTU)]


def _small_route_filtered(site: Site, place: Place, version: int) -> list[Step]:
    netns = site.netns(place.at)
    kind = "icmp type destination-unreachable icmp code 4" if version == 4 else "icmpv6 type packet-too-big"
    chain = f"chain output {{\ntype filter hook output priority filter; policy accept;\n{kind} drop\n}}"
    return [*_small_route(site, place, version), rules_added(netns, "inet", "filter", chain)]


def _large_to_pods_of(site: Site, place: Place, version: int, trip: Trip) -> bool | None:
    """Requests do not get through. An answer as large may be sent in pieces."""
    one_way = trip.there_only()
    return True if _to_pods_of(site, place, version, one_way) else _perhaps(_to_pods_of(site, place, version, trip))


def _large_through(site: Site, place: Place, version: int, trip: Trip) -> bool | None:
    """The node's own packets are refused at once, so that is no black hole."""
    forwarded = any(s.kind == "forward" and s.netns == site.netns(place.at) for s in trip.there.way.steps)
    must = _large_to_pods_of(site, place, version, trip)
    return must if forwarded or not must else None


def _perhaps(may: bool) -> bool | None:
    return None if may else False


# -- default routes of pods ---------------------------------------------------------------------------------


def _with_default_route(site: Site, version: int) -> list[Place]:
    trips = _trips(site, version)
    return [
        Place(pod.name)
        for pod in site.own("pod")
        if site.default_route(pod.name, version) and any(_by_default(site, Place(pod.name), version, t) for t in trips)
    ]


def _delete_default(site: Site, place: Place, version: int) -> list[Step]:
    route = site.default_route(place.at, version)
    return [route_deleted(route)] if route else []


def _by_default(site: Site, place: Place, version: int, trip: Trip) -> bool:
    return site.sends_by_default(trip, site.netns(place.at))


def _with_default_route_and_sibling(site: Site, version: int) -> list[Place]:
    places = _with_default_route(site, version)
    return [Place(p.at, sibling) for p in places for sibling in site.siblings(p.at)[:1]]


def _wrong_gateway(site: Site, place: Place, version: int) -> list[Step]:
    route = site.default_route(place.at, version)
    return [route_changed(route, via=site.address(place.to, version))] if route else []


# -- routes that swallow or refuse --------------------------------------------------------------------------


def _pods_beyond(site: Site, version: int) -> list[Place]:
    """(a node or router, a pod that it routes packets to)."""
    trips = _trips(site, version)
    found = []
    for name in _any(site, version, ("node", "router")):
        for pod in site.lab.of_kind("pod"):
            address = site.address(pod.name, version)
            if address and any(site.routes(trip, site.netns(name), f"{address}/{_LENGTH[version]}") for trip in trips):
                found.append(Place(name, pod.name))
    return found


def _refusing(kind: str) -> Fault:
    def steps(site: Site, place: Place, version: int) -> list[Step]:
        prefix = f"{site.address(place.to, version)}/{_LENGTH[version]}"
        return [route_added(site.netns(place.at), prefix, kind=kind)]

    words = {
        "blackhole": "swallows it without a word",
        "unreachable": "answers 'host unreachable'",
        "prohibit": "answers 'prohibited'",
    }
    return Fault(
        f"{kind}-route", f"A {kind} route for one pod's address: the node {words[kind]}.", (f"{kind}-route",),
        _pods_beyond, steps, _to_pod,
    )  # fmt: skip


def _to_pod(site: Site, place: Place, version: int, trip: Trip) -> bool:
    address = site.address(place.to, version)
    return bool(address) and site.routes(trip, site.netns(place.at), f"{address}/{_LENGTH[version]}")


def _loops(site: Site, version: int) -> list[Place]:
    """(a node, a pod on it) where another node's or router's route to the pod leads to this node."""
    back = {place.to: place.at for place in _reachable_subnet(site, version)}
    pods = [pod for pod in site.own("pod") if pod.node in back and site.netns(pod.node)]
    return [Place(pod.node, pod.name) for pod in pods if Place(pod.node, pod.name) in _pods_beyond(site, version)]


def _loop(site: Site, place: Place, version: int) -> list[Step]:
    back = {p.to: p.at for p in _reachable_subnet(site, version)}[place.at]
    subnet = site.uplink(place.at)
    hop = next(
        address.address.partition("/")[0]
        for address in site.world.addresses[site.netns(back)]
        if (":" in address.address) == (version == 6)
        and site.world.towards(site.netns(place.at), subnet, address.address.partition("/")[0])
    )
    prefix = f"{site.address(place.to, version)}/{_LENGTH[version]}"
    return [route_added(site.netns(place.at), prefix, "via", hop, "dev", subnet)]


# -- the reverse-path filter --------------------------------------------------------------------------------


def _asymmetric(site: Site, version: int) -> list[Place]:
    trips = _trips(site, version)
    names = _any(site, version, ("node", "router"))
    return [Place(n) for n in names if any(_off_path(site, Place(n), version, trip) for trip in trips)]


def _off_path(site: Site, place: Place, version: int, trip: Trip) -> bool:
    """Whether something comes in by another device than the one that leads back to its sender."""
    netns = site.netns(place.at)
    for way, _, source in trip.legs():
        for step in way.steps:
            if step.netns == netns and step.kind in ("forward", "deliver") and step.dev != "lo":
                back = site.world.lookup(netns, source)
                if back.type == "unicast" and back.dev != step.dev:
                    return True
    return False


def _strict(site: Site, place: Place, version: int) -> list[Step]:
    return [sysctl_changed(site.netns(place.at), "net/ipv4/conf/all/rp_filter", "1", "0")]


FAULTS = (
    Fault(
        "forwarding-off", "A node or router no longer forwards.", ("forwarding-off",),
        _forwarders, _forwarding_off, _forwards,
    ),
    Fault(
        "route-missing", "A node or router has lost its route to another node's pods.", ("no-route",),
        _lonely_routes, _delete_route, _to_pods_of,
    ),
    Fault(
        "return-route-missing", "The node of the receivers has no route back to the senders' pods: requests arrive, "
        "answers do not.", ("no-route",),
        _turned, _delete_route, _to_pods_of,
    ),
    Fault(
        "default-route-missing", "A pod has lost its default route.", ("no-route",),
        _with_default_route, _delete_default, _by_default,
    ),
    Fault(
        "wrong-next-hop", "The route to another node's pods leads to an address that nobody has.", ("wrong-next-hop",),
        _reachable_subnet, _misdirect, _to_pods_of,
    ),
    Fault(
        "wrong-gateway", "A pod's default route leads to another pod, which forwards nothing.", ("wrong-next-hop",),
        _with_default_route_and_sibling, _wrong_gateway, _by_default,
    ),
    _refusing("blackhole"),
    _refusing("unreachable"),
    _refusing("prohibit"),
    Fault(
        "routing-loop", "A node sends what is for one of its own pods back to where it came from.", ("wrong-next-hop",),
        _loops, _loop, _to_pod,
    ),
    Fault(
        "rp-filter-strict", "The reverse-path filter is strict where packets come and go by different devices.",
        ("reverse-path",), _asymmetric, _strict, _off_path, versions="ipv4",
    ),
    Fault(
        "mtu-smaller", "The path to another node's pods has a smaller MTU; senders of larger packets are told so.",
        ("mtu",), _fabric_places, _small_route, _large_to_pods_of, large=True,
    ),
    Fault(
        "mtu-smaller-silent", "The same, and the ICMP errors that would tell senders are filtered: a black hole for "
        "large packets.", ("mtu-silent",),
        _fabric_places, _small_route_filtered, _large_through, large=True,
    ),
)  # fmt: skip
