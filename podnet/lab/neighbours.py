"""The neighbour table is one for all namespaces of the machine: what a lab needs of it, and how it is spared.

Every pair on a segment that talks takes two entries, and the kernel refuses new ones at
``net.ipv4.neigh.default.gc_thresh3`` (1,024 unless raised; measured: 400 pods all pairs lost 19 % of their
packets at 16,384). Permanent entries are not counted, so a lab that could reach the limit gets all of its own
written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from podnet.kernel.objects import KernelObject, Neighbours, State

if TYPE_CHECKING:
    from podnet.model.lab import Lab, Target
    from podnet.model.placement import Placement

__all__ = ["limit", "need", "with_neighbours"]

_DEFAULT_LIMIT = 1024  # what the kernel takes; a namespace other than the initial one cannot read it
_FAMILY = {4: "ipv4", 6: "ipv6"}


def limit(version: int) -> int:
    """``gc_thresh3`` of one IP version, in entries; the kernel's default where it cannot be read."""
    try:
        return int(Path(f"/proc/sys/net/{_FAMILY[version]}/neigh/default/gc_thresh3").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return _DEFAULT_LIMIT


def _segments(lab: Lab, placement: Placement) -> list[list[tuple[Target, str]]]:
    """Who stands on one layer-2 segment, each with its interface there: a bridge of pods, or a subnet."""
    by_name = {target.name: target for target in lab.targets}
    bridge = placement.topology.networking.bridge
    segments: dict[str, list[tuple[Target, str]]] = {}
    for node in lab.of_kind("node"):
        segments[f"bridge/{node.name}"] = [(node, bridge)]
    for pod in lab.of_kind("pod"):
        segments[f"bridge/{pod.node}"].append((pod, "eth0"))
    for placed in placement.nodes:
        target = by_name[placed.node.name]
        segments.setdefault(f"subnet/{placed.node.subnet}", []).append((target, target.interfaces[0].name))
    for client in placement.clients:
        segments.setdefault(f"subnet/{client.client.subnet}", []).append((by_name[client.client.name], "eth0"))
    for router in placement.routers:
        for number, subnet in enumerate(router.router.subnets):
            segments.setdefault(f"subnet/{subnet}", []).append((by_name[router.router.name], f"eth{number}"))
    return list(segments.values())


def need(lab: Lab, placement: Placement) -> int:
    """How many entries of one family the lab takes when everybody talks to everybody."""
    return sum(len(segment) * (len(segment) - 1) for segment in _segments(lab, placement))


def with_neighbours(wanted: State, lab: Lab, placement: Placement) -> State:
    """``wanted``, with permanent neighbours where the lab's need comes near the limit."""
    needed = need(lab, placement)
    versions = [version for version in lab.versions if needed > limit(version) // 2]
    if not versions:
        return wanted
    neighbours: list[KernelObject] = []
    for segment in _segments(lab, placement):
        faces = [(target.netns, i) for target, name in segment for i in target.interfaces if i.name == name]
        for version in versions:
            # Everybody gets the same entries, the own one too (the kernel never asks it): they can be shared.
            pairs = [(str(a.ip), i.mac) for _, i in faces for a in i.addresses if a.version == version]
            entries = tuple(sorted(pairs))
            neighbours += [Neighbours(netns, interface.name, version, entries) for netns, interface in faces]
    return wanted | {each.key: each for each in neighbours}
