"""Packets and streams between containers, sent and seen by plain sockets."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import closing

from podnet.kernel.netns import open_socket

_ETH_P_ALL, _PACKET_OUTGOING = 3, 4
_ETH_P_EXPERIMENT = 0x88B5  # IEEE 802 local experimental ethertype 1
_SOL_PACKET, _PACKET_AUXDATA, _VLAN_VALID = 263, 8, 0x10  # linux/if_packet.h
_PATIENCE = 30.0


def frame(source: str, target: str, payload: bytes) -> bytes:
    """An Ethernet frame of an experimental type."""
    macs = [bytes.fromhex(each.replace(":", "")) for each in (target, source)]
    return b"".join(macs) + struct.pack(">H", _ETH_P_EXPERIMENT) + payload.ljust(46, b"\0")


class Port:
    """A container's interface, for frames."""

    def __init__(self, netns: str, ifname: str = "eth0") -> None:
        self._socket = open_socket(netns, socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((ifname, _ETH_P_ALL))  # the kernel clears tags before it gives frames to one protocol
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._socket.settimeout(_PATIENCE)

    def __enter__(self) -> Port:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.send(data)

    def payloads_until(self, last: bytes) -> list[bytes]:
        """All payloads that arrive, to the last one that is waited for."""
        return [payload for payload, _ in self.tagged_until(last)]

    def tagged_until(self, last: bytes) -> list[tuple[bytes, int]]:
        """All payloads that arrive, with the VLAN of their tag (0: no tag), to the last one that is waited for."""
        found: list[tuple[bytes, int]] = []
        while not found or found[-1][0] != last:
            data, ancillary, _, place = self._socket.recvmsg(2048, 64)
            if place[2] == _PACKET_OUTGOING or data[12:14] != struct.pack(">H", _ETH_P_EXPERIMENT):
                continue
            tag = 0
            for _, kind, value in ancillary:
                status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", value[:20])
                tag = tci & 0xFFF if kind == _PACKET_AUXDATA and status & _VLAN_VALID else tag
            found.append((data[14:].rstrip(b"\0"), tag))
        return found


def rate(sender: str, receiver: str, address: str, size: int) -> float:
    """Bits per second of a TCP stream of ``size`` bytes, from the receiver's first to its last byte."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(open_socket(receiver, family, socket.SOCK_STREAM, 0)) as listener:
        listener.bind((address, 0))
        listener.listen(1)
        listener.settimeout(_PATIENCE)
        with closing(open_socket(sender, family, socket.SOCK_STREAM, 0)) as stream:
            stream.settimeout(_PATIENCE)
            thread = threading.Thread(target=_send, args=(stream, listener.getsockname()[:2], size))
            thread.start()
            try:
                return _received(listener, size)
            finally:
                thread.join()


def _send(stream: socket.socket, to: tuple[str, int], size: int) -> None:
    stream.connect(to)
    stream.sendall(bytes(size))
    stream.shutdown(socket.SHUT_WR)


def _received(listener: socket.socket, size: int) -> float:
    accepted, _ = listener.accept()
    with closing(accepted):
        accepted.settimeout(_PATIENCE)
        got, first = 0, 0.0
        while got < size:
            data = accepted.recv(1 << 16)
            assert data, f"the stream ended after {got} of {size} bytes"
            first = first or time.monotonic()
            got += len(data)
        return size * 8 / (time.monotonic() - first)
