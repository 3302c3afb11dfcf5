"""The largest packet that passes between two ends without being cut, and who says so.

Echoes of chosen sizes with DF set (IPv6 never cuts on the way). A router that cannot pass one on sends an ICMP error
with the size that it can; where that does not come, packets vanish: a black hole. All pairs are asked at once, and
each at most as often as a binary search takes.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.kernel.netns import entered
from podnet.probe.addressing import primary
from podnet.probe.limits import allow_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.model.lab import Lab

__all__ = ["Largest", "largest"]

_LEAST = {4: 68, 6: 1280}
_HEADERS = {4: 28, 6: 48}
_IP_MTU_DISCOVER, _IP_RECVERR, _IPV6_MTU_DISCOVER, _IPV6_RECVERR, _PROBE = 10, 11, 23, 25, 3
_MSG_ERRQUEUE = 0x2000
_SILENCE, _TRIES = 0.1, 2
_ECHO = {4: (8, 0), 6: (128, 129)}
_TOO_BIG = {4: (3, 4), 6: (2, 0)}
_ORIGIN_LOCAL = 1


@dataclass(slots=True)
class Largest:
    """What came of one pair: the largest IP packet in bytes that passed, 0 where none did.

    ``limit`` is the address that said what is too big, ``local`` where that is the sender's own interface.
    ``black_hole`` is set where larger packets vanished without a word, although the sender's interface takes them.
    ``failure`` says why nothing could be asked.
    """

    source: str
    target: str
    version: int
    size: int = 0
    limit: str = ""
    local: bool = False
    black_hole: bool = False
    failure: str = ""


@dataclass(slots=True)
class _Search:
    """One pair's search between a size that passed and one that did not."""

    index: int
    sock: socket.socket
    low: int
    high: int  # the smallest size that is known not to pass
    asked: int = 0
    tries: int = 0
    silent: bool = False  # whether the last size vanished without a word


def largest(lab: Lab, pairs: Sequence[tuple[str, str, int]], *, silence: float = _SILENCE) -> list[Largest]:
    """The largest packet for each pair: sender, receiver, IP version. ``silence`` in seconds means lost.

    Raises ``KernelError`` where this process may not open raw sockets.
    """
    found = [Largest(*pair) for pair in pairs]
    with ExitStack() as stack, select.epoll() as poll:
        allow_files(len(pairs))
        searches: dict[int, _Search] = {}
        for index, one in enumerate(found):
            search = _begun(lab, one, index, stack)
            if search is not None:
                searches[search.sock.fileno()] = search
                poll.register(search.sock.fileno(), select.EPOLLIN)
        waiting = list(searches.values())
        while waiting:
            for search in waiting:
                _ask(search, found[search.index])
            _hear(poll, searches, found, waiting, silence)
            waiting = [search for search in waiting if not _done(search, found[search.index])]
    return found


def _begun(lab: Lab, one: Largest, index: int, stack: ExitStack) -> _Search | None:
    source, target = lab.target(one.source), lab.target(one.target)
    address = target and primary(lab, target, one.version)
    if source is None or target is None or address is None:
        one.failure = f"{one.target} has no IPv{one.version} address"
        return None
    family = socket.AF_INET if one.version == 4 else socket.AF_INET6
    protocol = socket.IPPROTO_ICMP if one.version == 4 else socket.IPPROTO_ICMPV6
    try:
        with entered(source.netns):
            sock = stack.enter_context(
                socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
            )
            # The kernel neither cuts, nor believes what it learned before about the way.
            if one.version == 4:
                sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE)
                sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE)
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            sock.connect((address, 0))
    except KernelError as error:
        one.failure = str(error)
        return None
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise KernelError(f"cannot send probes from {one.source}: this needs root", error.errno) from error
        one.failure = f"never left: {error.strerror}"
        return None
    most = max((interface.mtu for interface in source.interfaces), default=1500)
    # Loopback's MTU is 65,536, which no IP packet can have.
    most = 65535 if source.name == target.name else min(most, 65535)
    return _Search(index, sock, 0, most + 1, asked=_LEAST[one.version])


