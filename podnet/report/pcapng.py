"""Frames as a pcapng file (draft-ietf-opsawg-pcapng): an interface block for each device, packets by time."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from podnet.probe.witness import Frame

__all__ = ["pcapng"]

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_ETHERNET, _RAW = 1, 101  # LINKTYPE_*
_COMMENT, _IF_NAME, _IF_TSRESOL, _APPLICATION, _FLAGS = 1, 2, 9, 4, 2  # codes of options, each for its kind of block
_LONGEST = 65535  # bytes of an option
_NANOSECONDS = b"\x09"
_INBOUND, _OUTBOUND = 1, 2


def pcapng(
    frames: Sequence[Frame], named: Callable[[str], str], *, comment: str = "", comments: Sequence[str] = ()
) -> Iterator[bytes]:
    """The file in pieces; ``named`` gives the readable name of a namespace.

    ``comment`` is about all of it; of ``comments``, by number of the check, each is at the check's first packet.
    """
    about = _options(*_comment(comment), (_APPLICATION, b"podnet"))
    yield _block(_SECTION, struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1) + about)
    devices: dict[tuple[str, int], int] = {}
    told: set[int] = set()
    for frame in frames:
        key = (frame.netns, frame.number)
        if key not in devices:
            devices[key] = len(devices)
            name = f"{named(frame.netns)} {frame.device}".encode()
            head = struct.pack("=HHI", _ETHERNET if frame.ethernet else _RAW, 0, 0)
            yield _block(_INTERFACE, head + _options((_IF_NAME, name), (_IF_TSRESOL, _NANOSECONDS)))
        size = len(frame.raw)
        head = struct.pack("=IIIII", devices[key], frame.at >> 32, frame.at & 0xFFFFFFFF, size, size)
        flags = struct.pack("=I", _OUTBOUND if frame.out else _INBOUND)
        remark = comments[frame.check] if frame.check not in told and frame.check < len(comments) else ""
        told.add(frame.check)
        yield _block(_PACKET, head + _padded(frame.raw) + _options(*_comment(remark), (_FLAGS, flags)))


def _comment(text: str) -> list[tuple[int, bytes]]:
    written = text.encode()
    return [(_COMMENT, written[:_LONGEST].decode(errors="ignore").encode())] if written else []


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("=II", kind, length) + body + struct.pack("=I", length)


def _options(*options: tuple[int, bytes]) -> bytes:
    written = [struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join([*written, bytes(4)])


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)
