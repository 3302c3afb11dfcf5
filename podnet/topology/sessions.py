"""Who speaks BGP with whom, and what each must learn from it; no I/O.

Every node and router has an AS number of its own. In a subnet with routers, each router has a session with every other
speaker of the subnet; in one without, every node has one with every other.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from podnet.fabric.bgp import Session, Speaker
from podnet.topology.marks import netns_of, short

if TYPE_CHECKING:
    from podnet.model.lab import InterfaceAddress
    from podnet.model.placement import Placement
    from podnet.model.topology import Network

__all__ = ["speakers"]

_NAME_BYTES = 50  # of a session's name: bird takes 63, with its IP version


class _Face(NamedTuple):
    """A speaker's interface in a subnet."""

    dev: str
    subnet: str
    addresses: dict[int, str]


class _Speaker(NamedTuple):
    name: str
    as_number: int
    rank: int  # 0 for nodes; routers count from 1, in file order
    cidrs: tuple[Network, ...]
    faces: tuple[_Face, ...]


def speakers(placement: Placement) -> tuple[list[Speaker], list[str]]:
    """All speakers, nodes first, and what is wrong, a line each: a node that another one cannot hear of."""
    every = _every(placement)
    links = {each.name: _links(each, every) for each in every}
    versions = placement.topology.networking.versions
    learned: dict[str, list[tuple[Network, str, str]]] = {each.name: [] for each in every}
    problems = []
    for origin in every:
        if origin.cidrs:
            ways = _ways(origin, every, links)
            for each in every:
                if each is origin:
                    continue
                if each.name not in ways:
                    if not each.rank:
                        problems.append(
                            f"{placement.topology.path}: no router joins {each.name} and {origin.name}: "
                            f"{each.name} would not learn its pod CIDR"
                        )
                    continue
                dev, hops = ways[each.name]
                learned[each.name] += [(cidr, hops[cidr.version], dev) for cidr in origin.cidrs]
    found = []
    for each in every:
        sessions = [
            Session(
                _session_name(other.name, version), other.name, other.as_number, version,
                face.addresses[version], there.addresses[version], other.rank,
            )
            for other, face, there in links[each.name]
            for version in versions
        ]  # fmt: skip
        found.append(
            Speaker(
                each.name, netns_of(placement.topology.name, each.name), each.as_number, _router_id(each),
                each.cidrs, bool(each.rank), tuple(sessions), tuple(learned[each.name]),
            )
        )  # fmt: skip
    return found, problems


_Link = tuple[_Speaker, _Face, _Face]
_Way = tuple[str, dict[int, str]]


def _every(placement: Placement) -> list[_Speaker]:
    found = [
        _Speaker(n.node.name, n.as_number, 0, n.pod_cidrs, (_face("eth0", n.node.subnet, n.addresses),))
        for n in placement.nodes
    ]
    for rank, placed in enumerate(placement.routers, start=1):
        faces = tuple(
            _face(f"eth{number}", subnet, addresses)
            for number, (subnet, addresses) in enumerate(zip(placed.router.subnets, placed.addresses, strict=True))
        )
        found.append(_Speaker(placed.router.name, placed.as_number, rank, (), faces))
    return found


def _face(dev: str, subnet: str, addresses: tuple[InterfaceAddress, ...]) -> _Face:
    return _Face(dev, subnet, {address.version: str(address.ip) for address in addresses})


def _links(here: _Speaker, every: list[_Speaker]) -> list[_Link]:
    """Whom a speaker has sessions with, in the first subnet that both are in: the other, and both interfaces."""
    found: dict[str, _Link] = {}
    for face in here.faces:
        others = [(o, f) for o in every for f in o.faces if f.subnet == face.subnet and o is not here]
        routed = any(o.rank for o, _ in others)
        for other, there in others:
            if here.rank or other.rank or not routed:
                found.setdefault(other.name, (other, face, there))
    return list(found.values())


def _ways(origin: _Speaker, every: list[_Speaker], links: dict[str, list[_Link]]) -> dict[str, _Way]:
    """Interface and next hops towards a node, for each speaker that hears of it: what BGP's decision comes to.

    The shortest path of AS numbers wins, among equal ones the router that is first in the file. A router passes a next
    hop on to who shares its subnet (RFC 4271, 5.1.3), else it names itself.
    """
    order = {each.name: each for each in every}
    ways: dict[str, _Way] = {}
    distance = {origin.name: 0}
    queue = deque([origin])
    while queue:
        here = queue.popleft()
        if here is not origin:
            tell = [x for x in links[here.name] if distance.get(x[0].name) == distance[here.name] - 1]
            tell = [x for x in tell if x[0] is origin or x[0].rank]
            ways[here.name] = _way(min(tell, key=lambda link: link[0].rank), ways)
        if here is origin or here.rank:  # a node tells nobody of others
            for other, _, _ in links[here.name]:
                if other.name not in distance:
                    distance[other.name] = distance[here.name] + 1
                    queue.append(order[other.name])
    return ways


def _way(link: _Link, ways: dict[str, _Way]) -> _Way:
    """What is learned from a neighbour: the next hop that it passes on, or itself."""
    teller, face, there = link
    dev, hops = ways.get(teller.name, ("", {}))
    passed_on = any(each.dev == dev and each.subnet == face.subnet for each in teller.faces)
    return face.dev, hops if passed_on else there.addresses


def _session_name(other: str, version: int) -> str:
    return f"{other if len(other) <= _NAME_BYTES else short('peer', other)}.ipv{version}"


def _router_id(each: _Speaker) -> str:
    """Its first IPv4 address; where there is none, its AS number in that form, which is as unique."""
    given = next((face.addresses[4] for face in each.faces if 4 in face.addresses), "")
    return given or ".".join(str(byte) for byte in each.as_number.to_bytes(4, "big"))
