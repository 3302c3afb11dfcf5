"""rtnetlink messages for links, addresses, routes and neighbours: from objects to bytes.

Numbers from linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h. A message names a link by its name where the
kernel allows it, which saves a look-up.
"""

from __future__ import annotations

import _socket as socket  # the rest of socket takes 6 ms to import
import struct
from functools import lru_cache
from typing import TYPE_CHECKING

from podnet.kernel.netlink import attr, nested, ready
from podnet.kernel.objects import PROTOCOL, replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podnet.kernel.objects import Address, Bridge, Route, Tunnel, Veth

__all__ = [
    "add_address",
    "add_altname",
    "add_bridge",
    "add_neighbours",
    "add_route",
    "add_tunnel",
    "add_veth",
    "delete_address",
    "delete_altname",
    "delete_group",
    "delete_link",
    "delete_neighbours",
    "delete_route",
    "set_link",
    "split",
    "usual_scope",
]

Message = tuple[int, int, bytes]

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_GETNSID = 90
_RTM_NEWLINKPROP, _RTM_DELLINKPROP = 108, 109
_CREATE, _EXCL, _REPLACE = 0x400, 0x200, 0x100

IFF_UP = 0x1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_AF_SPEC, IFLA_GROUP, _IFLA_NET_NS_FD, IFLA_EXT_MASK, IFLA_LINK_NETNSID = 26, 27, 28, 29, 37
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
IFLA_PROP_LIST, IFLA_ALT_IFNAME = 52, 53
INFO_KIND, INFO_DATA, INFO_SLAVE_KIND, INFO_SLAVE_DATA = 1, 2, 4, 5
BRPORT_MODE = 4
INET6_ADDR_GEN_MODE = 8
_BR_FORWARD_DELAY, _BR_STP_STATE = 1, 5
_VETH_INFO_PEER = 1
IFA_ADDRESS, IFA_LOCAL, _IFA_FLAGS, IFA_PROTO = 1, 2, 8, 11
_IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
RTAX_MTU, RTAX_ADVMSS = 2, 8
RTNH_F_ONLINK = 4
NDA_DST, NDA_LLADDR, NDA_PROTOCOL = 1, 2, 12
NUD_PERMANENT = 0x80
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_NOWHERE = 0, 253, 255
ROUTE_TYPES = {"unicast": 1, "local": 2, "blackhole": 6, "unreachable": 7, "prohibit": 8}

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_U32 = struct.Struct("=I")
_ADDR_GEN_EUI64, _ADDR_GEN_NONE = b"\0", b"\1"

# Without a number the kernel makes a queue for each processor, with its files in sysfs, and takes all but one away
# again (veth_init_queues in drivers/net/veth.c), for which it waits for RCU: two waits a pair.
_ONE_QUEUE = attr(_IFLA_NUM_TX_QUEUES, _U32.pack(1)) + attr(_IFLA_NUM_RX_QUEUES, _U32.pack(1))


def split(prefix: str) -> tuple[int, bytes, int]:
    """An address with prefix length as (family, packed address, length)."""
    address, _, length = prefix.partition("/")
    if ":" in address:
        return socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address), int(length or 128)
    return socket.AF_INET, socket.inet_aton(address), int(length or 32)


def _packed(address: str) -> bytes:
    return split(address)[1]


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _name(name: str) -> bytes:
    return attr(IFLA_IFNAME, name.encode() + b"\0")


def _ifinfo(flags: int = 0, change: int = 0, index: int = 0, family: int = 0) -> bytes:
    return _IFINFO.pack(family, 0, index, flags, change)


def _identity(link: Bridge | Veth | Tunnel) -> bytes:
    mac = attr(IFLA_ADDRESS, _mac(link.mac)) if link.mac else b""
    data = _name(link.name) + mac + attr(IFLA_MTU, _U32.pack(link.mtu))
    return data + attr(IFLA_GROUP, _U32.pack(link.group))


