"""What is in a namespace, read by rtnetlink dumps: from bytes to objects.

Own decoding instead of pyroute2's: ``podnet status`` may take half the start of a Python with click, json and
sqlite3 for itself, and importing pyroute2 alone takes four times that start.
"""

from __future__ import annotations

import _socket as socket  # the rest of socket takes 6 ms to import
import struct
from typing import TYPE_CHECKING

from podnet.kernel import rtnl
from podnet.kernel.netlink import attr, attrs
from podnet.kernel.objects import (
    ALTNAME,
    PROTOCOL,
    Address,
    Bridge,
    KernelObject,
    Loopback,
    Neighbours,
    Route,
    Veth,
    replace,
)

if TYPE_CHECKING:
    from podnet.kernel.netlink import NetlinkSocket

__all__ = ["LinkRow", "addresses", "link", "links", "neighbours", "routes", "senders"]

_IFINFO = struct.Struct("=BxHiII")
_U32 = struct.Struct("=I")
_ATTR = struct.Struct("=HH")
_NLA_TYPE_MASK = 0x3FFF
_SHOWN = {
    rtnl.IFLA_IFNAME, rtnl.IFLA_ADDRESS, rtnl.IFLA_MTU, rtnl.IFLA_GROUP, rtnl.IFLA_MASTER, rtnl.IFLA_LINK,
    rtnl.IFLA_LINK_NETNSID, rtnl.IFLA_PROP_LIST, rtnl.IFLA_LINKINFO, rtnl.IFLA_AF_SPEC,
}  # fmt: skip
_RTEXT_FILTER_SKIP_STATS = 1 << 3
_PROTO_KERNEL, _PROTO_RA = 2, 9
_ON_LOOPBACK = {"127.0.0.1/8", "::1/128"}
_RT_SCOPE_LINK, _IFA_F_TENTATIVE = 253, 0x40
_VERSIONS = {int(socket.AF_INET): 4, int(socket.AF_INET6): 6}
_IFAPROT_KERNEL = {1, 2, 3}  # loopback, router advertisement, link-local: linux/if_addr.h
_RTM_F_CLONED = 0x200
_IP6_RT_PRIO_USER = 1024
_TYPES = {number: name for name, number in rtnl.ROUTE_TYPES.items()}
_KINDS_OF_ROUTES = {1, 6, 7, 8}  # what Route can say; local, broadcast, anycast and multicast are the kernel's


class LinkRow:
    """One link of a dump. ``peer_index`` and ``peer_nsid`` (-1: same namespace) lead to a veth's other end."""

    __slots__ = (
        "addrgen", "altname", "data", "group", "hairpin", "index", "kind", "mac", "master", "mtu", "name",
        "peer_index", "peer_nsid", "up",
    )  # fmt: skip

    def __init__(self, index: int, *, up: bool) -> None:
        self.index, self.up = index, up
        self.name = self.kind = self.mac = self.altname = ""
        self.data = b""  # what only its kind knows (IFLA_INFO_DATA)
        self.mtu = self.group = self.master = self.peer_index = 0
        self.hairpin, self.addrgen, self.peer_nsid = False, True, -1

    def bridge(self, netns: str) -> Bridge:
        """This row as the bridge that it is."""
        return Bridge(netns, self.name, self.mac, self.mtu, self.up, self.group, self.altname)

    def veth(self, netns: str, master: str, peer_netns: str, peer: str) -> Veth:
        """This row as a veth end, once its master and peer are known."""
        return Veth(
            netns, self.name, peer_netns, peer, self.mac, self.mtu, self.up, master,
            self.hairpin, self.addrgen, self.group, self.altname,
        )  # fmt: skip

    def loopback(self, netns: str) -> Loopback:
        """This row as ``lo``."""
        return Loopback(netns, self.up)


def links(sock: NetlinkSocket) -> dict[int, LinkRow]:
    """All links of a namespace by their index."""
    request = _IFINFO.pack(0, 0, 0, 0, 0) + attr(rtnl.IFLA_EXT_MASK, _U32.pack(_RTEXT_FILTER_SKIP_STATS))
    rows = {}
    for kind, data, start, end in sock.dump(rtnl.RTM_GETLINK, request):
        if kind == rtnl.RTM_NEWLINK:
            row = _link(data, start, end)
            rows[row.index] = row
    return rows


def link(sock: NetlinkSocket, name: str) -> LinkRow | None:
    """The link of this name, which costs the same however many there are; ``None`` where there is none."""
    request = _IFINFO.pack(0, 0, 0, 0, 0) + attr(rtnl.IFLA_EXT_MASK, _U32.pack(_RTEXT_FILTER_SKIP_STATS))
    answer = sock.get(rtnl.RTM_GETLINK, request + attr(rtnl.IFLA_IFNAME, name.encode() + b"\0"))
    return None if answer is None else _link(*answer)


