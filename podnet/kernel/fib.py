"""What a kernel would do with a packet: its own answer to a route lookup, for what it sends and what it forwards.

A lookup with an incoming device goes through all that a packet goes through on its way in: the local table, the
reverse-path filter, the forwarding switch (net/ipv4/route.c, inet_rtm_getroute).
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from podnet.kernel import rtnl
from podnet.kernel.netlink import attr, attrs

if TYPE_CHECKING:
    from podnet.kernel.netlink import NetlinkSocket

__all__ = ["Lookup", "lookup"]

_RTMSG = struct.Struct("=BBBBBBBBI")
_RTA_SRC, _RTA_IIF, _RTA_VIA = 2, 3, 18
_RTM_F_LOOKUP_TABLE, _RTM_F_FIB_MATCH = 0x1000, 0x2000
_TYPES = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}


class Lookup(NamedTuple):
    """The answer: ``errno`` where the kernel refuses, else the type, device index, next hop and prefix of the route.

    ``via`` is empty where the destination is on the link; ``prefix`` is the matching route's, ``0.0.0.0/0`` for the
    default one, empty where the kernel does not say. ``mtu`` is the route's own, 0 where it has none.
    """

    errno: int
    type: str = ""
    ifindex: int = 0
    via: str = ""
    prefix: str = ""
    mtu: int = 0


def lookup(sock: NetlinkSocket, destination: str, source: str = "", incoming: int = 0) -> Lookup:
    """Ask for a destination; with the index of an ``incoming`` device, for a packet that is forwarded."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    bits = 128 if family == socket.AF_INET6 else 32
    data = attr(rtnl.RTA_DST, socket.inet_pton(family, destination))
    if source:
        data += attr(_RTA_SRC, socket.inet_pton(family, source))
    if incoming:
        data += attr(_RTA_IIF, struct.pack("=I", incoming))
    length = bits if source else 0
    errno, answer = sock.ask(rtnl.RTM_GETROUTE, _RTMSG.pack(family, bits, length, 0, 0, 0, 0, 0, 0) + data)
    if errno or answer is None:
        return Lookup(errno)
    found = _parsed(family, answer)
    _, match = sock.ask(rtnl.RTM_GETROUTE, _RTMSG.pack(family, bits, length, 0, 0, 0, 0, 0, _RTM_F_FIB_MATCH) + data)
    if match is None:
        return found
    route = _parsed(family, match)
    return found._replace(prefix=route.prefix, mtu=route.mtu)


def _parsed(family: int, answer: tuple[bytes, int, int]) -> Lookup:
    data, start, end = answer
    _, length, _, _, _, _, _, kind, _ = _RTMSG.unpack_from(data, start)
    index, mtu, via, destination = 0, 0, "", "::" if family == socket.AF_INET6 else "0.0.0.0"
    for attribute, begin, stop in attrs(data, start + 12, end):
        if attribute == rtnl.RTA_OIF:
            index = int.from_bytes(data[begin : begin + 4], "little")
        elif attribute == rtnl.RTA_GATEWAY:
            via = socket.inet_ntop(family, data[begin:stop])
        elif attribute == _RTA_VIA:  # an IPv4 route over an IPv6 next hop
            other = int.from_bytes(data[begin : begin + 2], "little")
            via = socket.inet_ntop(
                socket.AF_INET6 if other == socket.AF_INET6 else socket.AF_INET, data[begin + 2 : stop]
            )
        elif attribute == rtnl.RTA_DST:
            destination = socket.inet_ntop(family, data[begin:stop])
        elif attribute == rtnl.RTA_METRICS:
            values = {metric: int.from_bytes(data[a : a + 4], "little") for metric, a, _ in attrs(data, begin, stop)}
            mtu = values.get(rtnl.RTAX_MTU, 0)
    return Lookup(0, _TYPES.get(kind, str(kind)), index, via, f"{destination}/{length}", mtu)
