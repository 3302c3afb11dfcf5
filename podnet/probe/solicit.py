"""ARP and neighbour discovery as probes: who has this address, asked on the sender's own link (RFC 826, RFC 4861).

Neither has a mark that comes back. A request carries the stamp of its check where nobody looks, behind ARP's fields or
in the nonce of a solicitation (RFC 3971), so that its arrival is known; an answer is known by the addresses that it is
about and for. It is one also where the sender's kernel has asked the same meanwhile: told is who has the address.
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
import time
from collections import defaultdict
from contextlib import ExitStack
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from podnet.errors import KernelError
from podnet.kernel.netns import entered
from podnet.probe import filter as packet_filter
from podnet.probe.ledger import BY_LINK, REPLIED
from podnet.probe.onlink import LINK_PROTOCOLS, Question, question
from podnet.probe.stamp import REQUEST, SIZE, STAMP
from podnet.probe.vantage import undecided

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.probe.session import Session
    from podnet.probe.stamp import Run

__all__ = ["Solicitation", "advertised", "asked", "solicitation", "who_has"]

_ROUNDS = 3
_LEAST_QUIET = 0.1
_SECOND_ANSWER = 0.05  # seconds that another host with the same address is given
_MOST_DETECTION = 3.0  # RFC 4862
_BATCH = 32
_ETHERTYPE = {4: 0x0806, 6: 0x86DD}
_BROADCAST = b"\xff" * 6
_SIOCGIFHWADDR = 0x8927
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 64
_OTHERHOST, _OUTGOING = 3, 4

_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET, _IPV4 = 1, 0x0800
_ASKS, _ANSWERS = 1, 2
_IPV6 = struct.Struct("!IHBB16s16s")
_ICMPV6, _SOLICIT, _ADVERTISE = 58, 135, 136
_SOURCE_ADDRESS, _TARGET_ADDRESS, _NONCE = 1, 2, 14  # options


class Message(NamedTuple):
    """A request or an answer: who says it under which address, about or to which; ``stamp`` is a request's own."""

    answer: bool
    sender: bytes  # of an answer: the address that was asked for
    target: bytes  # of a request: the address that is asked for; of an answer: who is answered
    mac: bytes
    stamp: bytes = b""


def who_has(mac: bytes, own: bytes, address: bytes, stamp: bytes) -> bytes:
    """An ARP request behind its Ethernet header; addresses are packed."""
    return _ARP.pack(_ETHERNET, _IPV4, 6, 4, _ASKS, mac, own, bytes(6), address) + stamp


def solicitation(mac: bytes, own: bytes, address: bytes, stamp: bytes) -> bytes:
    """A neighbour solicitation from its IPv6 header on, to the solicited-node multicast address."""
    # A nonce has 6 bytes and a multiple of 8.
    body = struct.pack("!I16sBB6sBB22s", 0, address, _SOURCE_ADDRESS, 1, mac, _NONCE, 3, stamp)
    group = _group(address)
    pseudo = own + group + struct.pack("!II", len(body) + 4, _ICMPV6) + struct.pack("!BBH", _SOLICIT, 0, 0) + body
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    total = (total & 0xFFFF) + (total >> 16)
    total = ((total & 0xFFFF) + (total >> 16)) ^ 0xFFFF
    head = _IPV6.pack(6 << 28, len(body) + 4, _ICMPV6, 255, own, group)
    return head + struct.pack("!BBH", _SOLICIT, 0, total) + body


def _group(address: bytes) -> bytes:
    return bytes.fromhex("ff0200000000000000000001ff") + address[13:]


def asked(packet: bytes) -> Message | None:
    """What an ARP packet says; ``None`` for what is none of Ethernet and IPv4."""
    if len(packet) < _ARP.size:
        return None
    hardware, protocol, _, _, operation, sha, spa, _, tpa = _ARP.unpack_from(packet)
    if (hardware, protocol) != (_ETHERNET, _IPV4) or operation not in (_ASKS, _ANSWERS):
        return None
    return Message(operation == _ANSWERS, spa, tpa, sha, packet[_ARP.size : _ARP.size + SIZE])


