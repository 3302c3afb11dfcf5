"""ipip: pods' IPv4 packets in IPv4, to the node that has them (RFC 2003).

Every node has one tunnel device without a far end of its own: where a packet is sent says the next hop of its route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.fabric import hostgw
from podnet.kernel.objects import KernelObject, Route, Tunnel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.fabric import Site, Terms, Way

__all__ = ["CARRIES", "NEEDS", "node", "overhead", "router"]

NEEDS = ("ipip",)
CARRIES = (4,)


def overhead(versions: tuple[int, ...]) -> int:
    """The outer IPv4 header."""
    return 20


def node(terms: Terms, here: Site, ways: Sequence[Way]) -> list[KernelObject]:
    """The device, and a route for each other node that is not routed to directly."""
    direct = [way for way in ways if terms.direct_routing and way.direct]
    through = [way for way in ways if way not in direct]
    objects = hostgw.node(terms, here, direct)
    if not through:
        return objects
    options = (("local", here.addresses[4]),)
    objects.append(
        Tunnel(here.netns, here.tunnel, "ipip", options, mtu=terms.mtu, group=terms.group, altname=here.label)
    )
    for way in through:
        objects += [
            Route(here.netns, str(cidr), way.to.addresses[4], here.tunnel, src=here.gateways[4], onlink=True)
            for cidr in way.to.cidrs
        ]
    return objects


def router(netns: str, dev: str, other: Site, hops: dict[int, str]) -> list[KernelObject]:
    """Nothing: the underlay sees nodes only."""
    return []
