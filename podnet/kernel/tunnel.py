"""Tunnels as the kernel writes them: the options of each type, both ways, and vxlan's forwarding entries.

Imported only where there is a tunnel. Numbers from linux/if_link.h, if_tunnel.h, neighbour.h; wireguard, which has
a netlink family of its own, is ``podnet.kernel.wireguard``.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from podnet.kernel import rtnl
from podnet.kernel.netlink import attr, attrs, nested
from podnet.kernel.objects import ALTNAME, KernelObject, Peer, Tunnel

if TYPE_CHECKING:
    from podnet.kernel.dump import LinkRow
    from podnet.kernel.netlink import NetlinkSocket

__all__ = ["KINDS", "add_entry", "data_of", "delete_entry", "observe"]

KINDS = {"vxlan", "wireguard", "ipip"}

Message = tuple[int, int, bytes]

_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT, _VXLAN_LOCAL6 = 1, 4, 7, 15, 17
_IPTUN_LOCAL = 2
_NTF_SELF = 0x02
_NUD_NOARP = 0x40
_CREATE, _REPLACE = 0x400, 0x100
_NDMSG = struct.Struct("=BxxxiHBB")
_U32 = struct.Struct("=I")


def data_of(tunnel: Tunnel) -> bytes:
    """What a new tunnel is told beyond what every link is (IFLA_INFO_DATA)."""
    match tunnel.type:
        case "vxlan":
            local = tunnel.option("local")
            where = _VXLAN_LOCAL6 if ":" in local else _VXLAN_LOCAL
            # Every entry is written: nothing is learned from what comes in, and nothing is flooded.
            return nested(
                rtnl.INFO_DATA,
                attr(_VXLAN_ID, _U32.pack(int(tunnel.option("id")))),
                attr(where, rtnl.split(local)[1]),
                attr(_VXLAN_PORT, int(tunnel.option("port")).to_bytes(2, "big")),
                attr(_VXLAN_LEARNING, b"\0"),
            )
        case "ipip":
            # Without a remote end: it sends to the next hop of the route that a packet takes.
            return nested(rtnl.INFO_DATA, attr(_IPTUN_LOCAL, rtnl.split(tunnel.option("local"))[1]))
        case _:
            return b""


def _options(row: LinkRow) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for kind, begin, stop in attrs(row.data, 0, len(row.data)):
        value = row.data[begin:stop]
        match row.kind, kind:
            case "vxlan", number if number == _VXLAN_ID:
                found["id"] = str(_U32.unpack(value)[0])
            case "vxlan", number if number == _VXLAN_PORT:
                found["port"] = str(int.from_bytes(value, "big"))
            case ("vxlan", number) if number in {_VXLAN_LOCAL, _VXLAN_LOCAL6}:
                found["local"] = socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value)
            case "vxlan", number if number == _VXLAN_LEARNING and value[0]:
                found["learning"] = "on"
            case "ipip", number if number == _IPTUN_LOCAL:
                found["local"] = socket.inet_ntop(socket.AF_INET, value)
    return tuple(sorted(found.items()))


def observe(sock: NetlinkSocket, netns: str, rows: list[LinkRow]) -> list[KernelObject]:
    """The tunnels among a namespace's links, and the peers of those that are podnet's."""
    found: list[KernelObject] = []
    for row in rows:
        ours = row.altname.startswith(ALTNAME)
        options = _options(row)
        peers: list[Peer] = []
        if row.kind == "wireguard" and ours:
            from podnet.kernel import wireguard

            options, peers = wireguard.observe(netns, row.name)
        elif row.kind == "vxlan" and ours:
            peers = _entries(sock, netns, row)
        mac = row.mac if row.kind == "vxlan" else ""
        found.append(
            Tunnel(
                netns, row.name, row.kind, options, mac, row.mtu, row.up, row.addrgen, row.group, row.altname
            )
        )  # fmt: skip
        found += peers
    return found


def _entry(mac: str, endpoint: str, index: int) -> bytes:
    data = _NDMSG.pack(socket.AF_BRIDGE, index, rtnl.NUD_PERMANENT | _NUD_NOARP, _NTF_SELF, 0)
    lladdr = attr(rtnl.NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    return data + lladdr + attr(rtnl.NDA_DST, rtnl.split(endpoint)[1])


def add_entry(peer: Peer, index: int) -> Message:
    """Write where frames for a MAC are sent, over what is there for it."""
    return rtnl.RTM_NEWNEIGH, _CREATE | _REPLACE, _entry(peer.id, peer.endpoint, index)


def delete_entry(peer: Peer, index: int) -> Message:
    """Delete the entry for a MAC."""
    return rtnl.RTM_DELNEIGH, 0, _entry(peer.id, peer.endpoint, index)


def _entries(sock: NetlinkSocket, netns: str, row: LinkRow) -> list[Peer]:
    found = []
    for _, data, start, end in sock.dump(rtnl.RTM_GETNEIGH, _NDMSG.pack(socket.AF_BRIDGE, 0, 0, 0, 0)):
        _, index, state, _, _ = _NDMSG.unpack_from(data, start)
        if index != row.index or not state & rtnl.NUD_PERMANENT:
            continue
        mac = endpoint = ""
        for kind, begin, stop in attrs(data, start + 12, end):
            if kind == rtnl.NDA_LLADDR:
                mac = data[begin:stop].hex(":")
            elif kind == rtnl.NDA_DST:
                family = socket.AF_INET if stop - begin == 4 else socket.AF_INET6
                endpoint = socket.inet_ntop(family, data[begin:stop])
        if endpoint:
            found.append(Peer(netns, row.name, "vxlan", mac, endpoint))
    return found
