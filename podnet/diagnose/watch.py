"""Frames on all devices of many namespaces at once: one AF_PACKET socket each, not bound to any device."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from podnet.diagnose.packet import parsed
from podnet.diagnose.trail import IN, OUT, Sighting
from podnet.errors import KernelError
from podnet.kernel.netns import open_socket

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Watch"]

_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 64
_ANCILLARY = socket.CMSG_SPACE(16)
_WITHOUT_ETHERNET = {65534, 768, 769, 776, 778, 823}  # ARPHRD_NONE and the tunnels, linux/if_arp.h
_SNAP = 1024  # bytes: an ICMP error quotes up to 548
_BUFFER = 8 << 20
_CLOSERS = 32


class Watch:
    """The captures; ``read`` gives what waits in all of them. Namespaces that are gone are left out."""

    def __init__(self, namespaces: Iterable[str]) -> None:
        self._sockets: dict[str, socket.socket] = {}
        try:
            for netns in namespaces:
                try:
                    sock = open_socket(netns, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
                except KernelError:
                    continue
                self._sockets[netns] = sock
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
                sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        except BaseException:
            self.close()
            raise

    def read(self) -> list[Sighting]:
        """All that waits, in the order of time."""
        found = [sighting for netns, sock in self._sockets.items() for sighting in _read(netns, sock)]
        # A bridge hands a packet up with the time at which its port took it: within a namespace, the order of reading
        # tells, and sorting keeps it.
        return sorted(found, key=lambda sighting: sighting.at)

    def close(self) -> None:
        """Close all; each waits for RCU, so they wait together."""
        if self._sockets:
            with ThreadPoolExecutor(min(_CLOSERS, len(self._sockets))) as pool:
                list(pool.map(lambda sock: sock.close(), self._sockets.values()))
        self._sockets.clear()


def _read(netns: str, sock: socket.socket) -> list[Sighting]:
    found: list[Sighting] = []
    while True:
        try:
            data, ancillary, _, address = sock.recvmsg(_SNAP, _ANCILLARY, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return found
        dev, _, kind, hardware, _ = address
        frame = parsed(data, ethernet=hardware not in _WITHOUT_ETHERNET)
        if frame is not None:
            seconds, nanoseconds = struct.unpack("@qq", ancillary[0][2])
            at = seconds * 1_000_000_000 + nanoseconds
            found.append(Sighting(at, netns, dev, OUT if kind == _PACKET_OUTGOING else IN, kind, frame))
