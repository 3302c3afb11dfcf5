"""wireguard: pods' packets encrypted in UDP, to the node that has them (wireguard.com/papers/wireguard.pdf).

Every node has a key pair and one WireGuard device, with every other node as its peer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.fabric import outer
from podnet.kernel.objects import KernelObject, Peer, Route, Sysctl, Tunnel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.fabric import Site, Terms, Way

__all__ = ["CARRIES", "NEEDS", "PORT", "node", "overhead", "router"]

NEEDS = ("wireguard",)
CARRIES = (4, 6)
PORT = 51820


def overhead(versions: tuple[int, ...]) -> int:
    """WireGuard's header and tag 32, UDP 8, and the outer IP header of 20 or 40 bytes."""
    return 60 if outer(versions) == 4 else 80


def node(terms: Terms, here: Site, ways: Sequence[Way]) -> list[KernelObject]:
    """The device, and for each other node its peer and routes."""
    if not ways:
        return []
    version, port = outer(terms.versions), terms.port or PORT
    options = (("port", str(port)), ("public", here.key))
    objects: list[KernelObject] = [
        Tunnel(
            here.netns, here.tunnel, "wireguard", options, mtu=terms.mtu, group=terms.group, altname=here.label
        )
    ]  # fmt: skip
    if not here.netns:
        # The kernel switches this off for the whole namespace with the first WireGuard device that comes up (wg_open),
        # and leaves it so: on the machine itself it is noted, so as to be put back.
        objects.append(Sysctl("", "net/ipv4/conf/all/send_redirects", "0"))
    for way in ways:
        address = way.to.addresses[version]
        endpoint = f"[{address}]:{port}" if version == 6 else f"{address}:{port}"
        # The node's own addresses too: it may send to pods from them.
        own = [f"{text}/{32 if family == 4 else 128}" for family, text in way.to.addresses.items()]
        allowed = tuple(sorted([*map(str, way.to.cidrs), *own]))
        objects.append(Peer(here.netns, here.tunnel, "wireguard", way.to.key, endpoint, allowed))
        objects += [
            Route(here.netns, str(cidr), dev=here.tunnel, src=here.gateways[cidr.version]) for cidr in way.to.cidrs
        ]
    return objects


def router(netns: str, dev: str, other: Site, hops: dict[int, str]) -> list[KernelObject]:
    """Nothing: the underlay sees nodes only."""
    return []
