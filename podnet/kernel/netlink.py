"""Netlink sockets: messages out in batches, acknowledgements, errors with the kernel's own words, dumps.

Wire format: linux/netlink.h. Only what the hot path needs; pyroute2 does the rare rest.
"""

from __future__ import annotations

import _socket as socket  # the rest of socket takes 6 ms to import
import os
import struct
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.kernel.netns import entered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["NetlinkSocket", "RefusedError", "attr", "attrs", "nested", "ready"]

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
_NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE = 1, 2, 3
_NLM_F_CAPPED, _NLM_F_ACK_TLVS, _NLM_F_DUMP_INTR = 0x100, 0x200, 0x10
_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 10, 11, 12

# A send must fit the socket's send buffer (212,992 bytes by default) with the kernel's own overhead.
_SEND_BYTES = 64 * 1024
_RECEIVE_BYTES = 256 * 1024

_READY = 0xFFFFFFFF  # the sequence number of ready messages

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")


class RefusedError(KernelError):
    """The kernel refused one message of a batch; ``index`` says which, ``text`` is its extended ack."""

    def __init__(self, index: int, errno: int, text: str) -> None:
        self.index = index
        self.text = text
        super().__init__(f"{text or os.strerror(errno)} ({_symbol(errno)})", errno)


def _symbol(number: int) -> str:
    import errno

    return errno.errorcode.get(number, str(number))


