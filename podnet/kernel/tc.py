"""Traffic control: token buckets, what leads a device's incoming packets through one, and both read back.

Numbers from linux/pkt_sched.h, pkt_cls.h, tc_act/tc_mirred.h, rtnetlink.h. Rates are bytes per second, sizes bytes;
a bucket's depth is written as time, in ticks of 64 ns (PSCHED_SHIFT, include/net/pkt_sched.h).
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from podnet.kernel.netlink import attr, attrs, nested
from podnet.kernel.rtnl import IFLA_IFNAME, IFLA_LINKINFO, IFLA_MTU, INFO_KIND, RTM_NEWLINK, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.kernel.netlink import NetlinkSocket

__all__ = [
    "SHAPED",
    "UNSHAPED",
    "Bucket",
    "Qdisc",
    "Redirect",
    "add_bucket",
    "add_classes",
    "add_ifb",
    "add_ingress",
    "add_match",
    "add_redirect",
    "classes",
    "delete_ingress",
    "delete_root",
    "qdiscs",
    "redirects",
    "set_alias",
]

Message = tuple[int, int, bytes]

_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_RTM_NEWTCLASS, _RTM_GETTCLASS = 40, 42
_RTM_NEWTFILTER, _RTM_GETTFILTER = 44, 46
_CREATE, _EXCL = 0x400, 0x200
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TC_H_ROOT, _TC_H_INGRESS, _INGRESS_HANDLE = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFF0000
_TCA_TBF_PARMS, _TCA_TBF_RATE64 = 1, 4
_TCA_HTB_PARMS, _TCA_HTB_INIT, _TCA_HTB_RATE64, _TCA_HTB_CEIL64 = 1, 2, 6, 7
_HTB_VERSION, _HTB_RATE_TO_QUANTUM = 3, 10  # TC_HTB_PROTOVER; the second is tc's default
_TCA_U32_CLASSID, _TCA_U32_SEL, _TCA_U32_ACT = 1, 5, 7
_TC_U32_TERMINAL = 1
_TCA_ACT_KIND, _TCA_ACT_OPTIONS, _TCA_MIRRED_PARMS = 1, 2, 2
_TC_ACT_STOLEN, _TCA_EGRESS_REDIR = 4, 1
_IFF_UP = 0x1
_IFLA_TXQLEN, _IFLA_IFALIAS, _ALIAS_BYTES = 13, 20, 255  # IFALIASZ without the final zero
_ETH_P_ALL, _ETH_P = 3, {4: 0x0800, 6: 0x86DD}

_TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_RATE = struct.Struct("=BBHhHI")  # tc_ratespec
_TBF = struct.Struct("=12s12sIII")  # tc_tbf_qopt: rate, peak rate, limit, buffer, mtu
_HTB = struct.Struct("=12s12sIIIII")  # tc_htb_opt: rate, ceil, buffer, cbuffer, quantum, level, prio
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")
_MAX32 = (1 << 32) - 1

_ROOT = 0x7064 << 16  # podnet's mark on its own disciplines: "pd", where others mostly write 1:
SHAPED, UNSHAPED = 0x30, 0x1  # the classes 7064:30 and 7064:1
_FREE_RATE = 100_000_000_000
_FREE_BUFFER = 15_625  # 1 ms
_FREE_QUANTUM = 200_000  # HTB warns where it would be more
_QUEUE = 1000  # packets that wait in a class; an ifb has 32 otherwise


class Bucket(NamedTuple):
    """A token bucket: ``rate`` in bytes per second, ``buffer`` in ticks, ``limit`` in bytes that may wait."""

    rate: int
    buffer: int
    limit: int = 0

    @property
    def burst(self) -> int:
        """The depth in bytes, as ``tc`` shows it."""
        return self.rate * self.buffer * 64 // 1_000_000_000

    @classmethod
    def of(cls, rate: int, burst: int, latency: int = 25_000) -> Bucket:
        """The bucket for a rate and a burst in bytes; a packet waits ``latency`` µs at most.

        The arithmetic is the reference bandwidth plugin's, down to the microsecond that it rounds to. Where a value
        does not fit 32 bits, that one lets the upper bits go, and a pod with a deep bucket gets a shallow one: here
        it is the largest value.
        """
        time = min(int(burst * 1_000_000 / rate), _MAX32)
        return cls(rate, min(int(time * 15.625), _MAX32), min(int(rate * latency / 1_000_000) + burst, _MAX32))


class Qdisc(NamedTuple):
    """A queueing discipline of a device; ``bucket`` where it is a token bucket; ``own`` where podnet has made it."""

    kind: str
    parent: int
    bucket: Bucket | None = None
    own: bool = False

    @property
    def root(self) -> bool:
        """Whether all that the device sends goes through it."""
        return self.parent == _TC_H_ROOT


class Redirect(NamedTuple):
    """A filter that leads all that comes in by one device out of another, by their indexes."""

    device: int
    target: int


def add_ifb(name: str, mtu: int) -> Message:
    """Make an intermediate functional block (drivers/net/ifb.c), up: what is led out of it goes on as it came."""
    data = struct.pack("=BxHiII", 0, 0, 0, _IFF_UP, _IFF_UP) + attr(IFLA_IFNAME, name.encode() + b"\0")
    data += attr(IFLA_MTU, _U32.pack(mtu)) + attr(_IFLA_TXQLEN, _U32.pack(_QUEUE))
    return RTM_NEWLINK, _CREATE | _EXCL, data + nested(IFLA_LINKINFO, attr(INFO_KIND, b"ifb"))


def set_alias(index: int, alias: str) -> Message:
    """Give a link a text for people to read: unlike an altname, it need not be the only one of its kind."""
    data = struct.pack("=BxHiII", 0, 0, index, 0, 0) + attr(_IFLA_IFALIAS, alias.encode()[:_ALIAS_BYTES])
    return RTM_NEWLINK, 0, data


def _message(index: int, handle: int, parent: int, kind: str, options: bytes = b"", info: int = 0) -> bytes:
    return _TCMSG.pack(0, index, handle, parent, info) + attr(_TCA_KIND, kind.encode() + b"\0") + options


def _rate(rate: int) -> bytes:
    return _RATE.pack(0, 0, 0, 0, 0, min(rate, _MAX32))


def add_bucket(index: int, bucket: Bucket, handle: int = _ROOT) -> Message:
    """Let all that a device sends go through a token bucket."""
    parms = _TBF.pack(_rate(bucket.rate), bytes(12), bucket.limit, bucket.buffer, 0)
    wide = attr(_TCA_TBF_RATE64, _U64.pack(bucket.rate)) if bucket.rate > _MAX32 else b""
    options = nested(_TCA_OPTIONS, attr(_TCA_TBF_PARMS, parms), wide)
    return _RTM_NEWQDISC, _CREATE | _EXCL, _message(index, handle, _TC_H_ROOT, "tbf", options)


def add_ingress(index: int) -> Message:
    """Give a device a place where filters see what comes in."""
    data = _message(index, _INGRESS_HANDLE, _TC_H_INGRESS, "ingress")
    return _RTM_NEWQDISC, _CREATE | _EXCL, data


def _selector(keys: Sequence[tuple[int, int, int]]) -> bytes:
    """tc_u32_sel with keys of (mask, value, offset); the first two go out in network order."""
    head = struct.pack("=BBBxHHhhI", _TC_U32_TERMINAL, 0, len(keys), 0, 0, 0, 0, 0)
    return head + b"".join(struct.pack(">II", mask, value) + struct.pack("=ii", at, 0) for mask, value, at in keys)


def add_redirect(redirect: Redirect) -> Message:
    """Lead all that comes in by a device, which has its place for filters, out of another one."""
    mirred = struct.pack("=IIiiiiI", 0, 0, _TC_ACT_STOLEN, 0, 0, _TCA_EGRESS_REDIR, redirect.target)
    action = nested(1, attr(_TCA_ACT_KIND, b"mirred\0"), nested(_TCA_ACT_OPTIONS, attr(_TCA_MIRRED_PARMS, mirred)))
    options = nested(
        _TCA_OPTIONS,
        attr(_TCA_U32_CLASSID, _U32.pack(_ROOT | 1)),
        attr(_TCA_U32_SEL, _selector([(0, 0, 0)])),
        nested(_TCA_U32_ACT, action),
    )
    info = 1 << 16 | socket.htons(_ETH_P_ALL)
    return _RTM_NEWTFILTER, _CREATE | _EXCL, _message(redirect.device, 0, _INGRESS_HANDLE, "u32", options, info)


def add_classes(index: int, bucket: Bucket, default: int) -> list[Message]:
    """Let some of what a device sends go through a token bucket: that in the class ``SHAPED``.

    ``default`` is the class of what no filter chooses. The other class sends as fast as the device can.
    """
    init = struct.pack("=IIIII", _HTB_VERSION, _HTB_RATE_TO_QUANTUM, default, 0, 0)
    options = nested(_TCA_OPTIONS, attr(_TCA_HTB_INIT, init))
    return [
        (_RTM_NEWQDISC, _CREATE | _EXCL, _message(index, _ROOT, _TC_H_ROOT, "htb", options)),
        _class(index, SHAPED, bucket),
        _class(index, UNSHAPED, Bucket(_FREE_RATE, _FREE_BUFFER)),
    ]


def _class(index: int, minor: int, bucket: Bucket) -> Message:
    rate, buffer = _rate(bucket.rate), bucket.buffer
    wide = b""
    if bucket.rate > _MAX32:
        wide = attr(_TCA_HTB_RATE64, _U64.pack(bucket.rate)) + attr(_TCA_HTB_CEIL64, _U64.pack(bucket.rate))
    quantum = min(max(bucket.rate // _HTB_RATE_TO_QUANTUM, 1000), _FREE_QUANTUM)
    parms = attr(_TCA_HTB_PARMS, _HTB.pack(rate, rate, buffer, buffer, quantum, 0, 0))
    data = _message(index, _ROOT | minor, _ROOT, "htb", nested(_TCA_OPTIONS, parms, wide))
    return _RTM_NEWTCLASS, _CREATE | _EXCL, data


def add_match(index: int, subnet: str, minor: int, *, source: bool) -> Message:
    """Put what goes to a subnet, or comes from it, into a class."""
    family, packed, length = split(subnet)
    version = 6 if family == socket.AF_INET6 else 4
    at = (8 if source else 24) if version == 6 else (12 if source else 16)  # where the address is in the header
    bits = len(packed) * 8
    mask = ((1 << length) - 1 << bits - length).to_bytes(len(packed), "big")
    words = [struct.unpack_from(">I", mask, i) + struct.unpack_from(">I", packed, i) for i in range(0, len(packed), 4)]
    keys = [(m, value & m, at + 4 * i) for i, (m, value) in enumerate(words) if m] or [(0, 0, 0)]
    options = nested(
        _TCA_OPTIONS, attr(_TCA_U32_CLASSID, _U32.pack(_ROOT | minor)), attr(_TCA_U32_SEL, _selector(keys))
    )
    # Filters of two protocols cannot share a priority.
    info = (15 if version == 6 else 16) << 16 | socket.htons(_ETH_P[version])
    return _RTM_NEWTFILTER, _CREATE | _EXCL, _message(index, 0, _ROOT, "u32", options, info)


def delete_root(index: int) -> Message:
    """Let a device send without its discipline, and what hangs below it."""
    return _RTM_DELQDISC, 0, _TCMSG.pack(0, index, 0, _TC_H_ROOT, 0)


def delete_ingress(index: int) -> Message:
    """Take away the place where filters see what comes in, and the filters."""
    return _RTM_DELQDISC, 0, _TCMSG.pack(0, index, 0, _TC_H_INGRESS, 0)


# --- read back --------------------------------------------------------------------------------------------------


def qdiscs(sock: NetlinkSocket) -> dict[int, list[Qdisc]]:
    """The disciplines of all devices of a namespace, by the devices' indexes."""
    found: dict[int, list[Qdisc]] = {}
    for kind, data, start, end in sock.dump(_RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0)):
        if kind == _RTM_NEWQDISC:
            _, index, handle, parent, _ = _TCMSG.unpack_from(data, start)
            name, options = _kind(data, start, end)
            bucket = None if name != "tbf" else _bucket(data, *options, _TBF, 24)
            found.setdefault(index, []).append(Qdisc(name, parent, bucket, handle == _ROOT))
    return found