def advertised(packet: bytes) -> Message | None:
    """What an ICMPv6 packet says about neighbours; ``None`` for any other."""
    if len(packet) < 64 or packet[6] != _ICMPV6 or packet[40] not in (_SOLICIT, _ADVERTISE) or packet[7] != 255:
        return None
    _, _, _, _, source, destination = _IPV6.unpack_from(packet)
    options, about = _options(packet[64:]), packet[48:64]
    if packet[40] == _SOLICIT:
        return Message(False, source, about, options.get(_SOURCE_ADDRESS, b"")[:6], options.get(_NONCE, b"")[:SIZE])
    return Message(True, about, destination, options.get(_TARGET_ADDRESS, b"")[:6])


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= 8 and data[1]:
        found.setdefault(data[0], data[2 : 8 * data[1]])
        data = data[8 * data[1] :]
    return found


class _Ear:
    """The socket of one namespace and IP version, to ask and to hear with."""

    def __init__(self, netns: str, here: int, version: int, own: frozenset[bytes]) -> None:
        self.here, self.version, self._macs = here, version, dict[str, bytes]()
        with entered(netns):
            self.sock = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                socket.htons(_ETHERTYPE[version]),
            )  # fmt: skip
        packet_filter.attach(self.sock, packet_filter.neighbours(version, own))
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def mac(self, device: str) -> bytes:
        """The link-layer address of a device of the socket's namespace. Raises ``OSError`` where there is none."""
        if device not in self._macs:
            request = struct.pack("16s24x", device.encode())  # struct ifreq
            self._macs[device] = fcntl.ioctl(self.sock, _SIOCGIFHWADDR, request)[18:24]
        return self._macs[device]


