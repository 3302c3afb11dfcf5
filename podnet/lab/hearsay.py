"""Which routes no daemon is sure to learn while links, nodes or the underlay are broken on purpose; no I/O.

Until a neighbour's hold time is over its routes are still there, and then they are gone: neither is a difference.
"""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.kernel.objects import Route
    from podnet.model.fault import Fault

__all__ = ["unheard"]


def unheard(learned: Sequence[Route], faults: Sequence[Fault], lab: dict[str, Any]) -> list[Route]:
    """Of all that is learned in the healthy lab what may be missing; ``lab`` is what the record says of its targets.

    Where a router's link is down, what is learned may have another next hop: then all of them.
    """
    speakers = {each["netns"]: each for each in lab["targets"] if each["kind"] in {"node", "router"}}
    routers = {each["name"] for each in speakers.values() if each["kind"] == "router"}
    stopped = {fault.target for fault in faults if fault.kind == "node"}
    down = {(fault.target, fault.interface) for fault in faults if fault.kind == "link"}
    if any(name in routers for name, _ in down):
        return list(learned)
    knows: dict[str, set[str]] = {}
    for route in learned:
        knows.setdefault(route.dst, set()).add(route.netns)
    reach = {netns: _reached(netns, speakers, routers, stopped, down, faults) for netns in speakers}
    # Everybody learns a prefix but the node that has it.
    return [r for r in learned if not any(n in reach[r.netns] for n in speakers if n not in knows[r.dst])]


def _reached(
    start: str,
    speakers: dict[str, dict[str, Any]],
    routers: set[str],
    stopped: set[str],
    down: set[tuple[str, str]],
    faults: Sequence[Fault],
) -> set[str]:
    """Whom a speaker hears of: over a session, and over routers from who has one with them."""
    seen, ahead = {start}, [start]
    while ahead:
        here = speakers[ahead.pop()]
        if here["netns"] != start and here["name"] not in routers:
            continue
        for netns, other in speakers.items():
            if netns not in seen and _session(here, other, speakers, routers, stopped, down, faults):
                seen.add(netns)
                ahead.append(netns)
    return seen


def _session(
    here: dict[str, Any],
    other: dict[str, Any],
    speakers: dict[str, dict[str, Any]],
    routers: set[str],
    stopped: set[str],
    down: set[tuple[str, str]],
    faults: Sequence[Fault],
) -> bool:
    if {here["name"], other["name"]} & stopped or any(_apart(here["name"], other["name"], fault) for fault in faults):
        return False
    shared = _subnets(here, down) & _subnets(other, down)
    if {here["name"], other["name"]} & routers:
        return bool(shared)
    return any(not any(subnet in _subnets(each, set()) for each in speakers.values() if each["name"] in routers)
               for subnet in shared)  # fmt: skip


def _subnets(each: dict[str, Any], down: set[tuple[str, str]]) -> set[str]:
    """The underlay's networks that a speaker is in; a node's first interface is there, its bridge is not."""
    interfaces = each["interfaces"] if each["kind"] == "router" else each["interfaces"][:1]
    up = [one for one in interfaces if (each["name"], one["name"]) not in down]
    return {str(ip_interface(text).network) for one in up for text in one["addresses"]}


def _apart(one: str, other: str, fault: Fault) -> bool:
    """Whether a partition stands between both."""
    sides = [number for number, group in enumerate(fault.groups) if {one, other} & set(group)]
    return len(sides) > 1