def classes(sock: NetlinkSocket, index: int) -> dict[int, Bucket]:
    """The classes of a device as buckets, by their minor numbers."""
    found = {}
    for kind, data, start, end in sock.dump(_RTM_GETTCLASS, _TCMSG.pack(0, index, 0, 0, 0)):
        name, options = _kind(data, start, end)
        if kind == _RTM_NEWTCLASS and name == "htb":
            found[_TCMSG.unpack_from(data, start)[2] & 0xFFFF] = _bucket(data, *options, _HTB, 0)
    return found


def redirects(sock: NetlinkSocket, index: int) -> list[Redirect]:
    """Where what comes in by a device is led; nothing for filters that choose."""
    found = []
    for kind, data, start, end in sock.dump(_RTM_GETTFILTER, _TCMSG.pack(0, index, 0, _INGRESS_HANDLE, 0)):
        name, (first, last) = _kind(data, start, end)
        if kind != _RTM_NEWTFILTER or name != "u32":
            continue
        options = {key: (begin, stop) for key, begin, stop in attrs(data, first, last)}
        mask, nkeys = _U32.size * 4, 2
        begin, _ = options.get(_TCA_U32_SEL, (0, 0))
        if begin and data[begin + nkeys] == 1 and not any(data[begin + mask : begin + mask + 4]):
            found += [Redirect(index, to) for to in _targets(data, *options.get(_TCA_U32_ACT, (0, 0)))]
    return found


