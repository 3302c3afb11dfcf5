"""Every passing of a run's packets through any device of a namespace, in and out."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from podnet.kernel.dump import links
from podnet.kernel.netlink import NetlinkSocket
from podnet.kernel.netns import entered
from podnet.probe import filter as packet_filter
from podnet.probe.decode import REQUEST_SEEN, decode
from podnet.probe.mmsg import Inbox

if TYPE_CHECKING:
    from podnet.probe.ledger import Ledger
    from podnet.probe.stamp import Run

__all__ = ["RECORD", "Tap", "TapReader"]

_ETH_P_ALL = 3
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 64
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_BUFFER = 32 << 20
_PACKET_OTHERHOST, _PACKET_OUTGOING = 3, 4
_SLOT, _COUNT = 128, 512
_PLAIN = {4: (0x45, 1, 8, 0), 6: (0x60, 58, 128, 129)}

_NAME = struct.Struct("=HHiHBB8s")  # struct sockaddr_ll
_TIME = struct.Struct("=16xqq")
# As for arrivals (intake.py): first byte, TTL and protocol, addresses; of the next header the words at 0 and 4, and
# the stamp.
_PACKET = {
    4: struct.Struct(f"!B7xBB2x4s4sI4sIIHHI{_SLOT - 44}x"),
    6: struct.Struct(f"!B5xBB16s16sI4sIIHHI{_SLOT - 64}x"),
}
# check, namespace, reply and out (bits 0 and 1), TTL, device, time, source, destination, ports, protocol
RECORD = struct.Struct("=IHBBIqIIII")


class TapReader:
    """One thread's room for what it reads from taps."""

    def __init__(self) -> None:
        self.inbox = Inbox(_COUNT, _SLOT, _NAME.size)


class Tap:
    """All passings in one namespace, for one IP version; unbound, as binding to devices costs an RCU wait each."""

    def __init__(self, netns: str, number: int, version: int, run: Run) -> None:
        self.number, self.version, self._run = number, version, run
        with entered(netns):
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ALL)
            )
            asked = NetlinkSocket("")
            try:
                rows = links(asked)
            finally:
                asked.close()
        self.devices = {index: row.name for index, row in rows.items()}
        self.cables = {index: row.peer_index for index, row in rows.items() if row.kind == "veth"}
        # What a bridge floods ends at devices that it is not addressed to, unless these are ports of a bridge.
        self._ports = frozenset(index for index, row in rows.items() if row.master)
        packet_filter.attach(self._socket, packet_filter.program(version, run, None))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def fileno(self) -> int:
        """For ``select`` and ``recvmmsg``."""
        return self._socket.fileno()

    def lost(self) -> int:
        """How many passings found the buffer full since this was last asked."""
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("@II", statistics)[1])

    def close(self) -> None:
        """Takes an RCU wait, about 10 ms."""
        self._socket.close()

    def drain(self, ledger: Ledger, records: bytearray, reader: TapReader) -> bool:
        """Append a record for every passing that waits; whether there was any."""
        inbox, fd, news = reader.inbox, self._socket.fileno(), False
        while count := inbox.receive(fd):
            news = True
            self._take(ledger, records, inbox, count)
            if count < inbox.count:
                break
        return news

    # Calls would cost as much as all the rest: this runs for every passing of every packet.
    def _take(self, ledger: Ledger, records: bytearray, inbox: Inbox, count: int) -> None:
        version, here, number, pack = self.version, self.number, ledger.number, RECORD.pack
        plain, icmp, request, answer = _PLAIN[version]
        echoes = (request, answer)
        packets = _PACKET[version].iter_unpack(inbox.packets[: count * _SLOT])
        times = _TIME.iter_unpack(inbox.control[: count * Inbox.CONTROL])
        names = _NAME.iter_unpack(inbox.names[: count * _NAME.size])
        found: list[bytes] = []
        for at, (packet, (seconds, nano), (_, _, device, _, kind, _, _)) in enumerate(
            zip(packets, times, names, strict=True)
        ):
            first, ttl, protocol, source, target, ports, middle, _, _, _, _, index = packet
            if version == 6:
                ttl, protocol, first = protocol, ttl, first & 0xF0
            if kind == _PACKET_OTHERHOST and device not in self._ports:
                continue
            out = 2 if kind == _PACKET_OUTGOING else 0
            if first == plain and protocol == icmp and ports >> 24 in echoes:
                reply = 0 if ports >> 24 == request else 1
                ports = int.from_bytes(middle, "big")
            else:
                raw = bytes(inbox.packets[at * _SLOT :][: inbox.length(at)])
                sighting = decode(version, self._run, (target,), raw)
                if sighting is None:
                    continue
                index, reply = sighting.check, 0 if sighting.kind == REQUEST_SEEN else 1
            found.append(
                pack(
                    index, here, reply | out, ttl, device, seconds * 1_000_000_000 + nano, number(source),
                    number(target), ports, protocol,
                )
            )  # fmt: skip
        records += b"".join(found)