class Solicitation:
    """All ARP and ND checks of a session; use it by ``with``."""

    def __init__(self, session: Session, run: Run, timeout: float) -> None:
        self._session, self._run, self._timeout = session, run, timeout
        self._ledger = session.ledger
        self._stack = ExitStack()
        self._poll = self._stack.enter_context(select.epoll())
        self._ears: dict[tuple[int, int], _Ear] = {}
        self._by_number: dict[int, _Ear] = {}
        self._questions: dict[int, Question] = {}
        self._about: dict[tuple[int, bytes, bytes], list[int]] = defaultdict(list)  # by who asks, and for what

    def __enter__(self) -> Solicitation:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self) -> None:
        """Ask for every address, up to three times each, and note all who answer."""
        indexes = self._prepare()
        for number in range(_ROUNDS):
            silent = [index for index in indexes if not self._ledger.state[index]]
            if not silent:
                break
            last = number == _ROUNDS - 1
            if last:
                self._await_addresses(silent)
            for at in range(0, len(silent), _BATCH):
                for index in silent[at : at + _BATCH]:
                    self._ask(index)
                self._hear(0)
            surprising = any(self._kind(index) != "drop" for index in silent)
            self._settle(silent, self._timeout if last and surprising else min(self._timeout, _LEAST_QUIET))
        until = time.monotonic() + _SECOND_ANSWER
        while (left := until - time.monotonic()) > 0:
            self._hear(left)

    def _kind(self, index: int) -> str:
        checks = self._session.checks
        return checks.kinds[checks.kind[index]].verdict

    def _prepare(self) -> list[int]:
        """Sockets for both ends of every check, and the question of each."""
        session, ledger, able = self._session, self._ledger, list[int]()
        ends: dict[tuple[int, int], set[bytes]] = defaultdict(set)
        for (kind, source), indexes in session.asked.items():
            protocol, version = session.checks.kinds[kind][:2]
            for index in indexes:
                target = session.lab.targets[session.target[index]]
                if LINK_PROTOCOLS[protocol] != version:
                    ledger.fail(index, f"{protocol} is of IPv{LINK_PROTOCOLS[protocol]}")
                    continue
                found = question(session.lab, session.lab.targets[source], target, version)
                if found is None:
                    ledger.fail(index, f"an end has no IPv{version} address")
                    continue
                able.append(index)
                self._questions[index] = found
                own, address = (ip_address(text).packed for text in (found.own, found.address))
                self._about[session.homes[source], own, address].append(index)
                ends[session.homes[source], version].add(own)
                ends[session.homes[session.target[index]], version].add(address)
        for (here, version), heard in ends.items():
            ear = _Ear(session.vantages[here].netns, here, version, frozenset(heard))
            self._stack.callback(ear.sock.close)
            self._ears[here, version] = self._by_number[ear.sock.fileno()] = ear
            self._poll.register(ear.sock.fileno(), select.EPOLLIN)
        return able

    def _ask(self, index: int) -> None:
        ledger, session, asks = self._ledger, self._session, self._questions[index]
        version = session.checks.kinds[session.checks.kind[index]].version
        ear = self._ears[session.homes[session.source[index]], version]
        own, address = (ip_address(text).packed for text in (asks.own, asks.address))
        stamp = self._run.payload(session.source[index], session.target[index], index)
        try:
            mac = ear.mac(asks.device)
            packet = (who_has if version == 4 else solicitation)(mac, own, address, stamp)
            to = _BROADCAST if version == 4 else b"\x33\x33" + _group(address)[12:]
            now = time.time_ns()
            ear.sock.sendto(packet, (asks.device, _ETHERTYPE[version], 0, 0, to))
        except OSError as error:
            if not ledger.attempts[index]:
                ledger.send_errno[index] = error.errno or errno.EIO
            return
        ledger.send_errno[index] = 0
        ledger.sent[index] = now
        ledger.attempts[index] += 1

    def _await_addresses(self, silent: Sequence[int]) -> None:
        """IPv6 hosts do not answer for an address before they have looked for its duplicates."""
        ends = {self._session.homes[end[index]] for index in silent for end in self._session.ends}
        waiting = {here for here, version in self._ears if version == 6 and here in ends}
        until = time.monotonic() + _MOST_DETECTION
        while waiting and time.monotonic() < until:
            try:
                waiting = {here for here in waiting if undecided(self._session.vantages[here].netns)}
            except KernelError:
                return  # gone meanwhile
            self._hear(0.05)

    def _settle(self, silent: Sequence[int], quiet: float) -> None:
        until = time.monotonic() + quiet
        while (left := until - time.monotonic()) > 0:
            if all(self._ledger.state[index] for index in silent):
                return
            if self._hear(left):
                until = time.monotonic() + quiet

    def _hear(self, wait: float) -> bool:
        """Read all that waits, at most so many seconds from now; whether there was anything."""
        ready = self._poll.poll(wait)
        for number, _ in ready:
            ear = self._by_number[number]
            while True:
                try:
                    packet, ancillary, _, address = ear.sock.recvmsg(256, 64)
                except BlockingIOError:
                    break
                if address[2] not in (_OTHERHOST, _OUTGOING):
                    seconds, nanoseconds = struct.unpack("@qq", ancillary[0][2][:16])
                    self._take(ear, packet, address[4], seconds * 1_000_000_000 + nanoseconds)
        return bool(ready)

    def _take(self, ear: _Ear, packet: bytes, link_address: bytes, at: int) -> None:
        message = (asked if ear.version == 4 else advertised)(packet)
        if message is None:
            return
        if message.answer:
            self._answered(ear, message, message.mac or link_address, at)
        elif len(message.stamp) == SIZE:
            magic, number, _, _, index = STAMP.unpack(message.stamp)
            if magic == REQUEST and number == self._run.number:
                self._arrived(ear, message, index, at)

    def _arrived(self, ear: _Ear, message: Message, index: int, at: int) -> None:
        ledger, homes = self._ledger, self._session.homes
        if index not in self._questions or homes[self._session.target[index]] != ear.here or ledger.arrived[index]:
            return
        ledger.arrived[index] = at
        ledger.seen[index] = ledger.number(message.sender)

    def _answered(self, ear: _Ear, message: Message, mac: bytes, at: int) -> None:
        ledger = self._ledger
        for index in self._about.get((ear.here, message.target, message.sender), ()):
            macs = ledger.macs.setdefault(index, [])
            text = mac[:6].hex(":")
            if text not in macs:
                macs.append(text)
            if not ledger.state[index]:
                ledger.answered[index] = at
                ledger.state[index] |= REPLIED | BY_LINK
