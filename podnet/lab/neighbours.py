"""The neighbour table is one for all namespaces of the machine: what a lab needs of it, and how it gets that.

Every pair on a segment that talks takes two entries, and the kernel refuses new ones at
``net.ipv4.neigh.default.gc_thresh3`` (1,024 unless raised; measured: 400 pods all pairs lost 19 % of their
packets at 16,384). Where the limit can be raised, in the machine's own namespace, a lab that could come near it raises
it as long as it lives. Elsewhere it writes its neighbours permanently, which are not counted: that takes 0.2 ms a
pod at 100 pods a bridge, grows with their square, and makes every look at them walk the table of all namespaces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.kernel import sysctl
from podnet.kernel.objects import KernelObject, Neighbours, State, Sysctl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podnet.model.lab import Lab, Target
    from podnet.model.placement import Placement

__all__ = ["limits", "need", "with_neighbours"]

_DEFAULT_LIMIT = 1024  # what the kernel takes; a namespace other than the initial one cannot read it
_FAMILY = {4: "ipv4", 6: "ipv6"}
# gc_thresh1 stays: below it the kernel collects nothing, above it only what was unused for a minute. Between
# gc_thresh2 and gc_thresh3 it collects in haste whatever was not used for five seconds.
_RAISED = ("gc_thresh2", "gc_thresh3")


def limits(versions: Iterable[int]) -> dict[str, int]:
    """The limits, in entries, that this process could raise, by name below ``/proc/sys``: none in a sandbox."""
    names = [f"net/{_FAMILY[version]}/neigh/default/{name}" for version in versions for name in _RAISED]
    return {each.name: int(each.value) for each in sysctl.read(("", name) for name in names if sysctl.writable(name))}


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


def with_neighbours(wanted: State, lab: Lab, placement: Placement, before: Mapping[str, int], others: int) -> State:
    """``wanted``, with the limits raised or with permanent neighbours where the need comes near a limit.

    ``before`` holds the limits as they were before any lab (see ``limits``), ``others`` the need of the other labs.
    """
    own = need(lab, placement)
    more: list[KernelObject] = []
    segments = None
    for version in lab.versions:
        names = [f"net/{_FAMILY[version]}/neigh/default/{name}" for name in _RAISED]
        if all(name in before for name in names):
            if own + others > before[names[-1]] // 2:
                more += [Sysctl("", name, str(before[name] + own + others)) for name in names]
        elif own > _DEFAULT_LIMIT // 2 and placement.topology.networking.cni is None:
            segments = segments or _segments(lab, placement)
            more += _permanent(segments, version)
    # What the file says of a limit counts more than what is reckoned here.
    return wanted | {each.key: each for each in more if each.key not in wanted}


def _permanent(segments: Iterable[list[tuple[Target, str]]], version: int) -> list[KernelObject]:
    found: list[KernelObject] = []
    for segment in segments:
        faces = [(target.netns, i) for target, name in segment for i in target.interfaces if i.name == name]
        # Everybody gets the same entries, the own one too (the kernel never asks it): they can be shared.
        pairs = [(str(a.ip), i.mac) for _, i in faces for a in i.addresses if a.version == version]
        entries = tuple(sorted(pairs))
        found += [Neighbours(netns, interface.name, version, entries) for netns, interface in faces]
    return found
