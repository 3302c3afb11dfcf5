"""What arrives in one namespace: an AF_PACKET socket over all of its devices."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from podnet.probe import filter as packet_filter

if TYPE_CHECKING:
    from podnet.probe.stamp import Run

__all__ = ["Capture"]

_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 64  # the form with 64-bit seconds on every architecture (asm-generic/socket.h)
_SOL_PACKET, _PACKET_STATISTICS = 263, 6

# A small packet occupies less than 1 KiB of the buffer: room for 8,000 packets between two readings.
_BUFFER = 8 << 20


class Capture:
    """The run's packets that arrive in the namespace in which it is made, for one IP version.

    The socket takes one ethertype, not ETH_P_ALL. It then sees a packet where the IP layer does: once, after
    bridges and before netfilter's rules, and nothing that leaves; so what it reports has arrived, and
    half of the work is saved. It is never bound to a device: that costs an RCU wait each time.
    """

    def __init__(self, version: int, run: Run, own: frozenset[bytes]) -> None:
        self.version, self.own = version, own
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.htons(_ETHERTYPE[version])
        )
        packet_filter.attach(self._socket, packet_filter.program(version, run, own))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._lost = 0
        self.heard = False  # whether anything of the run was ever captured here

    def fileno(self) -> int:
        """For ``select`` and ``recvmmsg``."""
        return self._socket.fileno()

    def lost(self) -> int:
        """How many packets found the buffer full so far; a check that misses one has no verdict."""
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)  # reset by reading
        self._lost += struct.unpack("@II", statistics)[1]
        return self._lost

    def close(self) -> None:
        """Takes an RCU wait, about 10 ms."""
        self._socket.close()
