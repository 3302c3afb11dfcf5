"""Impaired interfaces: delay, loss and disorder by netem, a plain limit by a token bucket; both ways.

Settings are in the kernel's own units, so that what was written is read back as the same numbers: delays in
nanoseconds, ``rate`` in bytes per second, the others as fractions of 2**32 - 1. linux/pkt_sched.h, sch_netem.c.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from podnet.kernel import tc
from podnet.kernel.netlink import attr, attrs
from podnet.kernel.objects import KernelObject, Qdisc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podnet.kernel.netlink import NetlinkSocket

__all__ = ["FRACTIONS", "TIMES", "WHOLE", "add", "described", "kind_of", "lacking", "observe", "parse",
           "settings_of"]  # fmt: skip

Message = tuple[int, int, bytes]

FRACTIONS = ("loss", "duplicate", "reorder", "corrupt")
TIMES = ("delay", "jitter")
WHOLE = (1 << 32) - 1

_RTM_NEWQDISC, _RTM_GETQDISC = 36, 38
_CREATE, _EXCL = 0x400, 0x200
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TC_H_ROOT = 0xFFFFFFFF
_REORDER, _CORRUPT, _RATE, _RATE64, _LATENCY64, _JITTER64 = 3, 4, 6, 8, 10, 11
_UNITS: dict[str, tuple[str, dict[str, float], str]] = {
    "loss": ("percentage", {"%": WHOLE / 100}, "5% or 0.1%, at most 100%"),
    "delay": ("time", {"us": 1e3, "ms": 1e6, "s": 1e9}, "20ms, 1.5s or 300us"),
    "rate": ("rate", {"bit": 1 / 8, "kbit": 125, "mbit": 125e3, "gbit": 125e6}, "10mbit, 500kbit or 1gbit"),
}
_LARGEST = 10**12  # a thousand seconds, or eight terabits a second
_HANDLE = 0x7065 << 16  # podnet's mark: "pe"; what shapes a pod bears another
_TCMSG = struct.Struct("=BxxxiIII")
_NETEM = struct.Struct("=IIIIII")  # latency, limit, loss, gap, duplicate, jitter
_CHANCE = struct.Struct("=II")  # probability, correlation
_NETEM_RATE = struct.Struct("=IiIi")
_S64, _U64 = struct.Struct("=q"), struct.Struct("=Q")
_NETEM_ATTRIBUTES = {
    _REORDER: ("reorder", _CHANCE), _CORRUPT: ("corrupt", _CHANCE), _RATE: ("rate", _NETEM_RATE),
    _RATE64: ("rate", _U64), _LATENCY64: ("delay", _S64), _JITTER64: ("jitter", _S64),
}  # fmt: skip
_MAX32 = (1 << 32) - 1
_QUEUE = 1000  # packets that wait, which is what tc takes
_BURST = 1600  # bytes: at least one packet of 1500 with its frame
_BURST_TIME = 0.01  # seconds of the rate that may go at once: below a tick of the clock, a bucket never fills
_WAIT = 50_000  # microseconds that a packet waits for its turn at most


def kind_of(settings: tuple[tuple[str, int], ...]) -> str:
    """The discipline that can do it: a token bucket for a rate alone, which every kernel has; netem for the rest."""
    return "tbf" if [name for name, _ in settings] == ["rate"] else "netem"


def settings_of(**given: int) -> tuple[tuple[str, int], ...]:
    """Settings in their one order; those of 0 are none."""
    return tuple((name, given[name]) for name in (*TIMES, *FRACTIONS, "rate") if given.get(name))


def parse(name: str, text: str) -> int:
    """One setting as people write it: ``20ms``, ``5%``, ``10mbit``.

    Raises ``ValueError`` with what is wrong and what would be right.
    """
    noun, units, example = _UNITS["loss" if name in FRACTIONS else "delay" if name in TIMES else name]
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z%]*)", text.strip().lower())
    if found is None or found[2] not in units:
        raise ValueError(f"{text!r} is no {noun}", f"write it like {example}")
    value = round(float(found[1]) * units[found[2]])
    if value < 1 or value > (WHOLE if name in FRACTIONS else _LARGEST):
        raise ValueError(f"{text} is too {'small' if value < 1 else 'large'} for a {noun}", f"write it like {example}")
    return value


def lacking(settings: Iterable[str]) -> str:
    """What these settings need besides: jitter and reordering need a delay. Empty where nothing lacks."""
    names = set(settings)
    needing = [name for name in ("jitter", "reorder") if name in names]
    return f"{' and '.join(needing)} without a delay changes nothing" if needing and "delay" not in names else ""


def described(settings: tuple[tuple[str, int], ...]) -> str:
    """Settings as people write them: ``delay 20ms, loss 5%, rate 10mbit``."""
    return ", ".join(f"{name} {_shown(name, value)}" for name, value in settings)


def _shown(name: str, value: int) -> str:
    if name in FRACTIONS:
        return f"{value / WHOLE * 100:.6g}%"
    if name in TIMES:
        return f"{value / 1_000_000:.9g}ms"
    bits = value * 8
    for unit, factor in (("gbit", 10**9), ("mbit", 10**6), ("kbit", 10**3)):
        if bits % factor == 0:
            return f"{bits // factor}{unit}"
    return f"{bits}bit"


def bucket(rate: int) -> tc.Bucket:
    """The token bucket for a rate in bytes per second."""
    return tc.Bucket.of(rate, max(_BURST, int(rate * _BURST_TIME)), _WAIT)


def add(qdisc: Qdisc, index: int) -> Message:
    """Let what a device sends be impaired."""
    values = dict(qdisc.settings)
    if qdisc.type == "tbf":
        return tc.add_bucket(index, bucket(values["rate"]), _HANDLE)
    reorder = values.get("reorder", 0)
    # A gap of 1: any packet may be the one that is sent at once, by the chance given.
    head = _NETEM.pack(0, _QUEUE, values.get("loss", 0), 1 if reorder else 0, values.get("duplicate", 0), 0)
    more = b""
    if reorder:
        more += attr(_REORDER, _CHANCE.pack(reorder, 0))
    if values.get("corrupt"):
        more += attr(_CORRUPT, _CHANCE.pack(values["corrupt"], 0))
    if values.get("rate"):
        rate = values["rate"]
        more += attr(_RATE, _NETEM_RATE.pack(min(rate, _MAX32), 0, 0, 0))
        more += attr(_RATE64, _U64.pack(rate)) if rate > _MAX32 else b""
    more += attr(_LATENCY64, _S64.pack(values.get("delay", 0))) + attr(_JITTER64, _S64.pack(values.get("jitter", 0)))
    data = _TCMSG.pack(0, index, _HANDLE, _TC_H_ROOT, 0) + attr(_TCA_KIND, b"netem\0") + attr(_TCA_OPTIONS, head + more)
    return _RTM_NEWQDISC, _CREATE | _EXCL, data


def observe(sock: NetlinkSocket, netns: str, names: dict[int, str]) -> list[KernelObject]:
    """podnet's disciplines at the root of a namespace's devices."""
    found: list[KernelObject] = []
    for kind, data, start, end in sock.dump(_RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0)):
        _, index, handle, parent, _ = _TCMSG.unpack_from(data, start)
        if kind != _RTM_NEWQDISC or handle != _HANDLE or parent != _TC_H_ROOT:
            continue
        values = {key: (begin, stop) for key, begin, stop in attrs(data, start + _TCMSG.size, end)}
        name = data[slice(*values[_TCA_KIND])].rstrip(b"\0").decode()
        if name == "netem":
            found.append(Qdisc(netns, names.get(index, ""), name, _netem(data, *values[_TCA_OPTIONS])))
        elif name == "tbf":
            each = next(each for each in tc.qdiscs(sock)[index] if each.root)
            rate = each.bucket.rate if each.bucket else 0
            found.append(Qdisc(netns, names.get(index, ""), name, (("rate", rate),)))
    return found


def _netem(data: bytes, begin: int, stop: int) -> tuple[tuple[str, int], ...]:
    _, _, loss, _, duplicate, _ = _NETEM.unpack_from(data, begin)
    values = {"loss": loss, "duplicate": duplicate}
    for kind, first, _ in attrs(data, begin + _NETEM.size, stop):
        if kind in _NETEM_ATTRIBUTES:
            name, layout = _NETEM_ATTRIBUTES[kind]
            value = layout.unpack_from(data, first)[0]
            values[name] = max(value, values.get(name, 0))  # the rate comes twice where 32 bits do not hold it
    return settings_of(**values)
