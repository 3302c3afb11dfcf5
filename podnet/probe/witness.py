"""Whole frames of one probe at every device of some namespaces, with all of their headers."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from podnet.errors import KernelError
from podnet.kernel.dump import links
from podnet.kernel.netlink import NetlinkSocket
from podnet.kernel.netns import entered
from podnet.probe.clock import await_stamps
from podnet.probe.decode import ICMP_ERROR, REQUEST_SEEN, decode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podnet.probe.stamp import Run

__all__ = ["Frame", "Witness", "peeled"]

_ETH_P_ALL = 3
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 64
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_OTHERHOST, _OUTGOING = 3, 4
_VXLAN_PORTS = (4789, 8472)


class Frame(NamedTuple):
    """One frame at one device; ``outer`` are the encapsulations around ``packet``, which begins with its IP header.

    ``number`` is the device's, ``cable`` that of the other end of a veth (0 for other devices).
    ``at`` is nanoseconds since the epoch, ``size`` bytes of the outermost IP packet. ``macs`` are source and
    destination, empty on devices without. ``error`` is (type, code) of an ICMP error about the probe. ``check`` is the
    number of the check in its run.
    """

    netns: str
    device: str
    number: int
    cable: int
    out: bool
    at: int
    macs: tuple[str, str]
    outer: tuple[str, ...]
    packet: bytes
    reply: bool
    error: tuple[int, int]
    size: int
    raw: bytes
    ethernet: bool
    check: int = 0


class _Anything(tuple[bytes, ...]):
    """Contains every address."""

    __slots__ = ()

    def __contains__(self, _: object) -> bool:
        return True


class _Ear(NamedTuple):
    netns: str
    sock: socket.socket
    names: dict[int, str]
    ports: frozenset[int]
    cables: dict[int, int]


class Witness:
    """Sockets that hear all; use it by ``with``. For a moment and a few packets: nothing is filtered in the kernel."""

    def __init__(self, namespaces: Iterable[str]) -> None:
        self._ears: list[_Ear] = []
        for netns in namespaces:
            try:
                self._ears.append(_ear(netns))
            except KernelError:
                continue  # gone: nothing passes there
        await_stamps()

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *_: object) -> None:
        from concurrent.futures import ThreadPoolExecutor

        if self._ears:
            with ThreadPoolExecutor(len(self._ears)) as pool:  # each waits for an RCU grace period
                list(pool.map(lambda ear: ear.sock.close(), self._ears))

    def frames(self, run: Run, checks: int = 1) -> list[Frame]:
        """What was seen of a run's first checks (behind them come its own controls), by time.

        What a bridge flooded to hosts that do not take it is left out.
        """
        found: list[Frame] = []
        for ear in self._ears:
            while True:
                try:
                    data, ancillary, _, address = ear.sock.recvmsg(2048, 64, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                frame = _frame(ear, data, ancillary, address, run, checks)
                if frame is not None:
                    found.append(frame)
        found.sort(key=lambda frame: frame.at)
        return found


def _ear(netns: str) -> _Ear:
    with entered(netns):
        asked = NetlinkSocket("")
        try:
            rows = links(asked)
        finally:
            asked.close()
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ALL))
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return _Ear(
        netns,
        sock,
        {index: row.name for index, row in rows.items()},
        frozenset(index for index, row in rows.items() if row.master),
        {index: row.peer_index for index, row in rows.items() if row.kind == "veth"},
    )


def _frame(
    ear: _Ear, data: bytes, ancillary: list[tuple[int, int, bytes]], address: tuple[object, ...], run: Run, checks: int
) -> Frame | None:
    name, protocol, kind, hatype = str(address[0]), address[1], address[2], address[3]
    device = next((i for i, n in ear.names.items() if n == name), 0)
    if kind == _OTHERHOST and device not in ear.ports:
        return None
    has_macs = hatype in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK)
    macs = (data[6:12].hex(":"), data[:6].hex(":")) if hatype == _ARPHRD_ETHER else ("", "")
    packet = data[14:] if has_macs else data
    if protocol not in (0x0800, 0x86DD) or not packet:
        return None
    outer, inner = peeled(packet)
    version = inner[0] >> 4 if inner else 0
    sighting = decode(version, run, _Anything(), inner) if version in (4, 6) else None
    if sighting is None or sighting.check >= checks:
        return None
    seconds, nanoseconds = struct.unpack("@qq", ancillary[0][2][:16])
    size = int.from_bytes(packet[2:4], "big") if packet[0] >> 4 == 4 else int.from_bytes(packet[4:6], "big") + 40
    return Frame(
        ear.netns,
        name,
        device,
        ear.cables.get(device, 0),
        kind == _OUTGOING,
        seconds * 1_000_000_000 + nanoseconds,
        macs,
        outer,
        inner,
        sighting.kind != REQUEST_SEEN,
        sighting.error if sighting.kind == ICMP_ERROR else (0, 0),
        size,
        data,
        has_macs,
        sighting.check,
    )


def peeled(packet: bytes) -> tuple[tuple[str, ...], bytes]:
    """The encapsulations of an IP packet in words, and the innermost IP packet: VXLAN, IP in IP, GRE's plain form."""
    outer: list[str] = []
    while len(packet) >= 40:
        four = packet[0] >> 4 == 4
        l4, protocol = ((packet[0] & 15) * 4, packet[9]) if four else (40, packet[6])
        ends = _ends(packet)
        if protocol == 17 and int.from_bytes(packet[l4 + 2 : l4 + 4], "big") in _VXLAN_PORTS:
            vni = int.from_bytes(packet[l4 + 12 : l4 + 15], "big")
            outer.append(f"VXLAN {vni} {ends}")
            packet = packet[l4 + 8 + 8 + 14 :]
        elif protocol in (4, 41):
            outer.append(f"IP in IP {ends}")
            packet = packet[l4:]
        elif protocol == 47 and packet[l4 : l4 + 2] == b"\0\0":
            outer.append(f"GRE {ends}")
            packet = packet[l4 + 4 :]
        else:
            break
    return tuple(outer), packet


def _ends(packet: bytes) -> str:
    if packet[0] >> 4 == 4:
        source, target, family = packet[12:16], packet[16:20], socket.AF_INET
    else:
        source, target, family = packet[8:24], packet[24:40], socket.AF_INET6
    return f"{socket.inet_ntop(family, source)} > {socket.inet_ntop(family, target)}"
