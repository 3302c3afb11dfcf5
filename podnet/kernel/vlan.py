"""VLAN filtering of bridges: which VLANs a port is in, as messages and read back.

Numbers from linux/if_bridge.h, if_link.h. A kernel without CONFIG_BRIDGE_VLAN_FILTERING refuses them all (EOPNOTSUPP).
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from podnet.kernel.netlink import attr, attrs, nested
from podnet.kernel.rtnl import (
    IFLA_AF_SPEC,
    IFLA_EXT_MASK,
    IFLA_IFNAME,
    IFLA_LINKINFO,
    INFO_DATA,
    INFO_KIND,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from podnet.kernel.netlink import NetlinkSocket

__all__ = ["DEFAULT", "PortVlan", "add_vlans", "delete_vlans", "set_filtering", "vlans", "wanted"]

Message = tuple[int, int, bytes]

DEFAULT = 1  # the VLAN that a bridge puts every new port into

_RTM_SETLINK = 19
_IFLA_BR_VLAN_FILTERING = 7
_BRIDGE_VLAN_INFO = 2  # IFLA_BRIDGE_VLAN_INFO
_PVID, _UNTAGGED, _RANGE_BEGIN, _RANGE_END = 0x2, 0x4, 0x8, 0x10
_FILTER_BRVLAN = 1 << 1  # RTEXT_FILTER_BRVLAN, linux/rtnetlink.h
_IFINFO = struct.Struct("=BxHiII")
_INFO = struct.Struct("=HH")  # bridge_vlan_info: flags, vid


class PortVlan(NamedTuple):
    """A VLAN that a port is in: ``pvid`` is that of frames that come without a tag; ``untagged`` go out without one."""

    vid: int
    pvid: bool = False
    untagged: bool = False

    def __str__(self) -> str:
        return f"{self.vid}{' pvid' if self.pvid else ''}{' untagged' if self.untagged else ''}"


def wanted(vlan: int, trunk: Iterable[int], *, keep_default: bool) -> frozenset[PortVlan]:
    """The VLANs of a port with an access VLAN (0: none), a trunk, or both, as the reference bridge plugin has them.

    Untagged frames are those of the access VLAN, without one those of VLAN 1.
    """
    native = vlan or DEFAULT
    found = {PortVlan(each) for each in trunk if each != native} | {PortVlan(native, pvid=True, untagged=True)}
    if keep_default and DEFAULT not in {each.vid for each in found}:
        found.add(PortVlan(DEFAULT, untagged=True))
    return frozenset(found)


def set_filtering(name: str, *, on: bool) -> Message:
    """Let a bridge tell VLANs apart, or not."""
    data = nested(INFO_DATA, attr(_IFLA_BR_VLAN_FILTERING, b"\1" if on else b"\0"))
    info = nested(IFLA_LINKINFO, attr(INFO_KIND, b"bridge"), data)
    return RTM_NEWLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + attr(IFLA_IFNAME, name.encode() + b"\0") + info


def add_vlans(index: int, vlans: Iterable[PortVlan]) -> Message:
    """Put a bridge's port into VLANs."""
    return _RTM_SETLINK, 0, _port(index, vlans)


def delete_vlans(index: int, vlans: Iterable[PortVlan]) -> Message:
    """Take a bridge's port out of VLANs."""
    return RTM_DELLINK, 0, _port(index, (PortVlan(each.vid) for each in vlans))


def _port(index: int, vlans: Iterable[PortVlan]) -> bytes:
    infos = []
    for first, last in _runs(sorted(vlans)):
        flags = (_PVID if first.pvid else 0) | (_UNTAGGED if first.untagged else 0)
        if first.vid == last.vid:
            infos.append(attr(_BRIDGE_VLAN_INFO, _INFO.pack(flags, first.vid)))
        else:
            infos.append(attr(_BRIDGE_VLAN_INFO, _INFO.pack(flags | _RANGE_BEGIN, first.vid)))
            infos.append(attr(_BRIDGE_VLAN_INFO, _INFO.pack(flags | _RANGE_END, last.vid)))
    return _IFINFO.pack(socket.AF_BRIDGE, 0, index, 0, 0) + nested(IFLA_AF_SPEC, *infos)


def _runs(vlans: list[PortVlan]) -> Iterator[tuple[PortVlan, PortVlan]]:
    """The first and last of each run of consecutive numbers with the same flags; a PVID stands alone."""
    start = 0
    for at in range(1, len(vlans) + 1):
        before = vlans[at - 1]
        if at == len(vlans) or vlans[at] != before._replace(vid=before.vid + 1) or before.pvid:
            yield vlans[start], before
            start = at


def vlans(sock: NetlinkSocket) -> dict[int, frozenset[PortVlan]]:
    """The VLANs of all ports of a namespace, by the ports' indexes."""
    request = _IFINFO.pack(socket.AF_BRIDGE, 0, 0, 0, 0) + attr(IFLA_EXT_MASK, struct.pack("=I", _FILTER_BRVLAN))
    found: dict[int, frozenset[PortVlan]] = {}
    for kind, data, start, end in sock.dump(RTM_GETLINK, request):
        if kind != RTM_NEWLINK:
            continue
        index = _IFINFO.unpack_from(data, start)[2]
        for key, begin, stop in attrs(data, start + _IFINFO.size, end):
            if key == IFLA_AF_SPEC:
                found[index] = frozenset(_read(data, begin, stop))
    return found


def _read(data: bytes, begin: int, stop: int) -> Iterator[PortVlan]:
    first = 0
    for key, at, _ in attrs(data, begin, stop):
        if key != _BRIDGE_VLAN_INFO:
            continue
        flags, vid = _INFO.unpack_from(data, at)
        if flags & _RANGE_BEGIN:
            first = vid
            continue
        for each in range(first if flags & _RANGE_END else vid, vid + 1):
            yield PortVlan(each, bool(flags & _PVID), bool(flags & _UNTAGGED))
