"""host-gw: a plain route per pod CIDR to the node that has it, over the underlay as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.kernel.objects import KernelObject, Route

if TYPE_CHECKING:
    from podnet.model.placement import PlacedNode

__all__ = ["OVERHEAD", "wanted"]

OVERHEAD = 0  # bytes of the underlay's MTU that the fabric takes for itself


def wanted(netns: str, dev: str, other: PlacedNode, next_hops: dict[int, str]) -> list[KernelObject]:
    """What one node (or router) needs in order to reach the pods of another node.

    ``next_hops`` is the way towards that node by IP version: its own address where both stand in one subnet,
    else a router's.
    """
    return [Route(netns, str(cidr), next_hops[cidr.version], dev) for cidr in other.pod_cidrs]
