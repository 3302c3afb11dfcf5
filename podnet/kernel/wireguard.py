"""WireGuard devices and their peers over generic netlink (linux/wireguard.h, genetlink.h).

Private keys are read from files and handed to the kernel; no object, message or error ever holds one.
"""

from __future__ import annotations

import socket
import struct
import time
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.kernel import rtnl
from podnet.kernel.netlink import NetlinkSocket, attr, attrs, nested
from podnet.kernel.objects import Peer, Tunnel
from podnet.kernel.rtnl import split

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["apply", "key_file", "observe", "shake_hands"]

_NETLINK_GENERIC = 16
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2
_CMD_GET_DEVICE, _CMD_SET_DEVICE = 0, 1
_DEVICE_IFNAME, _DEVICE_PRIVATE_KEY, _DEVICE_PUBLIC_KEY, _DEVICE_PORT, _DEVICE_PEERS = 2, 3, 4, 6, 8
_PEER_PUBLIC_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE, _PEER_ALLOWED = 1, 3, 4, 5, 9
_REMOVE_ME, _REPLACE_ALLOWED, _UPDATE_ONLY = 1, 2, 4
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_MASK = 1, 2, 3

# Seconds. A peer shakes hands as soon as it gets a keepalive. Where that fails it tries again only five seconds later
# (REKEY_TIMEOUT), and it fails where both ends begin at once, each dropping what it began for what it is asked; or
# where a link has just come up, which loses packets until the kernel's link watcher has seen it, within a second. So
# one end begins, when both and all between them are there.
_KEEPALIVE = 25
_READY_WITHIN = 2.0
_IFLA_OPERSTATE, _OPERSTATES_READY = 16, {0, 6}  # unknown, up: linux/if.h

_GENL = struct.Struct("=BBH")
_U16, _U32 = struct.Struct("=H"), struct.Struct("=I")


def key_file(folder: str, public: str) -> str:
    """Where the private key that belongs to a public one (base64) is kept: base64 has slashes, so by its digits."""
    return f"{folder}/{b64decode(public).hex()}"


def _private(folder: str, public: str) -> bytes:
    path = key_file(folder, public)
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        msg = f"no private key for {public} in {folder or 'any folder'}: 'podnet rekey' makes new ones"
        raise KernelError(msg) from None


class _Family:
    """A generic netlink socket in a namespace, and the number that the kernel gave to "wireguard"."""

    def __init__(self, netns: str) -> None:
        self.socket = NetlinkSocket(netns, _NETLINK_GENERIC)
        request = _GENL.pack(_CTRL_CMD_GETFAMILY, 1, 0) + attr(_CTRL_ATTR_FAMILY_NAME, b"wireguard\0")
        answer = self.socket.get(_GENL_ID_CTRL, request)
        if answer is None:
            self.socket.close()
            msg = "the kernel has no netlink family wireguard (modprobe wireguard)"
            raise KernelError(msg)
        data, start, end = answer
        numbers = [data[a:b] for kind, a, b in attrs(data, start + 4, end) if kind == _CTRL_ATTR_FAMILY_ID]
        self.number = int(_U16.unpack(numbers[0])[0])

    def close(self) -> None:
        self.socket.close()


def apply(netns: str, changes: Sequence[tuple[str, Tunnel | Peer]], keys: str) -> list[tuple[int, KernelError]]:
    """Set devices (key and port) and add, set or delete peers, in one send; (index, error) of what was refused.

    ``changes`` are (verb, object); ``keys`` is the folder of the private keys.
    """
    family = _Family(netns)
    try:
        messages = [(family.number, 0, _GENL.pack(_CMD_SET_DEVICE, 1, 0) + _set(*each, keys)) for each in changes]
        return [(refused.index, refused) for refused in family.socket.execute(messages)]
    finally:
        family.close()


def shake_hands(peers: Sequence[Peer], keys: str) -> None:
    """Let new peers greet each other, one end of each pair, once the links of their namespaces carry packets."""
    devices = {(peer.netns, peer.dev) for peer in peers}
    own = {device: dict(observe(*device)[0]).get("public", "") for device in devices}
    new = {(own[peer.netns, peer.dev], peer.id) for peer in peers}
    deadline = time.monotonic() + _READY_WITHIN
    while not all(_ready(netns) for netns, _ in devices) and time.monotonic() < deadline:
        time.sleep(0.01)
    for netns, dev in sorted(devices):
        mine = own[netns, dev]
        changes: list[tuple[str, Tunnel | Peer]] = [
            ("greet", peer)
            for peer in peers
            if (peer.netns, peer.dev) == (netns, dev) and (mine < peer.id or (peer.id, mine) not in new)
        ]
        if changes:
            apply(netns, changes, keys)