def _kind(data: bytes, start: int, end: int) -> tuple[str, tuple[int, int]]:
    name, options = "", (0, 0)
    for key, begin, stop in attrs(data, start + _TCMSG.size, end):
        if key == _TCA_KIND:
            name = data[begin : stop - 1].decode(errors="replace")
        elif key == _TCA_OPTIONS:
            options = (begin, stop)
    return name, options


def _bucket(data: bytes, first: int, last: int, layout: struct.Struct, limit_at: int) -> Bucket:
    values = {key: begin for key, begin, _ in attrs(data, first, last)}
    parms = values[_TCA_TBF_PARMS]  # TCA_HTB_PARMS has the same number
    rate = _RATE.unpack_from(data, parms)[5]
    # TCA_TBF_RATE64 and TCA_HTB_RATE64; there only where the other is too small.
    wide = values.get(_TCA_TBF_RATE64 if layout is _TBF else _TCA_HTB_RATE64)
    if wide is not None:
        rate = _U64.unpack_from(data, wide)[0]
    limit = _U32.unpack_from(data, parms + limit_at)[0] if limit_at else 0
    return Bucket(rate, _U32.unpack_from(data, parms + (28 if layout is _TBF else 24))[0], limit)


def _targets(data: bytes, first: int, last: int) -> list[int]:
    found = []
    for _, begin, stop in attrs(data, first, last):
        action = {key: (a, b) for key, a, b in attrs(data, begin, stop)}
        inner = {key: a for key, a, _ in attrs(data, *action.get(_TCA_ACT_OPTIONS, (0, 0)))}
        parms = inner.get(_TCA_MIRRED_PARMS)
        if parms is not None and struct.unpack_from("=i", data, parms + 20)[0] == _TCA_EGRESS_REDIR:
            found.append(_U32.unpack_from(data, parms + 24)[0])
    return found
