"""podnet's own ends of watched TCP and UDP flows: they answer every probe, and say when.

A kernel's TCP listener is not asked: a SYN of the same two ports with another sequence number is none to it while the
one before is half open, and one whose answer was lost stays so for a minute. What was measured would be that, not the
network. So SYNs are answered from a raw socket, and the listener that holds the port hears nothing.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

from podnet.probe import filter as packet_filter
from podnet.probe.stamp import ANSWER, REQUEST, SIZE, STAMP

if TYPE_CHECKING:
    from podnet.probe.stamp import Run
    from podnet.probe.vantage import Vantage

__all__ = ["Answerer", "TcpAnswerer", "UdpAnswerer", "syn_ack"]

_MOST = 256  # packets in one go: others wait for their turn
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_SEGMENT = struct.Struct("!HHIIHHHH")
_SYN_ACK, _WINDOW = 0x5012, 64240
_SO_RCVBUFFORCE = 33


class UdpAnswerer:
    """A UDP socket; ``port`` is its port, a free one where 0 is asked for. Raises ``OSError``."""

    def __init__(self, vantage: Vantage, version: int, address: str, port: int, run: Run) -> None:
        self._run = run
        self._socket = vantage.bound(socket.SOCK_DGRAM, version, address, port=port)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
        self.port: int = self._socket.getsockname()[1]

    def fileno(self) -> int:
        """For ``epoll``."""
        return self._socket.fileno()

    def answer(self) -> list[tuple[int, int]]:
        """Answer what waits: the marks, and when each was answered, in nanoseconds since the epoch."""
        told: list[tuple[int, int]] = []
        for _ in range(_MOST):
            try:
                data, sender = self._socket.recvfrom(SIZE + 1)
                if len(data) != SIZE or not data.startswith(REQUEST):
                    continue
                _, run, _, _, mark = STAMP.unpack(data)
                if run != self._run.number:
                    continue
                told.append((mark, time.time_ns()))
                self._socket.sendto(ANSWER + data[4:], sender)
            except BlockingIOError:
                break
            except OSError:
                continue  # no way back: the answer is lost, as it would be of any program
        return told


class TcpAnswerer:
    """A TCP port whose SYNs are answered from a raw socket. Raises ``OSError``."""

    def __init__(self, vantage: Vantage, version: int, address: str, port: int, run: Run) -> None:
        self._version, self._run = version, run
        self._own = socket.inet_pton(_FAMILY[version], address)
        deaf = vantage.bound(socket.SOCK_STREAM, version, address, port=port)
        packet_filter.attach(deaf, packet_filter.NOTHING)
        deaf.listen(1)
        self.port: int = deaf.getsockname()[1]
        self._socket = vantage.bound(socket.SOCK_RAW, version, address, socket.IPPROTO_TCP)
        packet_filter.attach(self._socket, packet_filter.syns(version, run, self.port))

    def fileno(self) -> int:
        """For ``epoll``."""
        return self._socket.fileno()

    def answer(self) -> list[tuple[int, int]]:
        """Answer what waits: the marks, and when each was answered, in nanoseconds since the epoch."""
        told: list[tuple[int, int]] = []
        for _ in range(_MOST):
            try:
                packet, sender = self._socket.recvfrom(256)
                segment = packet[(packet[0] & 15) * 4 :] if self._version == 4 else packet
                if len(segment) < _SEGMENT.size:
                    continue
                source, target, sequence, _, _, _, _, _ = _SEGMENT.unpack_from(segment)
                # What came before the filter was attached is not filtered.
                if target != self.port or segment[13] & 0x17 != 0x02 or sequence >> 24 != self._run.sequence_byte:
                    continue
                told.append((sequence & 0xFFFFFF, time.time_ns()))
                ends = (self._own, socket.inet_pton(_FAMILY[self._version], sender[0]))
                answer = syn_ack(ends, (self.port, source), self._run.number, sequence)
                self._socket.sendto(answer, (sender[0], 0))
            except BlockingIOError:
                break
            except OSError:
                continue
        return told


def syn_ack(ends: tuple[bytes, bytes], ports: tuple[int, int], number: int, asked: int) -> bytes:
    """The answer to a SYN of the sequence number ``asked``; ``ends`` are the packed addresses of its own two ends."""
    fields = (*ports, number, (asked + 1) & 0xFFFFFFFF, _SYN_ACK, _WINDOW)
    words = b"".join(ends) + struct.pack("!HH", 6, _SEGMENT.size) + _SEGMENT.pack(*fields, 0, 0)
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return _SEGMENT.pack(*fields, total ^ 0xFFFF, 0)


Answerer = UdpAnswerer | TcpAnswerer