def add_bridge(bridge: Bridge, index: int = 0) -> Message:
    """Make a bridge, down, without spanning tree. Its MTU must be set afterwards; index 0 leaves it to the kernel.

    A bridge follows the smallest MTU of its ports until somebody sets its own to another value; so it is made
    with one that is not the wanted one (net/bridge/br_device.c, br_change_mtu).
    """
    # No forwarding delay: a port forwards at once, as docker0's and cni0's do.
    data = nested(INFO_DATA, attr(_BR_STP_STATE, _U32.pack(0)), attr(_BR_FORWARD_DELAY, _U32.pack(0)))
    info = nested(IFLA_LINKINFO, attr(INFO_KIND, b"bridge"), data)
    other = replace(bridge, mtu=bridge.mtu ^ 1)
    return RTM_NEWLINK, _CREATE | _EXCL, _ifinfo(index=index) + _identity(other) + info


def add_veth(near: Veth, far: Veth, far_netns: int, master: int, indexes: tuple[int, int] = (0, 0)) -> Message:
    """Make a pair, both ends down, the far end directly in the namespace of the file ``far_netns``.

    ``indexes`` are those of the near and the far end; 0 leaves it to the kernel.
    Both ends stay down: an end that is created up in the same message as its peer fails with ENOTCONN.
    """
    there = attr(_IFLA_NET_NS_FD, _U32.pack(far_netns))
    peer = nested(_VETH_INFO_PEER, _ifinfo(index=indexes[1]), _identity(far), _ONE_QUEUE, there)
    info = nested(IFLA_LINKINFO, attr(INFO_KIND, b"veth"), nested(INFO_DATA, peer))
    data = _ifinfo(index=indexes[0]) + _identity(near) + _ONE_QUEUE + info
    if master:
        data += attr(IFLA_MASTER, _U32.pack(master))
    return RTM_NEWLINK, _CREATE | _EXCL, data


def add_tunnel(tunnel: Tunnel, index: int = 0) -> Message:
    """Make a tunnel, down; ``podnet.kernel.tunnel`` knows the types. Index 0 leaves it to the kernel."""
    from podnet.kernel.tunnel import data_of

    info = nested(IFLA_LINKINFO, attr(INFO_KIND, tunnel.type.encode()), data_of(tunnel))
    return RTM_NEWLINK, _CREATE | _EXCL, _ifinfo(index=index) + _identity(tunnel) + info


def add_altname(name: str, altname: str) -> Message:
    """Give a link a further, longer name (up to 127 bytes)."""
    data = _ifinfo() + _name(name) + nested(IFLA_PROP_LIST, attr(IFLA_ALT_IFNAME, altname.encode() + b"\0"))
    return _RTM_NEWLINKPROP, _CREATE | _EXCL, data


def delete_altname(name: str, altname: str) -> Message:
    """Take a further name off a link."""
    data = _ifinfo() + _name(name) + nested(IFLA_PROP_LIST, attr(IFLA_ALT_IFNAME, altname.encode() + b"\0"))
    return _RTM_DELLINKPROP, 0, data


