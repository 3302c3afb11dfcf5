"""UDP flows that the kernel tracks: listed by destination port, and deleted (ctnetlink).

A flow that has begun keeps its translation for as long as packets come; a change of rules does not reach it. Wire
format: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import _socket as socket  # the rest of socket takes 6 ms to import
import struct
from typing import TYPE_CHECKING, NamedTuple

from podnet.errors import KernelError
from podnet.kernel.netlink import NetlinkSocket, RefusedError, attr, attrs, nested

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Flow", "delete", "udp_flows"]

_GENMSG = struct.Struct(">BBH")  # struct nfgenmsg: family, version, resource
_NFNL_SUBSYS_CTNETLINK = 1
_GET, _DELETE = _NFNL_SUBSYS_CTNETLINK << 8 | 1, _NFNL_SUBSYS_CTNETLINK << 8 | 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_ID, _CTA_FILTER = 1, 2, 12, 25
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO, _CTA_TUPLE_ZONE = 1, 2, 3
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3
_CTA_IP = {socket.AF_INET: (1, 2), socket.AF_INET6: (3, 4)}  # source, destination
_CTA_FILTER_ORIG_FLAGS, _CTA_FILTER_REPLY_FLAGS = 1, 2
_PROTO_NUM_AND_DST_PORT = 1 << 3 | 1 << 5  # CTA_FILTER_F_CTA_PROTO_NUM, ..._DST_PORT
_NETLINK_NETFILTER = 12
_ENOENT = 2


class Flow(NamedTuple):
    """A flow: where its first packet was sent, who answers, and how the kernel names it."""

    family: int
    destination: str
    port: int
    replier: str
    name: bytes


def udp_flows(netns: str, family: int, port: int) -> list[Flow]:
    """The UDP flows of a family (4 or 6) to a port, whatever became of the port on the way. Raises ``KernelError``."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    proto = nested(
        _CTA_TUPLE_PROTO,
        attr(_CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP])),
        attr(_CTA_PROTO_DST_PORT, port.to_bytes(2, "big")),
    )
    # The kernel looks through its table itself (since 5.8; an older one gives all, which are looked through here).
    wanted = attr(_CTA_FILTER_ORIG_FLAGS, _PROTO_NUM_AND_DST_PORT.to_bytes(4, "little"))
    wanted += attr(_CTA_FILTER_REPLY_FLAGS, bytes(4))
    request = _GENMSG.pack(kind, 0, 0) + nested(_CTA_TUPLE_ORIG, proto) + nested(_CTA_FILTER, wanted)
    sock = NetlinkSocket(netns, _NETLINK_NETFILTER)
    try:
        dumped = sock.dump(_GET, request)
    except KernelError as error:
        msg = f"cannot list the tracked flows (does the kernel have CONFIG_NF_CT_NETLINK?): {error}"
        raise KernelError(msg, error.errno) from error
    finally:
        sock.close()
    found = [_flow(family, data[start + 4 : end]) for _, data, start, end in dumped]
    return [each for each in found if each is not None and each.port == port]


def delete(netns: str, flows: Iterable[Flow]) -> None:
    """Forget flows; no error if they have ended. Raises ``KernelError``."""
    messages = [
        (_DELETE, 0, _GENMSG.pack(socket.AF_INET6 if each.family == 6 else socket.AF_INET, 0, 0) + each.name)
        for each in flows
    ]
    if not messages:
        return
    sock = NetlinkSocket(netns, _NETLINK_NETFILTER)
    try:
        refused: list[RefusedError] = [each for each in sock.execute(messages) if each.errno != _ENOENT]
    finally:
        sock.close()
    if refused:
        msg = f"cannot delete a tracked flow: {refused[0]}"
        raise KernelError(msg, refused[0].errno)


def _flow(family: int, data: bytes) -> Flow | None:
    values = {kind: data[begin:end] for kind, begin, end in attrs(data, 0, len(data))}
    original, reply = values.get(_CTA_TUPLE_ORIG, b""), values.get(_CTA_TUPLE_REPLY, b"")
    protocol, destination, port = _tuple(family, original, 1)
    _, replier, _ = _tuple(family, reply, 0)
    if protocol != socket.IPPROTO_UDP or not destination or not replier:
        return None
    name = nested(_CTA_TUPLE_ORIG, original) + (attr(_CTA_ID, values[_CTA_ID]) if _CTA_ID in values else b"")
    return Flow(family, destination, port, replier, name)


def _tuple(family: int, data: bytes, end: int) -> tuple[int, str, int]:
    """Protocol, address of one end (0 the source, 1 the destination) and destination port of a tuple."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    address, protocol, port = "", 0, 0
    for key, begin, stop in attrs(data, 0, len(data)):
        inner = {k: data[a:b] for k, a, b in attrs(data, begin, stop)}
        if key == _CTA_TUPLE_IP and _CTA_IP[kind][end] in inner:
            address = socket.inet_ntop(kind, inner[_CTA_IP[kind][end]])
        elif key == _CTA_TUPLE_PROTO:
            protocol = int.from_bytes(inner.get(_CTA_PROTO_NUM, b""), "big")
            port = int.from_bytes(inner.get(_CTA_PROTO_DST_PORT, b""), "big")
    return protocol, address, port