def attr(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = len(value) + 4
    return _ATTR.pack(length, kind) + value + _PAD[length & 3]


def nested(kind: int, *values: bytes) -> bytes:
    """An attribute that holds attributes."""
    value = b"".join(values)
    return _ATTR.pack(len(value) + 4, kind | _NLA_F_NESTED) + value


def ready(kind: int, flags: int, payload: bytes) -> bytes:
    """A message with its header, to be sent many times; what is refused of it has no number of its own."""
    return _HEADER.pack(len(payload) + 16, kind, flags | NLM_F_REQUEST, _READY, 0) + payload


def attrs(data: bytes, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The attributes between two offsets, as (type, start of value, end of value)."""
    while offset + 4 <= end:
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & _NLA_TYPE_MASK, offset + 4, offset + length
        offset += (length + 3) & ~3


class NetlinkSocket:
    """A netlink socket in a namespace; it stays there, whatever namespace the thread is in later."""

    def __init__(self, netns: str, protocol: int = socket.NETLINK_ROUTE) -> None:
        with entered(netns):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        for option in (_NETLINK_EXT_ACK, _NETLINK_CAP_ACK, _NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def namespace(self) -> int:
        """The cookie of the socket's namespace, which no other of this boot ever has; 0 before Linux 5.14."""
        try:
            return int.from_bytes(self._socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        except OSError:
            return 0

    def execute(self, messages: Sequence[tuple[int, int, bytes]]) -> list[RefusedError]:
        """Send requests in as few sends as fit; return what was refused.

        A message is (type, flags, payload), or (0, 0, messages that are ``ready``); a refusal among the latter
        is told with the index of the first such message of its send.

        The kernel handles a send's messages one after the other before the send returns, and goes on after
        a refusal: only the last message of each send asks for an acknowledgement.
        """
        refused: list[RefusedError] = []
        start = 0
        while start < len(messages):
            size, end = 0, start
            while end < len(messages) and (size == 0 or size + len(messages[end][2]) + 16 <= _SEND_BYTES):
                size += len(messages[end][2]) + 16
                end += 1
            refused += self._send(messages, start, end)
            start = end
        return refused

    def _send(self, messages: Sequence[tuple[int, int, bytes]], start: int, end: int) -> list[RefusedError]:
        first = self._sequence + 1
        parts = []
        made_ready = -1
        for index in range(start, end):
            kind, flags, payload = messages[index]
            self._sequence += 1
            if kind:
                flags |= NLM_F_REQUEST | (NLM_F_ACK if index == end - 1 else 0)
                parts.append(_HEADER.pack(len(payload) + 16, kind, flags, self._sequence, 0))
            elif made_ready < 0:
                made_ready = index
            parts.append(payload)
        if not messages[end - 1][0]:
            parts.append(_HEADER.pack(16, _NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, self._sequence, 0))
        self._socket.send(b"".join(parts))
        refused = []
        last = self._sequence
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            for kind, flags, sequence, offset, limit in _messages(data):
                if kind != NLMSG_ERROR or not (first <= sequence <= last or sequence == _READY):
                    continue
                index = made_ready if sequence == _READY else start + sequence - first
                number = -int.from_bytes(data[offset : offset + 4], "little", signed=True)
                if number:
                    refused.append(RefusedError(index, number, _text(data, flags, offset, limit)))
                if sequence == last:
                    return refused

    def dump(self, kind: int, payload: bytes) -> Iterator[tuple[int, bytes, int, int]]:
        """Answers to a dump request as (type, data, start of payload, end of payload).

        Raises ``KernelError`` where the kernel refuses. A dump that changed while it was read is read again.
        """
        for _ in range(20):
            found, interrupted = self._dump(kind, payload)
            if not interrupted:
                return iter(found)
        msg = "the kernel's tables changed twenty times while they were read: something else changes them all the time"
        raise KernelError(msg, 4)

    def _dump(self, kind: int, payload: bytes) -> tuple[list[tuple[int, bytes, int, int]], bool]:
        self._sequence += 1
        request = _HEADER.pack(len(payload) + 16, kind, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, 0)
        self._socket.send(request + payload)
        found: list[tuple[int, bytes, int, int]] = []
        interrupted = False
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            for got, flags, sequence, offset, limit in _messages(data):
                if sequence != self._sequence:
                    continue
                interrupted |= bool(flags & _NLM_F_DUMP_INTR)
                if got in {NLMSG_DONE, NLMSG_ERROR}:
                    number = -int.from_bytes(data[offset : offset + 4], "little", signed=True)
                    if number > 0:
                        raise RefusedError(0, number, _text(data, flags, offset, limit))
                    return found, interrupted
                found.append((got, data, offset, limit))

    def get(self, kind: int, payload: bytes) -> tuple[bytes, int, int] | None:
        """The answer to one request as (data, start, end), ``None`` where the kernel says there is none."""
        self._sequence += 1
        self._socket.send(_HEADER.pack(len(payload) + 16, kind, NLM_F_REQUEST, self._sequence, 0) + payload)
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            for got, _, sequence, offset, limit in _messages(data):
                if sequence == self._sequence:
                    return None if got == NLMSG_ERROR else (data, offset, limit)

    def ask(self, kind: int, payload: bytes) -> tuple[int, tuple[bytes, int, int] | None]:
        """One request's errno (0: none) and its answer as (data, start, end): for what may well be refused."""
        self._sequence += 1
        self._socket.send(_HEADER.pack(len(payload) + 16, kind, NLM_F_REQUEST, self._sequence, 0) + payload)
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            for got, _, sequence, offset, limit in _messages(data):
                if sequence != self._sequence:
                    continue
                if got == NLMSG_ERROR:
                    return -int.from_bytes(data[offset : offset + 4], "little", signed=True), None
                return 0, (data, offset, limit)


def _messages(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """(type, flags, sequence, start of payload, end of payload) of each message in a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield kind, flags, sequence, offset + 16, offset + length
        offset += (length + 3) & ~3


def _text(data: bytes, flags: int, offset: int, limit: int) -> str:
    """The extended acknowledgement's message, which says more than the errno."""
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    start = offset + 20  # errno and the request's header
    if not flags & _NLM_F_CAPPED:
        start += int.from_bytes(data[offset + 4 : offset + 8], "little") - 16
    for kind, begin, end in attrs(data, (start + 3) & ~3, limit):
        if kind == _NLMSGERR_ATTR_MSG:
            return data[begin:end].rstrip(b"\0").decode(errors="replace")
    return ""
