"""host-gw: a plain route per pod CIDR to the node that has it, over the underlay as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.kernel.objects import KernelObject, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.fabric import Site, Terms, Way

__all__ = ["CARRIES", "NEEDS", "node", "overhead", "router"]

NEEDS: tuple[str, ...] = ()
CARRIES = (4, 6)


def overhead(versions: tuple[int, ...]) -> int:
    """Nothing is put around a packet."""
    return 0


def node(terms: Terms, here: Site, ways: Sequence[Way]) -> list[KernelObject]:
    """A route to each other node's pods: to the node itself in one subnet, else to a router, which has one too."""
    return [each for way in ways for each in router(here.netns, here.dev, way.to, way.hops)]


def router(netns: str, dev: str, other: Site, hops: dict[int, str]) -> list[KernelObject]:
    """The same route on the way: the underlay has to know the pods' networks."""
    return [Route(netns, str(cidr), hops[cidr.version], dev) for cidr in other.cidrs]