@lru_cache(maxsize=64)  # what is done inside a pod is mostly the same as in the one before
def set_link(
    name: str,
    *,
    up: bool | None = None,
    mac: str | None = None,
    mtu: int | None = None,
    group: int | None = None,
    master: int | None = None,
    hairpin: bool | None = None,
    addrgen: bool | None = None,
) -> Message:
    """Change what is given on an existing link. ``master`` 0 takes it out of its bridge."""
    data = _ifinfo(IFF_UP if up else 0, IFF_UP if up is not None else 0) + _name(name)
    if mac is not None:
        data += attr(IFLA_ADDRESS, _mac(mac))
    if mtu is not None:
        data += attr(IFLA_MTU, _U32.pack(mtu))
    if group is not None:
        data += attr(IFLA_GROUP, _U32.pack(group))
    if master is not None:
        data += attr(IFLA_MASTER, _U32.pack(master))
    if hairpin is not None:
        port = nested(INFO_SLAVE_DATA, attr(BRPORT_MODE, b"\1" if hairpin else b"\0"))
        data += nested(IFLA_LINKINFO, attr(INFO_SLAVE_KIND, b"bridge"), port)
    if addrgen is not None:
        mode = attr(INET6_ADDR_GEN_MODE, _ADDR_GEN_EUI64 if addrgen else _ADDR_GEN_NONE)
        data += nested(IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    return RTM_NEWLINK, 0, data


def delete_link(name: str) -> Message:
    """Delete a link, and its peer with it (16.7 ms for one veth: the kernel waits for RCU)."""
    return RTM_DELLINK, 0, _ifinfo() + _name(name)


def delete_group(group: int) -> Message:
    """Delete all links of a group in one go (0.35 ms a veth)."""
    return RTM_DELLINK, 0, _ifinfo() + attr(IFLA_GROUP, _U32.pack(group))


def _address(address: Address, index: int) -> bytes:
    family, packed, length = split(address.address)
    data = _IFADDR.pack(family, length, 0, 0, index) + attr(IFA_LOCAL, packed) + attr(IFA_ADDRESS, packed)
    if family == socket.AF_INET6:
        # podnet hands every address out once: waiting a second for duplicate detection would prove nothing.
        data += attr(_IFA_FLAGS, _U32.pack(_IFA_F_NODAD))
    return data


def add_address(address: Address, index: int) -> Message:
    """Put an address on the link with that index."""
    mark = attr(IFA_PROTO, bytes([address.protocol])) if address.protocol else b""
    return RTM_NEWADDR, _CREATE | _EXCL, _address(address, index) + mark


def delete_address(address: Address, index: int) -> Message:
    """Take an address off."""
    return RTM_DELADDR, 0, _address(address, index)


def usual_scope(family: int, *, kind: int, via: bool) -> int:
    """The scope of a route that is given none: how far its destination is."""
    return _SCOPE_LINK if family == socket.AF_INET and kind == ROUTE_TYPES["unicast"] and not via else _SCOPE_UNIVERSE


def _route(route: Route, index: int) -> bytes:
    family, packed, length = split(route.dst)
    scope = usual_scope(family, kind=ROUTE_TYPES[route.type], via=bool(route.via)) if route.scope < 0 else route.scope
    table = route.table if route.table < 256 else 0
    kind = ROUTE_TYPES[route.type]
    flags = RTNH_F_ONLINK if route.onlink else 0
    data = _RTMSG.pack(family, length, 0, 0, table, route.protocol, scope, kind, flags)
    data += attr(RTA_TABLE, _U32.pack(route.table))
    if length:
        data += attr(RTA_DST, packed)
    if index:
        data += attr(RTA_OIF, _U32.pack(index))
    if route.via:
        data += attr(RTA_GATEWAY, _packed(route.via))
    if route.src:
        data += attr(RTA_PREFSRC, _packed(route.src))
    if route.metric:
        data += attr(RTA_PRIORITY, _U32.pack(route.metric))
    metrics = [
        attr(key, _U32.pack(value)) for key, value in ((RTAX_MTU, route.mtu), (RTAX_ADVMSS, route.advmss)) if value
    ]
    if metrics:
        data += nested(RTA_METRICS, *metrics)
    return data


def add_route(route: Route, index: int, *, replace: bool) -> Message:
    """Make a route, or put it in the place of the one with the same prefix, metric and table."""
    return RTM_NEWROUTE, _CREATE | (_REPLACE if replace else _EXCL), _route(route, index)


def delete_route(route: Route, index: int) -> Message:
    """Delete exactly this route."""
    return RTM_DELROUTE, 0, _route(route, index)


@lru_cache(maxsize=64)
def add_neighbours(entries: tuple[tuple[str, str], ...], index: int) -> bytes:
    """Ready messages that write permanent neighbours, over whatever the kernel has learned for an address.

    The pods of a bridge share their entries and mostly their link's index, so most calls cost a look-up.
    """
    parts = []
    for address, mac in entries:
        data = _neighbour(address, index) + attr(NDA_LLADDR, _mac(mac)) + attr(NDA_PROTOCOL, bytes([PROTOCOL]))
        parts.append(ready(RTM_NEWNEIGH, _CREATE | _REPLACE, data))
    return b"".join(parts)


def delete_neighbours(entries: Iterable[tuple[str, str]], index: int) -> list[Message]:
    """Delete neighbours."""
    return [(RTM_DELNEIGH, 0, _neighbour(address, index)) for address, _ in entries]


def _neighbour(address: str, index: int) -> bytes:
    family, packed, _ = split(address)
    return _NDMSG.pack(family, index, NUD_PERMANENT, 0, 0) + attr(NDA_DST, packed)
