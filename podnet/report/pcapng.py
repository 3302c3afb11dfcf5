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
_IF_NAME, _IF_TSRESOL, _APPLICATION, _FLAGS = 2, 9, 4, 2  # codes of options, each for its kind of block
_NANOSECONDS = b"\x09"
_INBOUND, _OUTBOUND = 1, 2


def pcapng(frames: Sequence[Frame], named: Callable[[str], str]) -> Iterator[bytes]:
    """The file in pieces; ``named`` gives the readable name of a namespace."""
    yield _block(_SECTION, struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1) + _options((_APPLICATION, b"podnet")))
    devices: dict[tuple[str, int], int] = {}
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
        yield _block(_PACKET, head + _padded(frame.raw) + _options((_FLAGS, flags)))


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("=II", kind, length) + body + struct.pack("=I", length)


def _options(*options: tuple[int, bytes]) -> bytes:
    written = [struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join([*written, bytes(4)])


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)
