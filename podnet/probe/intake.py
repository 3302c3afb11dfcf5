"""From captured packets to the ledger: the usual ones by one unpacking, the odd ones by ``decode``."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from podnet.probe.decode import ICMP_ERROR, REPLY, REQUEST_SEEN, RESET, decode
from podnet.probe.ledger import REPLIED, RESETTED
from podnet.probe.mmsg import Inbox
from podnet.probe.stamp import ANSWER, REQUEST
from podnet.probe.tap import TapReader
from podnet.probe.verdict import icmp_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.probe.capture import Capture
    from podnet.probe.decode import Sighting
    from podnet.probe.echo import Echo
    from podnet.probe.ledger import Ledger
    from podnet.probe.stamp import Run

__all__ = ["Intake", "Reader"]

_SLOT = 128  # bytes: an ICMPv6 error with its quote of a probe has 112
_COUNT = 256

# The first byte, TTL and protocol (in the order of the header), addresses; then of the next header: two bytes, the
# word at 4, and where a stamp begins at 8: magic or acknowledgement number, run, sender, receiver, check.
_PACKET = {
    4: struct.Struct(f"!B7xBB2x4s4sBB2xI4sIHHI{_SLOT - 44}x"),
    6: struct.Struct(f"!B5xBB16s16sBB2xI4sIHHI{_SLOT - 64}x"),
}
_TIME = struct.Struct("=16xqq")


class Reader:
    """One thread's room for what it reads, and for what it answers."""

    def __init__(self, echo: Echo) -> None:
        self.echo = echo
        self.inbox = Inbox(_COUNT, _SLOT)
        self.taps = TapReader()


class Intake:
    """Adds what captures saw to the evidence.

    Only the receiver's namespace tells of arrivals, the sender's of answers: ``homes`` is the number of the namespace
    by the number of a target, ``sources`` and ``targets`` are those numbers by check.
    """

    def __init__(
        self, ledger: Ledger, run: Run, homes: Sequence[int], sources: Sequence[int], targets: Sequence[int]
    ) -> None:
        self._ledger, self._run, self._homes = ledger, run, homes
        self._sources, self._targets = sources, targets

    def drain(self, capture: Capture, here: int, reader: Reader) -> bool:
        """Read all that waits in the capture of namespace ``here``; whether there was anything."""
        inbox, fd, news = reader.inbox, capture.fileno(), False
        while count := inbox.receive(fd):
            news = capture.heard = True
            self._take(capture, here, inbox, count)
            if count < inbox.count:
                break
        return news

    # Calls would cost as much as all the rest: this runs for every packet.
    def _take(self, capture: Capture, here: int, inbox: Inbox, count: int) -> None:  # noqa: C901
        """Note ``count`` packets, in one loop without calls for what nearly all packets are."""
        ledger, homes, sources, targets = self._ledger, self._homes, self._sources, self._targets
        state, arrived, answered, seen, ttls = (
            ledger.state, ledger.arrived, ledger.answered, ledger.seen, ledger.ttl,
        )  # fmt: skip
        number, total, version, own = self._run.number, len(ledger), capture.version, capture.own
        plain, mark = (0x45, self._run.sequence_byte) if version == 4 else (0x60, self._run.sequence_byte)
        request, reply, icmp = (8, 0, 1) if version == 4 else (128, 129, 58)
        packets = _PACKET[version].iter_unpack(inbox.packets[: count * _SLOT])
        times = _TIME.iter_unpack(inbox.control[: count * Inbox.CONTROL])
        for at, (packet, (seconds, nanoseconds)) in enumerate(zip(packets, times, strict=True)):
            first, ttl, protocol, source, destination, kind, _, word, magic, run, _, _, index = packet
            if version == 6:
                ttl, protocol, first = protocol, ttl, first & 0xF0
            what = 0
            if first == plain and destination in own:
                if protocol == icmp:
                    if magic == REQUEST and run == number:
                        what = REQUEST_SEEN if kind == request else REPLY if kind == reply else 0
                elif protocol == 17:
                    if run == number:
                        what = REQUEST_SEEN if magic == REQUEST else REPLY if magic == ANSWER else 0
                elif protocol == 6:
                    flags = (run >> 16) & 0x17  # FIN, SYN, RST, ACK
                    if flags == 0x02:
                        what = REQUEST_SEEN
                    elif flags in (0x12, 0x14):
                        word = int.from_bytes(magic, "big") - 1
                        what = REPLY if flags == 0x12 else RESET
                    index = word & 0xFFFFFF
                    if word >> 24 != mark:
                        what = 0
            if not what:
                sighting = decode(version, self._run, own, bytes(inbox.packets[at * _SLOT :][: inbox.length(at)]))
                if sighting is not None:
                    self._note(sighting, version, here, seconds * 1_000_000_000 + nanoseconds, ttl)
                continue
            if index >= total:
                continue
            if what == REQUEST_SEEN:
                if homes[targets[index]] == here and not arrived[index]:
                    arrived[index] = seconds * 1_000_000_000 + nanoseconds
                    seen[index] = ledger.number(source)
                    ttls[index] = ttl
            elif homes[sources[index]] == here and not state[index]:
                answered[index] = seconds * 1_000_000_000 + nanoseconds
                state[index] |= REPLIED if what == REPLY else RESETTED

    def _note(self, sighting: Sighting, version: int, here: int, at: int, ttl: int) -> None:
        """The same for what had to be decoded: IP options, ICMP errors."""
        ledger, index = self._ledger, sighting.check
        if index >= len(ledger):
            return
        if sighting.kind == REQUEST_SEEN:
            if self._homes[self._targets[index]] == here and not ledger.arrived[index]:
                ledger.arrived[index] = at
                ledger.seen[index] = ledger.number(sighting.sender)
                ledger.ttl[index] = ttl
            return
        if self._homes[self._sources[index]] != here or ledger.state[index]:
            return
        ledger.answered[index] = at
        if sighting.kind == ICMP_ERROR:
            reporter = str(ip_address(sighting.sender))
            refused, text = icmp_error(version, *sighting.error, reporter)
            ledger.refuse(index, refused=refused, text=text, reporter=reporter)
        else:
            ledger.state[index] |= RESETTED if sighting.kind == RESET else REPLIED
