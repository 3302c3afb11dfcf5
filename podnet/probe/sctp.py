"""SCTP without the kernel's: the first step of an association (RFC 9260), asked and answered from raw sockets.

Many kernels have no SCTP, but filter and translate it. An INIT carries the mark of its check as its initiate tag, which
both answers, INIT ACK and ABORT, give back as their verification tag.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podnet.probe.stamp import Run

__all__ = ["ABORT", "HEADER", "INIT", "INIT_ACK", "PORT", "Responder", "crc32c", "init"]

PORT = 36412  # where podnet answers unless a port is asked for; S1AP's, which is SCTP
INIT, INIT_ACK, ABORT = 1, 2, 6
HEADER = struct.Struct("!HHI4sBBH")  # ports, verification tag, checksum; a chunk's type, flags, length
_INIT = struct.Struct("!IIHHI")  # initiate tag, window, outbound and inbound streams, first sequence number
_COOKIE = struct.pack("!HH4s", 7, 8, b"pdnt")
_WINDOW, _STREAMS = 65535, 1
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected (RFC 3309)


def _table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        rest = number
        for _ in range(8):
            rest = rest >> 1 ^ (_POLYNOMIAL if rest & 1 else 0)
        table.append(rest)
    return tuple(table)


_TABLE = _table()


def crc32c(data: bytes) -> bytes:
    """The checksum of SCTP, as it stands in the packet."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def init(ports: tuple[int, int], tag: int, number: int) -> bytes:
    """An INIT; ``number`` is its first sequence number."""
    return _checked(ports, 0, INIT, _INIT.pack(tag, _WINDOW, _STREAMS, _STREAMS, number))


def _checked(ports: tuple[int, int], tag: int, chunk: int, body: bytes) -> bytes:
    empty = HEADER.pack(*ports, tag, bytes(4), chunk, 0, 4 + len(body)) + body
    return empty[:8] + crc32c(empty) + empty[12:]


class Responder:
    """Answers the INITs of a run that come to one address, from a raw socket bound to it."""

    def __init__(self, sock: socket.socket, version: int, port: int, run: Run) -> None:
        self._sock, self._version, self._port, self._run = sock, version, port, run

    def fileno(self) -> int:
        """For ``select``."""
        return self._sock.fileno()

    def answer(self) -> dict[int, int]:
        """Answer what waits; the errno of each check whose answer the kernel refused."""
        refused: dict[int, int] = {}
        while True:
            try:
                packet, sender = self._sock.recvfrom(256)
            except BlockingIOError:
                return refused
            segment = packet[(packet[0] & 15) * 4 :] if self._version == 4 else packet
            if len(segment) < HEADER.size + _INIT.size:
                continue
            source, target, tag, _, chunk, _, _ = HEADER.unpack_from(segment)
            mark, _, _, _, number = _INIT.unpack_from(segment, HEADER.size)
            if target != self._port or tag or chunk != INIT or number != self._run.number:
                continue
            body = _INIT.pack(self._run.number, _WINDOW, _STREAMS, _STREAMS, number) + _COOKIE
            try:
                self._sock.sendto(_checked((target, source), mark, INIT_ACK, body), (sender[0], 0))
            except OSError as error:
                refused[mark & 0xFFFFFF] = error.errno or 5
