"""What decides a packet's fate in a namespace and is not part of the wanted state: carrier, port flags, all neighbours.

Numbers from linux/if_link.h, if_bridge.h, neighbour.h.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from podnet.kernel import rtnl
from podnet.kernel.netlink import attr, attrs

if TYPE_CHECKING:
    from podnet.kernel.netlink import NetlinkSocket

__all__ = ["LinkDetail", "NeighbourDetail", "addresses", "forwarding_database", "links", "neighbours"]

_IFLA_CARRIER = 33
_BRPORT_STATE, _BRPORT_ISOLATED = 1, 33
_RTEXT_FILTER_SKIP_STATS = 8
_STATES = {0: "disabled", 1: "listening", 2: "learning", 3: "forwarding", 4: "blocking"}
_NUD = {0: "none", 1: "incomplete", 2: "reachable", 4: "stale", 8: "delay", 16: "probe", 32: "failed", 64: "noarp",
        128: "permanent"}  # fmt: skip
_AF_BRIDGE = 7


class LinkDetail(NamedTuple):
    """One link. ``port_state``, ``hairpin`` and ``isolated`` are a bridge port's, ``master`` is its bridge's index."""

    ifindex: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    carrier: bool
    master: int = 0
    port_state: str = ""
    hairpin: bool = False
    isolated: bool = False


class NeighbourDetail(NamedTuple):
    """One entry of the neighbour table; ``mac`` is empty where nobody answered."""

    ifindex: int
    address: str
    mac: str
    state: str


def links(sock: NetlinkSocket) -> list[LinkDetail]:
    """All links of a namespace."""
    request = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attr(rtnl.IFLA_EXT_MASK, _u32(_RTEXT_FILTER_SKIP_STATS))
    return [_link(data, start, end) for _, data, start, end in sock.dump(rtnl.RTM_GETLINK, request)]


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _number(data: bytes, begin: int) -> int:
    return int(struct.unpack_from("=I", data, begin)[0])


def _link(data: bytes, start: int, end: int) -> LinkDetail:
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", data, start)
    name = kind = mac = ""
    mtu = master = 0
    carrier = True
    port: dict[int, int] = {}
    for attribute, begin, stop in attrs(data, start + 16, end):
        match attribute:
            case rtnl.IFLA_IFNAME:
                name = data[begin : stop - 1].decode(errors="replace")
            case rtnl.IFLA_ADDRESS:
                mac = data[begin:stop].hex(":")
            case rtnl.IFLA_MTU:
                mtu = _number(data, begin)
            case rtnl.IFLA_MASTER:
                master = _number(data, begin)
            case _ if attribute == _IFLA_CARRIER:
                carrier = data[begin] != 0
            case rtnl.IFLA_LINKINFO:
                for info, first, last in attrs(data, begin, stop):
                    if info == rtnl.INFO_KIND:
                        kind = data[first : last - 1].decode(errors="replace")
                    elif info == rtnl.INFO_SLAVE_DATA:
                        port = {each: data[value] for each, value, _ in attrs(data, first, last)}
    return LinkDetail(
        index, name, kind, mac, mtu, bool(flags & rtnl.IFF_UP), carrier, master,
        _STATES.get(port[_BRPORT_STATE], "") if _BRPORT_STATE in port else "",
        bool(port.get(rtnl.BRPORT_MODE)), bool(port.get(_BRPORT_ISOLATED)),
    )  # fmt: skip


def addresses(sock: NetlinkSocket) -> list[tuple[int, str]]:
    """(index of the link, address with prefix length) of all addresses, those that the kernel made too."""
    found = []
    for _, data, start, end in sock.dump(rtnl.RTM_GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, 0)):
        family, length, _, _, index = struct.unpack_from("=BBBBi", data, start)
        address = b""
        for attribute, begin, stop in attrs(data, start + 8, end):
            if attribute == rtnl.IFA_LOCAL or (attribute == rtnl.IFA_ADDRESS and not address):
                address = data[begin:stop]
        found.append((index, f"{socket.inet_ntop(family, address)}/{length}"))
    return found


def neighbours(sock: NetlinkSocket) -> list[NeighbourDetail]:
    """All neighbours of a namespace, whoever wrote them and whatever their state."""
    found = []
    for _, data, start, end in sock.dump(rtnl.RTM_GETNEIGH, struct.pack("=BxxxiHBB", 0, 0, 0, 0, 0)):
        family, index, state, _, _ = struct.unpack_from("=BxxxiHBB", data, start)
        if family not in {socket.AF_INET, socket.AF_INET6}:
            continue
        address = mac = ""
        for attribute, begin, stop in attrs(data, start + 12, end):
            if attribute == rtnl.NDA_DST:
                address = socket.inet_ntop(family, data[begin:stop])
            elif attribute == rtnl.NDA_LLADDR:
                mac = data[begin:stop].hex(":")
        found.append(NeighbourDetail(index, address, mac, _NUD.get(state, str(state))))
    return found


def forwarding_database(sock: NetlinkSocket) -> list[tuple[int, str, bool]]:
    """(index of the port, MAC, whether somebody pinned it there) of all bridges' entries in a namespace."""
    found = []
    for _, data, start, end in sock.dump(rtnl.RTM_GETNEIGH, struct.pack("=BxxxiHBB", _AF_BRIDGE, 0, 0, 0, 0)):
        _, index, state, flags, _ = struct.unpack_from("=BxxxiHBB", data, start)
        mac, master = "", False
        for attribute, begin, stop in attrs(data, start + 12, end):
            if attribute == rtnl.NDA_LLADDR:
                mac = data[begin:stop].hex(":")
            elif attribute == _NDA_MASTER:
                master = True
        if master and not flags & _NTF_SELF:
            found.append((index, mac, state in {_NUD_NOARP, rtnl.NUD_PERMANENT}))
    return found


_NDA_MASTER = 9
_NTF_SELF = 0x02
_NUD_NOARP = 0x40
