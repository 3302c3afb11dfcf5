"""What a captured packet says about which check. Pure: bytes in, a sighting out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.probe.sctp import ABORT, INIT, INIT_ACK
from podnet.probe.stamp import ANSWER, REQUEST, SIZE, STAMP

if TYPE_CHECKING:
    from collections.abc import Container

    from podnet.probe.stamp import Run

__all__ = ["ICMP_ERROR", "REPLY", "REQUEST_SEEN", "RESET", "Sighting", "decode"]

REQUEST_SEEN, REPLY, RESET, ICMP_ERROR = 1, 2, 3, 4

_ICMP = {4: 1, 6: 58}
_ECHO = {4: (8, 0), 6: (128, 129)}
_ERRORS = {4: (3, 11, 12), 6: (1, 2, 3, 4)}


class Sighting(NamedTuple):
    """One packet of a check; ``check`` is its index, ``sender`` the packed address in its IP header.

    ``error`` is (type, code) of an ICMP error, whose ``sender`` is the host that refused.
    """

    kind: int
    check: int
    sender: bytes
    error: tuple[int, int] = (0, 0)


def decode(version: int, run: Run, own: Container[bytes], packet: bytes) -> Sighting | None:
    """The sighting in a packet that begins with its IP header; ``None`` if it is none of ours, or not for us."""
    if version == 4:
        if len(packet) < 28 or packet[16:20] not in own:
            return None
        l4, protocol, sender = (packet[0] & 15) * 4, packet[9], packet[12:16]
    else:
        if len(packet) < 48 or packet[24:40] not in own:
            return None
        l4, protocol, sender = 40, packet[6], packet[8:24]
    if protocol == 6:
        return _of_tcp(run, packet, l4, sender)
    if protocol == 132:
        return _of_sctp(run, packet, l4, sender)
    if protocol == 17:
        magic, index = _stamp(run, packet, l4 + 8)
        if magic == REQUEST:
            return Sighting(REQUEST_SEEN, index, sender)
        return Sighting(REPLY, index, sender) if magic == ANSWER else None
    if protocol != _ICMP[version] or len(packet) < l4 + 8:
        return None
    kind = packet[l4]
    if kind in _ECHO[version]:
        magic, index = _stamp(run, packet, l4 + 8)
        if magic != REQUEST:
            return None
        return Sighting(REQUEST_SEEN if kind == _ECHO[version][0] else REPLY, index, sender)
    if kind in _ERRORS[version]:
        quoted = _quoted(version, run, packet, l4 + 8)
        return None if quoted is None else Sighting(ICMP_ERROR, quoted, sender, (kind, packet[l4 + 1]))
    return None


def _stamp(run: Run, packet: bytes, at: int) -> tuple[bytes, int]:
    """The magic and the index of the check; the magic is empty where the stamp is not this run's."""
    if len(packet) < at + SIZE:
        return b"", 0
    magic, number, _source, _target, index = STAMP.unpack_from(packet, at)
    return (magic, index) if number == run.number else (b"", 0)


def _of_tcp(run: Run, packet: bytes, l4: int, sender: bytes) -> Sighting | None:
    if len(packet) < l4 + 20:
        return None
    flags = packet[l4 + 13] & 0x17  # FIN, SYN, RST, ACK
    if flags == 0x02:
        mark = int.from_bytes(packet[l4 + 4 : l4 + 8], "big")
        kind = REQUEST_SEEN
    elif flags in (0x12, 0x14):
        mark = int.from_bytes(packet[l4 + 8 : l4 + 12], "big") - 1
        kind = REPLY if flags == 0x12 else RESET
    else:
        return None
    return Sighting(kind, mark & 0xFFFFFF, sender) if mark >> 24 == run.sequence_byte else None


def _of_sctp(run: Run, packet: bytes, l4: int, sender: bytes) -> Sighting | None:
    if len(packet) < l4 + 16:
        return None
    chunk = packet[l4 + 12]
    if chunk == INIT and len(packet) >= l4 + 32:
        kind, mark = REQUEST_SEEN, int.from_bytes(packet[l4 + 16 : l4 + 20], "big")
    elif chunk in (INIT_ACK, ABORT):
        kind, mark = REPLY if chunk == INIT_ACK else RESET, int.from_bytes(packet[l4 + 4 : l4 + 8], "big")
    else:
        return None
    return Sighting(kind, mark & 0xFFFFFF, sender) if mark >> 24 == run.sequence_byte else None


def _quoted(version: int, run: Run, packet: bytes, at: int) -> int | None:
    """The check whose probe an ICMP error quotes. Linux quotes far more than the 8 bytes that RFC 792 asks for."""
    if version == 4:
        if len(packet) < at + 28 or int.from_bytes(packet[at + 4 : at + 6], "big") != run.identification:
            return None
        l4, protocol = at + (packet[at] & 15) * 4, packet[at + 9]
    else:
        if len(packet) < at + 48 or int.from_bytes(packet[at : at + 4], "big") & 0xFFFFF != run.flow_label:
            return None
        l4, protocol = at + 40, packet[at + 6]
    if protocol in (6, 132):
        at = l4 + (4 if protocol == 6 else 16)
        mark = int.from_bytes(packet[at : at + 4], "big")
        return mark & 0xFFFFFF if mark >> 24 == run.sequence_byte else None
    magic, index = _stamp(run, packet, l4 + 8)
    return index if magic == REQUEST else None
