"""What the two ends of a conversation say to each other. Pure: bytes in, bytes out."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from podnet.probe.stamp import REQUEST, SIZE, STAMP

if TYPE_CHECKING:
    from podnet.probe.stamp import Run

__all__ = ["Connect", "Dns", "Http", "Speech"]


class Speech:
    """A protocol; ``own`` tells whether podnet is at the other end, ``waits`` whether the sender hears an answer."""

    name = ""
    kind = socket.SOCK_STREAM
    waits = True

    def __init__(self, own: bool) -> None:
        self.own = own

    def request(self, stamp: bytes) -> bytes:
        """What the sender says."""
        raise NotImplementedError

    def stamped(self, heard: bytes, run: Run) -> int | None:
        """The check that a request is of, ``None`` where it is none of this run's."""
        raise NotImplementedError

    def answer(self, heard: bytes) -> bytes:
        """What the receiver says to a request; nothing where it only hears."""
        raise NotImplementedError

    def understood(self, heard: bytes) -> bool | None:
        """Whether this is an answer; ``None`` while more may come."""
        raise NotImplementedError


def _index(stamp: bytes, run: Run) -> int | None:
    if len(stamp) != SIZE:
        return None
    magic, number, _, _, index = STAMP.unpack(stamp)
    return int(index) if magic == REQUEST and number == run.number else None


class Connect(Speech):
    """A TCP connection: the handshake, and with podnet at the other end one segment of data."""

    name = "TCP"
    waits = False

    def request(self, stamp: bytes) -> bytes:
        return stamp if self.own else b""

    def stamped(self, heard: bytes, run: Run) -> int | None:
        return _index(heard[:SIZE], run)

    def answer(self, heard: bytes) -> bytes:
        return b""

    def understood(self, heard: bytes) -> bool | None:
        return True


class Http(Speech):
    """One GET by HTTP/1.1 (RFC 9112); any status is an answer."""

    name = "HTTP"

    def request(self, stamp: bytes) -> bytes:
        path = f"/{stamp.hex()}" if self.own else "/"
        return f"GET {path} HTTP/1.1\r\nHost: podnet\r\nUser-Agent: podnet\r\nConnection: close\r\n\r\n".encode()

    def stamped(self, heard: bytes, run: Run) -> int | None:
        words = heard.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or words[0] != b"GET":
            return None
        try:
            return _index(bytes.fromhex(words[1][1:].decode("ascii")), run)
        except ValueError:
            return None

    def answer(self, heard: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\npodnet\n"

    def understood(self, heard: bytes) -> bool | None:
        if len(heard) < 12:
            return None if b"HTTP/1."[: len(heard)] == heard[:7] else False
        return heard.startswith(b"HTTP/1.") and heard[9:12].isdigit()


class Dns(Speech):
    """One query for an A record over UDP (RFC 1035); any response to it is an answer, whatever its code."""

    name = "DNS"
    kind = socket.SOCK_DGRAM

    _HEADER = struct.Struct("!HHHHHH")
    _A_IN = struct.pack("!HH", 1, 1)

    def request(self, stamp: bytes) -> bytes:
        label = stamp.hex().encode() if self.own else b"kubernetes"
        name = b"".join(bytes([len(part)]) + part for part in (label, b"podnet", b"test")) + b"\0"
        return self._HEADER.pack(0x7064, 0x0100, 1, 0, 0, 0) + name + self._A_IN

    def stamped(self, heard: bytes, run: Run) -> int | None:
        label = heard[13 : 13 + 2 * SIZE]
        try:
            return _index(bytes.fromhex(label.decode("ascii")), run) if heard[12:13] == bytes([2 * SIZE]) else None
        except ValueError:
            return None

    def answer(self, heard: bytes) -> bytes:
        # The question again, and a record that points to it: 192.0.2.1 (RFC 5737), for no time.
        record = struct.pack("!HHHIH4s", 0xC00C, 1, 1, 0, 4, bytes([192, 0, 2, 1]))
        return heard[:2] + self._HEADER.pack(0, 0x8180, 1, 1, 0, 0)[2:] + heard[12:] + record

    def understood(self, heard: bytes) -> bool | None:
        return len(heard) >= 12 and heard[:2] == b"\x70\x64" and bool(heard[2] & 0x80)