def _ask(search: _Search, one: Largest) -> None:
    """Send one echo of the size in question; what the sender's own interface refuses is known at once."""
    search.tries += 1
    payload = search.asked - _HEADERS[one.version]
    body = struct.pack("!HH", search.index & 0xFFFF, search.asked & 0xFFFF) + bytes(max(0, payload))
    kind = _ECHO[one.version][0]
    packet = struct.pack("!BBH", kind, 0, 0) + body
    if one.version == 4:
        total = sum(struct.unpack(f"!{(len(packet) + 1) // 2}H", packet + b"\0" * (len(packet) % 2)))
        packet = packet[:2] + struct.pack("!H", -total % 0xFFFF) + packet[4:]
    try:
        search.sock.send(packet)
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            _errors(search, one)
            if search.high > search.asked:
                search.high = search.asked
            one.local = True
        elif not one.failure and search.low == 0:
            one.failure = f"never left: {error.strerror}"


def _hear(
    poll: select.epoll, searches: dict[int, _Search], found: list[Largest], waiting: list[_Search], silence: float
) -> None:
    """Take answers until all have one, or nothing more comes."""
    open_ = {search.sock.fileno() for search in waiting if search.low < search.asked < search.high}
    until = time.monotonic() + silence
    while open_ and (left := until - time.monotonic()) > 0:
        for fd, event in poll.poll(left, 4096):
            search = searches[fd]
            one = found[search.index]
            if event & select.EPOLLERR:
                _errors(search, one)
            if event & select.EPOLLIN:
                _answers(search, one)
            if not search.low < search.asked < search.high:
                open_.discard(fd)
                until = time.monotonic() + silence


def _answers(search: _Search, one: Largest) -> None:
    while True:
        try:
            data = search.sock.recv(65536)
        except OSError:
            return
        if one.version == 4:
            data = data[(data[0] & 15) * 4 :]
        if len(data) >= 8 and data[0] == _ECHO[one.version][1]:
            index, size = struct.unpack_from("!HH", data, 4)
            if index == search.index & 0xFFFF and size <= search.asked:
                search.low = max(search.low, size)


def _errors(search: _Search, one: Largest) -> None:
    """The kernel's queue of errors: struct sock_extended_err, then the address of who sent it (ip(7))."""
    while True:
        try:
            _, ancillary, _, _ = search.sock.recvmsg(0, 512, _MSG_ERRQUEUE)
        except OSError:
            return
        for level, kind, data in ancillary:
            if (level, kind) not in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)):
                continue
            _, origin, type_, code, _, info, _ = struct.unpack_from("=IBBBBII", data)
            if origin == _ORIGIN_LOCAL:
                one.local = True
                if info and info < search.high:
                    search.high = max(search.low + 1, info + 1)
            elif (type_, code) == _TOO_BIG[one.version]:
                at = 16 + (4 if one.version == 4 else 8)
                family = socket.AF_INET if one.version == 4 else socket.AF_INET6
                one.limit = socket.inet_ntop(family, data[at : at + (4 if one.version == 4 else 16)])
                one.local = False
                if search.low < info < search.high:
                    search.high = info + 1


def _done(search: _Search, one: Largest) -> bool:
    """Judge the last echo, and choose the next size; whether there is none."""
    if search.low >= search.asked or search.high <= search.asked:
        search.tries = 0
    elif search.tries < _TRIES:
        return False
    else:
        # Silence twice: it does not pass, and nobody says so.
        search.high, search.tries, search.silent = search.asked, 0, True
        one.black_hole = search.low > 0
    one.size = search.low
    if search.low == 0 or search.low + 1 >= search.high:
        if search.low == 0 and not one.failure:
            one.failure = "not even the smallest packet comes back"
        one.black_hole = one.black_hole and not one.limit and not one.local
        return True
    # First the largest that may pass: mostly it does, or somebody says what would. Without a word, halves.
    search.asked = (search.low + search.high) // 2 if search.silent else search.high - 1
    search.silent = False
    return False
