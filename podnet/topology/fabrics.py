"""Checks of the fabric: what it carries, its settings, and what it leaves of the underlay's MTU."""

from __future__ import annotations

from podnet.fabric import fabric_of
from podnet.topology.context import Context
from podnet.topology.problem import quote
from podnet.topology.tree import Path, find

__all__ = ["check_fabric", "check_mtu"]

_WITH_SETTINGS = ("vxlan", "wireguard", "ipip", "bgp")
_IPV6 = 1280  # RFC 8200, section 5


def check_fabric(context: Context) -> None:
    """Settings belong to the fabric that is used, and it carries the IP versions in use."""
    networking = context.file.networking
    if not context.intact("networking", "fabric"):
        return
    for name in _WITH_SETTINGS:
        path: Path = ("networking", name)
        if name != networking.fabric and find(context.tree, path)[1]:
            message = f"`{name}` has settings, and `fabric` is {networking.fabric}"
            context.report(path, message, f"write `fabric: {name}`, or take `{name}` out", key=True)
    if networking.fabric == "bgp":
        for i, node in enumerate(context.file.nodes):
            if node.host:
                message = (
                    "with `fabric: bgp` no node is the machine itself: its daemon would take other daemons' routes"
                )
                context.report(("nodes", i, "host"), message, "take `host: true` out, or another fabric")
    lacking = [v for v in context.versions if v not in fabric_of(networking.fabric).CARRIES]
    if lacking and context.intact("networking", "ipFamily"):
        message = f"fabric {networking.fabric} carries IPv4 only, and `ipFamily` is {networking.ip_family}"
        context.report(("networking", "fabric"), message, "take vxlan, wireguard, bgp or host-gw, or `ipFamily: ipv4`")


def check_mtu(context: Context) -> None:
    """IPv6 needs 1280 bytes, and no pod sends more than the underlay carries of it."""
    networking = context.file.networking
    for i, subnet in enumerate(context.file.underlay.subnets):
        if subnet.mtu < _IPV6 and 6 in context.versions:
            message = f"`mtu` of subnet {quote(subnet.name)} is {subnet.mtu}, and IPv6 needs at least 1280"
            context.report(("underlay", "subnets", i, "mtu"), message)
    if networking.mtu is not None and networking.mtu < _IPV6 and 6 in context.versions:
        context.report(("networking", "mtu"), f"`mtu` is {networking.mtu}, and IPv6 needs at least 1280")
    if context.intact("networking", "fabric"):
        _room(context)


def _room(context: Context) -> None:
    networking = context.file.networking
    taken = fabric_of(networking.fabric).overhead(context.versions)
    least = min(context.subnets, key=lambda s: s.mtu)
    room = least.mtu - taken
    carries = f"subnet {quote(least.name)} of the underlay carries {least.mtu}"
    if taken:
        carries += f", of which {networking.fabric} takes {taken}"
    needed = _IPV6 if 6 in context.versions else 68
    if networking.mtu is not None and networking.mtu > room:
        message = f"`mtu` is {networking.mtu}, and {carries}"
        context.report(("networking", "mtu"), message, f"write {room} or less, or raise `mtu` of that subnet")
    elif networking.mtu is None and room < needed <= least.mtu:
        message = f"{carries}: that leaves {room} for pods, and IPv{max(context.versions)} needs at least {needed}"
        context.report(("networking", "fabric"), message, f"raise `mtu` of that subnet to {needed + taken} or more")
