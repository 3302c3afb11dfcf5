"""One namespace as a place to send from, to listen in and to watch: all sockets that a run has there."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from podnet.kernel.dump import senders
from podnet.kernel.netlink import NetlinkSocket
from podnet.kernel.netns import entered
from podnet.probe import filter as packet_filter
from podnet.probe import sctp
from podnet.probe.capture import Capture
from podnet.probe.sctp import Responder

if TYPE_CHECKING:
    from podnet.probe.stamp import Run

__all__ = ["Vantage", "undecided"]

_KIND = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_IPV6_HDRINCL = 36
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SIOCGIFFLAGS, _IFF_UP = 0x8913, 0x1
_IFA_F_TENTATIVE = 0x40
_BACKLOG = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_UNSPECIFIED = bytes(16)  # struct sockaddr of AF_UNSPEC


class Vantage:
    """The sockets of one run in one namespace, opened by ``with``; they outlive the entering of it.

    Raises ``KernelError`` where the namespace cannot be entered, ``OSError`` where a socket cannot be made.
    """

    def __init__(self, netns: str, versions: tuple[int, ...]) -> None:
        self.netns = netns
        self.captures: list[Capture] = []
        self.echoes: list[socket.socket] = []
        self.responders: list[Responder] = []
        self.raw: dict[int, socket.socket] = {}
        self._only: dict[int, str] = {}
        self._stack = ExitStack()
        self._listening: dict[tuple[str, str], int] = {}
        self._reserved: dict[tuple[str, str], int] = {}
        try:
            with entered(netns):
                for version in versions:
                    self.raw[version] = self._raw(version)
                self._look(versions)
        except BaseException:
            self._stack.close()
            raise

    def _raw(self, version: int) -> socket.socket:
        """Packets with their IP header; the namespace's kernel routes them. It never receives (raw(7))."""
        sock = self._socket(version, socket.SOCK_RAW, socket.IPPROTO_RAW)
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 4 << 20)
        # Without it the kernel says nothing of a packet that it dropped for want of a neighbour entry (ENOBUFS).
        level, option = (socket.IPPROTO_IP, _IP_RECVERR) if version == 4 else (socket.IPPROTO_IPV6, _IPV6_RECVERR)
        sock.setsockopt(level, option, 1)
        return sock

    def _socket(self, version: int, kind: int, protocol: int = 0) -> socket.socket:
        sock = socket.socket(_FAMILY[version], kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
        return self._stack.enter_context(sock)

    def _look(self, versions: tuple[int, ...]) -> None:
        """Remember the address of a namespace that has only one: its kernel has nothing to choose from."""
        asked = NetlinkSocket("")
        try:
            found = senders(asked)
        finally:
            asked.close()
        for version in versions:
            addresses = [(address, ready) for of, address, ready in found if of == version]
            if len(addresses) == 1 and addresses[0][1]:
                self._only[version] = addresses[0][0]

    def only(self, version: int) -> str | None:
        """The one address that this namespace can send from, if it is one."""
        return self._only.get(version)

    def sources(self, version: int, destinations: list[str], patience: float) -> dict[str, str | int]:
        """Per destination the address that this namespace's kernel chooses to send from, or its errno.

        It is asked as any program would: by connecting a UDP socket. Duplicate address detection leaves a new
        IPv6 address unusable for about a second, so for want of an address it is asked again for ``patience``
        seconds.
        """
        chosen: dict[str, str | int] = {}
        deadline = time.monotonic() + patience
        waiting = destinations
        with entered(self.netns), socket.socket(_FAMILY[version], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
            while True:
                for destination in waiting:
                    chosen[destination] = _chosen(asked, destination)
                waiting = [d for d in waiting if chosen[d] == errno.EADDRNOTAVAIL]
                if version == 4 or not waiting or time.monotonic() > deadline:
                    return chosen
                time.sleep(0.05)

    def reserve(self, protocol: str, version: int, address: str) -> int:
        """A port to send from: bound, so that nobody else gets it, and deaf.

        A closed UDP port would answer each reply with an ICMP error, and use up the kernel's allowance of them. A
        bound TCP port that doesn't listen answers a SYN-ACK with a reset, which ends the half-open connection.
        """
        key = (protocol, address)
        if protocol == "icmp":
            return 0
        if protocol == "sctp":
            if key not in self._reserved:
                # With a raw socket for it, a kernel without SCTP does not refuse the answers (protocol unreachable).
                sock = self.bound(socket.SOCK_RAW, version, address, socket.IPPROTO_SCTP)
                packet_filter.attach(sock, packet_filter.NOTHING)
                self._reserved[key] = sctp.PORT
            return sctp.PORT
        if key not in self._reserved:
            sock = self.bound(_KIND[protocol], version, address)
            if protocol == "udp":
                packet_filter.attach(sock, packet_filter.NOTHING)
            self._reserved[key] = sock.getsockname()[1]
        return self._reserved[key]

    def listen(self, protocol: str, version: int, address: str) -> int:
        """The port of a listener on one address, opened when it is first asked for."""
        key = (protocol, address)
        if key not in self._listening:
            sock = self.bound(_KIND[protocol], version, address)
            if protocol == "tcp":
                sock.listen(_BACKLOG)
            else:
                # All senders may ask before we read once; a small packet occupies 768 bytes.
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
                self.echoes.append(sock)
            self._listening[key] = sock.getsockname()[1]
        return self._listening[key]

    def respond(self, version: int, address: str, port: int, run: Run) -> None:
        """Answer the run's SCTP on one address and port."""
        if (f"sctp/{port}", address) not in self._listening:
            sock = self.bound(socket.SOCK_RAW, version, address, socket.IPPROTO_SCTP)
            self.responders.append(Responder(sock, version, port, run))
            self._listening[f"sctp/{port}", address] = port

    def bound(self, kind: int, version: int, address: str, protocol: int = 0, port: int = 0) -> socket.socket:
        """A socket on a free (or this) port of one address, never on all: the machine's own may be among them."""
        with entered(self.netns):
            sock = self._socket(version, kind, protocol)
            # An IPv6 address may still be tentative; it is bound all the same, and works a moment later.
            if version == 4:
                sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            sock.bind((address, port))
        return sock

    def watch(self, version: int, run: Run, own: frozenset[bytes]) -> Capture:
        """Capture what arrives here for these addresses."""
        with entered(self.netns):
            capture = Capture(version, run, own)
        self.captures.append(capture)
        return capture

    def loopback_up(self) -> bool:
        """Whether the namespace's loopback device is up."""
        with entered(self.netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
            request = struct.pack("16sH14x", b"lo", 0)  # struct ifreq
            flags: int = struct.unpack_from("=H", fcntl.ioctl(asked, _SIOCGIFFLAGS, request), 16)[0]
        return bool(flags & _IFF_UP)

    def suppressed(self) -> int | None:
        """How many ICMP errors this namespace's kernel has held back for its rate limits since it exists.

        ``None`` where the kernel does not count them (before Linux 6.3).
        """
        with entered(self.netns):
            v4 = Path("/proc/thread-self/net/snmp").read_text(encoding="ascii")
            v6 = Path("/proc/thread-self/net/snmp6")
            lines = v6.read_text(encoding="ascii").splitlines() if v6.exists() else []
        names, values = (line.split()[1:] for line in v4.splitlines() if line.startswith("Icmp:"))
        counts = {name: int(value) for name, value in zip(names, values, strict=True) if "RateLimit" in name}
        counts |= {line.split()[0]: int(line.split()[1]) for line in lines if "RateLimit" in line}
        return sum(counts.values()) if counts else None

    def close(self) -> None:
        """Close all sockets but the captures, which their user closes together."""
        self._stack.close()


def undecided(netns: str) -> bool:
    """Whether a namespace still has IPv6 addresses in duplicate detection, from which it asks no neighbour yet."""
    table = Path("/proc/thread-self/net/if_inet6")
    with entered(netns):
        lines = table.read_text(encoding="ascii").splitlines() if table.exists() else []
    return any(int(line.split()[4], 16) & _IFA_F_TENTATIVE for line in lines)


def _chosen(asked: socket.socket, destination: str) -> str | int:
    """The local address towards a destination. One socket is used again and again: a new one costs five times more."""
    try:
        asked.connect((destination, 9))
    except OSError as error:
        return error.errno or errno.EIO
    try:
        return str(asked.getsockname()[0])
    finally:
        # connect() to AF_UNSPEC forgets the address, which would otherwise be kept for the next destination.
        _libc.connect(asked.fileno(), _UNSPECIFIED, len(_UNSPECIFIED))