def _ready(netns: str) -> bool:
    """Whether the veths of a namespace that are up and no ports are ready to send."""
    sock = NetlinkSocket(netns)
    try:
        for _, data, start, end in sock.dump(rtnl.RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)):
            values = {kind: (begin, stop) for kind, begin, stop in attrs(data, start + 16, end)}
            up = struct.unpack_from("=BxHiII", data, start)[3] & rtnl.IFF_UP
            veth = rtnl.IFLA_LINK in values and rtnl.IFLA_MASTER not in values
            if up and veth and data[values[_IFLA_OPERSTATE][0]] not in _OPERSTATES_READY:
                return False
        return True
    finally:
        sock.close()


def _set(verb: str, each: Tunnel | Peer, keys: str) -> bytes:
    if isinstance(each, Tunnel):
        private = attr(_DEVICE_PRIVATE_KEY, _private(keys, each.option("public")))
        return _name(each.name) + private + attr(_DEVICE_PORT, _U16.pack(int(each.option("port"))))
    peer = attr(_PEER_PUBLIC_KEY, b64decode(each.id))
    if verb == "greet":
        peer += attr(_PEER_FLAGS, _U32.pack(_UPDATE_ONLY)) + attr(_PEER_KEEPALIVE, _U16.pack(_KEEPALIVE))
    elif verb == "delete":
        peer += attr(_PEER_FLAGS, _U32.pack(_REMOVE_ME))
    else:
        allowed = [nested(0, *_network(prefix)) for prefix in each.allowed]
        peer += attr(_PEER_FLAGS, _U32.pack(_REPLACE_ALLOWED)) + attr(_PEER_ENDPOINT, _sockaddr(each.endpoint))
        peer += nested(_PEER_ALLOWED, *allowed)
    return _name(each.dev) + nested(_DEVICE_PEERS, nested(0, peer))


def _name(name: str) -> bytes:
    return attr(_DEVICE_IFNAME, name.encode() + b"\0")


def _network(prefix: str) -> tuple[bytes, bytes, bytes]:
    family, packed, length = split(prefix)
    return (
        attr(_ALLOWED_FAMILY, _U16.pack(family)),
        attr(_ALLOWED_ADDRESS, packed),
        attr(_ALLOWED_MASK, bytes([length])),
    )


def _sockaddr(endpoint: str) -> bytes:
    """``198.18.0.3:51820`` or ``[fd00::3]:51820`` as a sockaddr_in or sockaddr_in6."""
    address, _, port = endpoint.rpartition(":")
    family, packed, _ = split(address.strip("[]"))
    if family == socket.AF_INET:
        return struct.pack("=H", family) + struct.pack(">H", int(port)) + packed + bytes(8)
    return struct.pack("=H", family) + struct.pack(">HI", int(port), 0) + packed + bytes(4)


def observe(netns: str, dev: str) -> tuple[tuple[tuple[str, str], ...], list[Peer]]:
    """A device's options, as ``Tunnel`` has them, and its peers."""
    family = _Family(netns)
    options: dict[str, str] = {}
    found: dict[str, dict[str, list[str]]] = {}
    try:
        request = _GENL.pack(_CMD_GET_DEVICE, 1, 0) + _name(dev)
        # A long list of peers comes in several messages, and so may the networks of one peer.
        for _, data, start, end in family.socket.dump(family.number, request):
            for kind, begin, stop in attrs(data, start + 4, end):
                if kind == _DEVICE_PUBLIC_KEY:
                    options["public"] = b64encode(data[begin:stop]).decode()
                elif kind == _DEVICE_PORT:
                    options["port"] = str(_U16.unpack(data[begin:stop])[0])
                elif kind == _DEVICE_PEERS:
                    for _, first, last in attrs(data, begin, stop):
                        _peer(data, first, last, found)
    finally:
        family.close()
    peers = [
        Peer(netns, dev, "wireguard", public, "".join(each["endpoint"]), tuple(sorted(each["allowed"])))
        for public, each in found.items()
    ]
    return tuple(sorted(options.items())), peers


def _peer(data: bytes, first: int, last: int, found: dict[str, dict[str, list[str]]]) -> None:
    values = {kind: (begin, stop) for kind, begin, stop in attrs(data, first, last)}
    begin, stop = values[_PEER_PUBLIC_KEY]
    peer = found.setdefault(b64encode(data[begin:stop]).decode(), {"endpoint": [], "allowed": []})
    if _PEER_ENDPOINT in values:
        peer["endpoint"] = [_endpoint(data[slice(*values[_PEER_ENDPOINT])])]
    if _PEER_ALLOWED in values:
        for _, a, b in attrs(data, *values[_PEER_ALLOWED]):
            parts = {kind: data[c:d] for kind, c, d in attrs(data, a, b)}
            family = _U16.unpack(parts[_ALLOWED_FAMILY])[0]
            address = socket.inet_ntop(family, parts[_ALLOWED_ADDRESS])
            peer["allowed"].append(f"{address}/{parts[_ALLOWED_MASK][0]}")


def _endpoint(value: bytes) -> str:
    port = int.from_bytes(value[2:4], "big")
    if _U16.unpack(value[:2])[0] == socket.AF_INET:
        return f"{socket.inet_ntop(socket.AF_INET, value[4:8])}:{port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, value[8:24])}]:{port}"