def _link(data: bytes, start: int, end: int) -> LinkRow:
    _, _, index, flags, _ = _IFINFO.unpack_from(data, start)
    row = LinkRow(index, up=bool(flags & rtnl.IFF_UP))
    # What of fifty attributes is not looked at is passed over here: a generator would take half of a dump's time.
    offset = start + 16
    while offset + 4 <= end:
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4:
            break
        kind &= _NLA_TYPE_MASK
        begin, stop = offset + 4, offset + length
        offset += (length + 3) & ~3
        if kind not in _SHOWN:
            continue
        match kind:
            case rtnl.IFLA_IFNAME:
                row.name = _text(data, begin, stop)
            case rtnl.IFLA_ADDRESS:
                row.mac = data[begin:stop].hex(":")
            case rtnl.IFLA_MTU:
                row.mtu = _u32(data, begin)
            case rtnl.IFLA_GROUP:
                row.group = _u32(data, begin)
            case rtnl.IFLA_MASTER:
                row.master = _u32(data, begin)
            case rtnl.IFLA_LINK:
                row.peer_index = _u32(data, begin)
            case rtnl.IFLA_LINK_NETNSID:
                row.peer_nsid = int.from_bytes(data[begin:stop], "little", signed=True)
            case rtnl.IFLA_PROP_LIST:
                row.altname = _altname(data, begin, stop)
            case rtnl.IFLA_LINKINFO:
                _linkinfo(row, data, begin, stop)
            case rtnl.IFLA_AF_SPEC:
                row.addrgen = _addrgen(data, begin, stop)
    return row


def _linkinfo(row: LinkRow, data: bytes, begin: int, stop: int) -> None:
    for kind, first, last in attrs(data, begin, stop):
        if kind == rtnl.INFO_KIND:
            row.kind = _text(data, first, last)
        elif kind == rtnl.INFO_DATA:
            row.data = data[first:last]
        elif kind == rtnl.INFO_SLAVE_DATA:
            for port, value, _ in attrs(data, first, last):
                if port == rtnl.BRPORT_MODE:
                    row.hairpin = data[value] != 0


def _altname(data: bytes, begin: int, stop: int) -> str:
    """podnet's own altname; others may stand beside it, and are nobody's business."""
    names = [_text(data, a, b) for kind, a, b in attrs(data, begin, stop) if kind == rtnl.IFLA_ALT_IFNAME]
    return next((name for name in names if name.startswith(ALTNAME)), "")


def _addrgen(data: bytes, begin: int, stop: int) -> bool:
    for family, first, last in attrs(data, begin, stop):
        if family == socket.AF_INET6:
            for kind, value, _ in attrs(data, first, last):
                if kind == rtnl.INET6_ADDR_GEN_MODE:
                    return data[value] == 0
    return True


def _text(data: bytes, begin: int, stop: int) -> str:
    return data[begin : stop - 1].decode(errors="replace")


def _u32(data: bytes, begin: int) -> int:
    return int(_U32.unpack_from(data, begin)[0])


def addresses(sock: NetlinkSocket, netns: str, names: dict[int, str], only: int = 0) -> list[Address]:
    """The addresses of a namespace, without those that the kernel made (loopback's, IPv6 link-local).

    ``only`` is the index of the link that is asked about, where it is one. The kernel marks its own since 5.18
    (IFA_PROTO).
    """
    found: list[Address] = []
    for _, data, start, end in sock.dump(rtnl.RTM_GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, only)):
        family, length, _, _, index = struct.unpack_from("=BBBBi", data, start)
        dev = names.get(index, "")
        address, protocol = b"", 0
        for kind, begin, stop in attrs(data, start + 8, end):
            if kind == rtnl.IFA_LOCAL or (kind == rtnl.IFA_ADDRESS and not address):
                address = data[begin:stop]
            elif kind == rtnl.IFA_PROTO:
                protocol = data[begin]
        if protocol in _IFAPROT_KERNEL:
            continue
        text = f"{socket.inet_ntop(family, address)}/{length}"
        if dev != "lo" or text not in _ON_LOOPBACK:
            found.append(Address(netns, dev, text, protocol))
    return found


