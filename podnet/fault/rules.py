"""Faults of nftables: filters and NAT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.fault.model import Fault
from podnet.fault.site import Place, Site, Trip
from podnet.fault.step import Step, rules_added, rules_flushed
from podnet.kernel.objects import NftTable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FAULTS"]

_IP = {4: "ip", 6: "ip6"}


def _table(site: Site, place: Place, hook: str, *rules: str, policy: str = "accept", table: str = "filter") -> Step:
    kind, priority = ("nat", "srcnat") if table == "nat" else ("filter", "filter")
    lines = "\n".join(rules)
    chain = f"chain {hook} {{\ntype {kind} hook {hook} priority {priority}; policy {policy};\n{lines}\n}}"
    return rules_added(site.netns(place.at), "inet", table, chain)


def _trips(site: Site, version: int) -> list[Trip]:
    return [trip for trip in site.trips if trip.check.version == version and trip.check.verdict != "drop"]


def _places(breaks: Callable[[Site, Place, int, Trip], bool | None], *, to_pods: bool) -> Callable[..., list[Place]]:
    """Nodes and routers (with each pod beyond) where something would break."""

    def places(site: Site, version: int) -> list[Place]:
        trips = _trips(site, version)
        found = []
        for target in site.own("node", "router"):
            for pod in site.lab.of_kind("pod") if to_pods else (None,):
                place = Place(target.name, pod.name if pod else "")
                if any(breaks(site, place, version, trip) for trip in trips):
                    found.append(place)
        return found

    return places


def _to_pod(site: Site, place: Place, version: int, trip: Trip) -> bool:
    address = site.address(place.to, version)
    return bool(address) and site.filtered(trip, site.netns(place.at), address)


def _refused(site: Site, place: Place, version: int, trip: Trip) -> bool:
    """A request that the rule refuses is as it should be where a refusal is expected; an answer is lost."""
    requests = trip.check.verdict == "refuse" and _to_pod(site, place, version, trip.there_only())
    return not requests and _to_pod(site, place, version, trip)


def _to_pod_by_tcp(site: Site, place: Place, version: int, trip: Trip) -> bool:
    address = site.address(place.to, version)
    # A rule for requests only: answers carry SYN and ACK.
    there = trip.there_only()
    meant = trip.check.protocol == "tcp" and trip.check.verdict == "reach"
    return meant and bool(address) and site.filtered(there, site.netns(place.at), address)


def _anything(site: Site, place: Place, version: int, trip: Trip) -> bool:
    return site.filtered(trip, site.netns(place.at))


def _answers(site: Site, place: Place, version: int, trip: Trip) -> bool | None:
    """Connection tracking knows an answer as one only where it saw the request."""
    netns = site.netns(place.at)
    there = site.filtered(trip.there_only(), netns)
    back = site.filtered(trip.back_only(), netns)
    return there if there == back else None


def _drop(site: Site, place: Place, version: int) -> list[Step]:
    rule = f'{_IP[version]} daddr {site.address(place.to, version)} drop comment "closed for maintenance"'
    return [_table(site, place, "forward", rule)]


def _reject(site: Site, place: Place, version: int) -> list[Step]:
    rule = (
        f'{_IP[version]} daddr {site.address(place.to, version)} reject with icmpx admin-prohibited comment "not yours"'
    )
    return [_table(site, place, "forward", rule)]


def _policy(site: Site, place: Place, version: int) -> list[Step]:
    other = "ipv6" if version == 4 else "ipv4"
    return [_table(site, place, "forward", f"meta nfproto {other} accept", policy="drop")]


def _state(site: Site, place: Place, version: int) -> list[Step]:
    rule = f'meta nfproto ipv{version} ct state established,related drop comment "a minus sign too many"'
    return [_table(site, place, "forward", rule)]


def _reset(site: Site, place: Place, version: int) -> list[Step]:
    address = site.address(place.to, version)
    rule = f"{_IP[version]} daddr {address} tcp flags syn / syn,ack reject with tcp reset"
    return [_table(site, place, "forward", f'{rule} comment "connections are reset here"')]


# -- filters in a pod ---------------------------------------------------------------------------------------


def _pods(site: Site, version: int) -> list[Place]:
    return [Place(pod.name) for pod in site.own("pod") if site.address(pod.name, version)]


def _input(site: Site, place: Place, version: int) -> list[Step]:
    rule = f'meta nfproto ipv{version} meta l4proto tcp drop comment "no TCP"'
    return [_table(site, place, "input", rule)]


def _tcp_to_pod(site: Site, place: Place, version: int, trip: Trip) -> bool:
    """Answers to the pod are dropped as well; but a probe has its answer as soon as that reached the namespace."""
    return trip.check.protocol == "tcp" and trip.check.target == place.at


def _talking(site: Site, version: int) -> list[Place]:
    pairs = {(t.check.source, t.check.target) for t in _trips(site, version)}
    pods = {place.at for place in _pods(site, version)}
    return [Place(one, other) for one, other in sorted(pairs) if one in pods and one != other]


def _output(site: Site, place: Place, version: int) -> list[Step]:
    rule = f'{_IP[version]} daddr {site.address(place.to, version)} drop comment "not from here"'
    return [_table(site, place, "output", rule)]


def _from_pod(site: Site, place: Place, version: int, trip: Trip) -> bool:
    netns, address = site.netns(place.at), site.address(place.to, version)
    return any(way.steps[0].netns == netns and destination == address for way, destination, _ in trip.legs())


# -- NAT ----------------------------------------------------------------------------------------------------


def _masquerade(site: Site, place: Place, version: int) -> list[Step]:
    cidr, ip = site.pod_cidr(place.at, version), _IP[version]
    rule = f'oifname "{site.uplink(place.at)}" {ip} saddr {cidr} masquerade comment "everything behind one address"'
    return [_table(site, place, "postrouting", rule, table="nat")]


def _leaves_own(site: Site, place: Place, version: int, trip: Trip) -> bool:
    """A pod of the node sends out of it, and must be seen under its own address."""
    check, netns = trip.check, site.netns(place.at)
    if check.seen != "own" or site.target(check.source).node != place.at:
        return False
    return any(
        s.kind == "forward" and s.netns == netns and s.out == site.uplink(place.at) for s in trip.there.way.steps
    )


def _flush(site: Site, place: Place, version: int) -> list[Step]:
    table = _own_table(site, place.at)
    return [rules_flushed(table.netns, table.family, table.name, "postrouting", table.ruleset)] if table else []


def _own_table(site: Site, node: str) -> NftTable | None:
    found = (e for e in site.found.values() if isinstance(e, NftTable) and e.netns == site.netns(node))
    return next((table for table in found if "masquerade" in table.ruleset), None)


def _leaves_masked(site: Site, place: Place, version: int, trip: Trip) -> bool:
    return trip.check.seen == "node" and site.target(trip.check.source).node == place.at


def _masked(site: Site, version: int) -> list[Place]:
    trips = _trips(site, version)
    nodes = [node.name for node in site.own("node") if _own_table(site, node.name)]
    return [Place(n) for n in nodes if any(_leaves_masked(site, Place(n), version, trip) for trip in trips)]


FAULTS = (
    Fault(
        "forward-drop", "A rule on a node or router drops what is forwarded to one pod.", ("rule-drop",),
        _places(_to_pod, to_pods=True), _drop, _to_pod,
    ),
    Fault(
        "forward-policy", "The forward chain of a node or router drops whatever it has no rule for.", ("rule-drop",),
        _places(_anything, to_pods=False), _policy, _anything,
    ),
    Fault(
        "forward-reject", "A rule refuses what is forwarded to one pod with an ICMP error.", ("rule-reject",),
        _places(_refused, to_pods=True), _reject, _refused,
    ),
    Fault(
        "tcp-reset", "A rule answers new TCP connections to one pod with a reset, in the pod's name.", ("rule-reset",),
        _places(_to_pod_by_tcp, to_pods=True), _reset, _to_pod_by_tcp,
    ),
    Fault(
        "state-drop", "A rule drops what belongs to a known connection: requests pass, answers do not.", ("rule-drop",),
        _places(_answers, to_pods=False), _state, _answers,
    ),
    Fault(
        "input-drop", "A pod's own firewall drops all TCP that comes in.", ("rule-drop",), _pods, _input, _tcp_to_pod,
    ),
    Fault(
        "output-drop", "A pod's own firewall drops what it sends to one receiver.", ("rule-drop",),
        _talking, _output, _from_pod,
    ),
    Fault(
        "masquerade-unwanted", "A node hides its pods behind its own address inside the cluster too.",
        ("nat-unexpected",), _places(_leaves_own, to_pods=False), _masquerade, _leaves_own,
    ),
    Fault(
        "masquerade-missing", "A node lets its pods' addresses out of the cluster, where nobody knows the way back.",
        ("nat-missing",), _masked, _flush, _leaves_masked, versions="both",
    ),
)  # fmt: skip
