"""vxlan: pods' packets as Ethernet frames in UDP, to the node that has them (RFC 7348, without its multicast).

Every node has one VXLAN device. Nothing is flooded and nothing is learned: for each other node there is a route to
its pods, a permanent neighbour that gives the MAC of its device, and a forwarding entry that says at which underlay
address that MAC is. flannel's vxlan backend works in this way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.fabric import hostgw, outer
from podnet.kernel.objects import KernelObject, Neighbours, Peer, Route, Tunnel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.fabric import Site, Terms, Way

__all__ = ["CARRIES", "NEEDS", "PORT", "node", "overhead", "router"]

NEEDS = ("vxlan",)
CARRIES = (4, 6)
PORT = 8472  # what Linux took before IANA gave VXLAN 4789, and what flannel and Cilium take


def overhead(versions: tuple[int, ...]) -> int:
    """Inner Ethernet 14, VXLAN 8, UDP 8, and the outer IP header of 20 or 40 bytes."""
    return 50 if outer(versions) == 4 else 70


def node(terms: Terms, here: Site, ways: Sequence[Way]) -> list[KernelObject]:
    """The device, and for each other node that is not routed to directly its peer, neighbours and routes."""
    direct = [way for way in ways if terms.direct_routing and way.direct]
    through = [way for way in ways if way not in direct]
    objects = hostgw.node(terms, here, direct)
    if not through:
        return objects
    version = outer(terms.versions)
    options = (("id", str(terms.vni)), ("local", here.addresses[version]), ("port", str(terms.port or PORT)))
    objects.append(
        Tunnel(here.netns, here.tunnel, "vxlan", options, here.mac, terms.mtu, group=terms.group, altname=here.label)
    )
    objects += [Peer(here.netns, here.tunnel, "vxlan", way.to.mac, way.to.addresses[version]) for way in through]
    for family in terms.versions:
        entries = sorted((_hop(way.to, family), way.to.mac) for way in through)
        objects.append(Neighbours(here.netns, here.tunnel, family, tuple(entries)))
    return objects + [each for way in through for each in _routes(here, way.to)]


def _hop(other: Site, version: int) -> str:
    """The next hop towards a node's pods: for IPv4 its gateway address, for IPv6 the link-local one of its device.

    IPv4 lets any address be on a link (``onlink``); IPv6 refuses that while another route still leads to it.
    """
    return other.gateways[4] if version == 4 else _link_local(other.mac)


def _link_local(mac: str) -> str:
    """The address that a device with this MAC gives itself (RFC 4291, appendix A)."""
    from ipaddress import IPv6Address

    raw = bytes.fromhex(mac.replace(":", ""))
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]))


def _routes(here: Site, other: Site) -> list[KernelObject]:
    """Routes to another node's pods. What the node itself sends comes from its gateway address: answers to its
    underlay address would not take the tunnel."""
    return [
        Route(
            here.netns, str(cidr), _hop(other, cidr.version), here.tunnel, src=here.gateways[cidr.version],
            onlink=cidr.version == 4,
        )
        for cidr in other.cidrs
    ]  # fmt: skip


def router(netns: str, dev: str, other: Site, hops: dict[int, str]) -> list[KernelObject]:
    """Nothing: the underlay sees nodes only."""
    return []