def senders(sock: NetlinkSocket) -> list[tuple[int, str, bool]]:
    """The addresses that a namespace may send from to others: IP version, address, whether it is ready.

    Not ready is what duplicate address detection still holds back. Left out are addresses of the scopes host and link.
    """
    found = []
    for _, data, start, end in sock.dump(rtnl.RTM_GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, 0)):
        family, _, flags, scope, _ = struct.unpack_from("=BBBBi", data, start)
        values = {kind: data[begin:stop] for kind, begin, stop in attrs(data, start + 8, end)}
        address = values.get(rtnl.IFA_LOCAL) or values.get(rtnl.IFA_ADDRESS)
        if scope < _RT_SCOPE_LINK and address is not None and family in _VERSIONS:
            text = socket.inet_ntop(family, address)
            found.append((_VERSIONS[family], text, not flags & _IFA_F_TENTATIVE))
    return found


def routes(sock: NetlinkSocket, netns: str, names: dict[int, str]) -> list[KernelObject]:
    """The routes of a namespace, without those that the kernel made for its own addresses."""
    found: list[KernelObject] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
        for _, data, start, end in sock.dump(rtnl.RTM_GETROUTE, request):
            _, length, _, _, table, protocol, scope, kind, flags = struct.unpack_from("=BBBBBBBBI", data, start)
            if protocol in {_PROTO_KERNEL, _PROTO_RA} or kind not in _KINDS_OF_ROUTES or flags & _RTM_F_CLONED:
                continue
            head = (netns, family, length, table, protocol, kind, bool(flags & rtnl.RTNH_F_ONLINK))
            route = _route(data, start, end, head, names)
            usual = scope == rtnl.usual_scope(family, kind=kind, via=bool(route.via))
            found.append(route if usual or family == socket.AF_INET6 else replace(route, scope=scope))
    return found


def _route(
    data: bytes, start: int, end: int, head: tuple[str, int, int, int, int, int, bool], names: dict[int, str]
) -> Route:
    netns, family, length, table, protocol, kind, onlink = head
    text = {rtnl.RTA_DST: "", rtnl.RTA_GATEWAY: "", rtnl.RTA_PREFSRC: ""}
    dev, metric, mtu, advmss = "", 0, 0, 0
    for attribute, begin, stop in attrs(data, start + 12, end):
        if attribute in text:
            text[attribute] = socket.inet_ntop(family, data[begin:stop])
        elif attribute == rtnl.RTA_OIF:
            dev = names.get(_u32(data, begin), "")
        elif attribute == rtnl.RTA_PRIORITY:
            metric = _u32(data, begin)
        elif attribute == rtnl.RTA_TABLE:
            table = _u32(data, begin)
        elif attribute == rtnl.RTA_METRICS:
            metrics = {m: _u32(data, a) for m, a, b in attrs(data, begin, stop) if b - a == 4}
            mtu, advmss = metrics.get(rtnl.RTAX_MTU, 0), metrics.get(rtnl.RTAX_ADVMSS, 0)
    if family == socket.AF_INET6 and metric == _IP6_RT_PRIO_USER:
        metric = 0  # what the kernel takes where none was given
    if kind != 1:
        dev = ""  # IPv6 hangs a blackhole on lo, IPv4 on nothing
    nowhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
    return Route(
        netns, f"{text[rtnl.RTA_DST] or nowhere}/{length}", text[rtnl.RTA_GATEWAY], dev, text[rtnl.RTA_PREFSRC],
        _TYPES[kind], metric, mtu, table, protocol, advmss, onlink=onlink,
    )  # fmt: skip


def neighbours(sock: NetlinkSocket, netns: str, names: dict[int, str]) -> list[KernelObject]:
    """The permanent neighbours that bear podnet's protocol, one object for each link and IP version."""
    found: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for _, data, start, end in sock.dump(rtnl.RTM_GETNEIGH, struct.pack("=BxxxiHBB", 0, 0, 0, 0, 0)):
        family, index, state, _, _ = struct.unpack_from("=BxxxiHBB", data, start)
        if state != rtnl.NUD_PERMANENT or family not in {socket.AF_INET, socket.AF_INET6}:
            continue
        address, mac, protocol = "", "", 0
        for attribute, begin, stop in attrs(data, start + 12, end):
            if attribute == rtnl.NDA_DST:
                address = socket.inet_ntop(family, data[begin:stop])
            elif attribute == rtnl.NDA_LLADDR:
                mac = data[begin:stop].hex(":")
            elif attribute == rtnl.NDA_PROTOCOL:
                protocol = data[begin]
        if protocol == PROTOCOL:
            found.setdefault((index, 6 if family == socket.AF_INET6 else 4), []).append((address, mac))
    return [
        Neighbours(netns, names.get(index, ""), version, tuple(sorted(entries)))
        for (index, version), entries in found.items()
    ]
