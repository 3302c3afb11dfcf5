"""One pair's packets on all of their way: every device, what changed there, and what changed it."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from podnet.kernel.netns import entered
from podnet.model.path import Hop
from podnet.probe.branches import Sighted, taken
from podnet.probe.engine import run
from podnet.probe.predict import Predictor
from podnet.probe.stamp import Run
from podnet.probe.witness import Frame, Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podnet.model.lab import Lab
    from podnet.model.probe import Check, Result

__all__ = ["Change", "Step", "Trace", "frames_of", "trace"]


@dataclass(frozen=True, slots=True)
class Change:
    """What a namespace did to the addresses of a packet.

    ``what`` is ``source`` or ``destination``; ``entry`` the kernel's conntrack entry and ``rules`` the NAT rules
    of the namespace, one line each, empty where it has none.
    """

    what: str
    before: str
    after: str
    entry: str = ""
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A hop with its link-layer addresses, encapsulations and changes; ``us`` is microseconds since the first one."""

    hop: Hop
    us: float
    macs: tuple[str, str]
    outer: tuple[str, ...]
    size: int
    changes: tuple[Change, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """A probe's story; ``predicted`` are the hosts on the way by the model, ``None`` where it joins the two by none."""

    result: Result
    request: tuple[Step, ...]
    reply: tuple[Step, ...]
    predicted: tuple[str, ...] | None
    seen: tuple[str, ...]
    seen_back: tuple[str, ...]
    frames: tuple[Frame, ...]


def trace(lab: Lab, check: Check, namespaces: Sequence[str], *, timeout: float = 0.3) -> Trace:
    """Send one probe and follow it through these namespaces, the lab's.

    Other pods than the two are left out: what reaches them by flooding is no part of the way. Raises as ``run`` does.
    """
    this = Run(secrets.randbits(32) | 1 << 24)
    others = {t.netns for t in lab.targets if t.kind == "pod" and t.name not in (check.source, check.target)}
    with Witness([name for name in namespaces if name not in others]) as witness:
        [result] = run(lab, [check], timeout=timeout, this=this)
        frames = witness.frames(this)
    places = {target.netns: target.name for target in lab.targets}
    prefix = f"{lab.name}."
    source, target = lab.target(check.source), lab.target(check.target)
    assert source is not None  # noqa: S101 - run() has refused other names
    assert target is not None  # noqa: S101
    request = _way([f for f in frames if not f.reply], target.netns)
    reply = _way([f for f in frames if f.reply], source.netns)
    begin = request[0].at if request else 0

    def named(netns: str) -> str:
        return places.get(netns, netns.removeprefix(prefix))

    steps, back = _steps(request, begin, named), _steps(reply, begin, named)
    known = set(places.values())
    return Trace(
        result,
        steps,
        back,
        Predictor(lab, check.version).way(source, target),
        _hosts(steps, known),
        _hosts(back, known),
        tuple(frames),
    )


def frames_of(lab: Lab, checks: Sequence[Check], namespaces: Sequence[str], *, timeout: float = 0.1) -> list[Frame]:
    """Send a probe for each check once more, and return every frame that it and its answer were at any device."""
    this = Run(secrets.randbits(32) | 1 << 24)
    with Witness(namespaces) as witness:
        run(lab, checks, timeout=timeout, this=this, attempts=1)
        return witness.frames(this, len(checks))


def _way(frames: list[Frame], end: str) -> list[Frame]:
    """The first attempt, up to where it is at its end, without copies that nobody takes."""
    seen, way = set(), []
    for frame in frames:
        key = (frame.netns, frame.number, frame.out, _ttl(frame.packet), frame.outer)
        if key not in seen:
            seen.add(key)
            way.append(frame)
    arrivals = [at for at, frame in enumerate(way) if frame.netns == end and not frame.out]
    if arrivals:
        del way[arrivals[-1] + 1 :]
    sighted = [Sighted(f.netns, f.number, f.cable, f.out, _ttl(f.packet)) for f in way]
    return [frame for frame, is_taken in zip(way, taken(sighted), strict=True) if is_taken]


def _hosts(steps: Sequence[Step], known: set[str]) -> tuple[str, ...]:
    names: list[str] = []
    for step in steps:
        if step.hop.place in known and (not names or names[-1] != step.hop.place):
            names.append(step.hop.place)
    return tuple(names)


def _steps(frames: Sequence[Frame], begin: int, named: Callable[[str], str]) -> tuple[Step, ...]:
    steps: list[Step] = []
    before: Frame | None = None
    for frame in frames:
        hop = _hop(frame, named)
        changes: list[Change] = []
        if before is not None and not frame.error[0]:
            for what, old, new in zip(("source", "destination"), _ends(before), _ends(frame), strict=True):
                if old != new:
                    changes.append(_changed(frame, what, old, new))
        note = f"ICMP error type {frame.error[0]}, code {frame.error[1]}" if frame.error[0] else ""
        steps.append(Step(hop, (frame.at - begin) / 1000, frame.macs, frame.outer, frame.size, tuple(changes), note))
        before = frame
    return tuple(steps)


def _changed(frame: Frame, what: str, old: str, new: str) -> Change:
    """A change of addresses, with what the namespace where it was seen knows about it."""
    with entered(frame.netns):
        table = Path("/proc/thread-self/net/nf_conntrack")
        try:
            lines = table.read_text(encoding="ascii").splitlines()
        except OSError:  # a kernel without conntrack, or without its file
            lines = []
    other = _ends(frame)[0 if what == "destination" else 1]
    asked = {word for end in (old, new, other) for word in _words(end)}
    if _protocol(frame.packet) in (1, 58):
        l4 = (frame.packet[0] & 15) * 4 if frame.packet[0] >> 4 == 4 else 40
        asked.add(str(int.from_bytes(frame.packet[l4 + 4 : l4 + 6], "big")))  # the identifier
    entry = next((line for line in lines if asked <= {word.partition("=")[2] for word in line.split()}), "")
    return Change(what, old, new, " ".join(entry.split()), nat_rules(frame.netns))


def _words(end: str) -> list[str]:
    """Address and port as the kernel writes them in its table: IPv6 in full."""
    if end.startswith("["):
        address, _, port = end[1:].partition("]:")
    elif "." in end:
        address, _, port = end.partition(":")
    else:
        address, port = end, ""
    return [ip_address(address).exploded, *([port] if port else [])]


def nat_rules(netns: str) -> tuple[str, ...]:
    """The rules of a namespace that change addresses, as nft prints them, with the chain that they are in."""
    from podnet.kernel import nft

    rules, chain, table = [], "", ""
    for line in nft.run(netns, "list ruleset").splitlines():
        text = line.strip()
        if text.startswith("table "):
            table = text.removesuffix(" {").removeprefix("table ")
        elif text.startswith("chain "):
            chain = text.removesuffix(" {").removeprefix("chain ")
        elif any(word in text.split() for word in ("masquerade", "snat", "dnat", "redirect")):
            rules.append(f"table {table}, chain {chain}: {text}")
    return tuple(rules)


def _hop(frame: Frame, named: Callable[[str], str]) -> Hop:
    packet = frame.packet
    source, target = _addresses(packet)
    l4 = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
    protocol = _protocol(packet)
    at = l4 + (4 if protocol in (1, 58) else 0)
    ports = (int.from_bytes(packet[at : at + 2], "big"), int.from_bytes(packet[at + 2 : at + 4], "big"))
    return Hop(named(frame.netns), frame.device, frame.out, frame.at, _ttl(packet), source, target, protocol, ports)


def _ends(frame: Frame) -> tuple[str, str]:
    """Source and destination with their ports, where the protocol has some."""
    source, target = _addresses(frame.packet)
    protocol = _protocol(frame.packet)
    if protocol not in (6, 17):
        return source, target
    l4 = (frame.packet[0] & 15) * 4 if frame.packet[0] >> 4 == 4 else 40
    ports = (int.from_bytes(frame.packet[at : at + 2], "big") for at in (l4, l4 + 2))
    first, second = (
        f"{address}:{port}" if ":" not in address else f"[{address}]:{port}"
        for address, port in zip((source, target), ports, strict=True)
    )  # fmt: skip
    return first, second


def _addresses(packet: bytes) -> tuple[str, str]:
    if packet[0] >> 4 == 4:
        return socket.inet_ntop(socket.AF_INET, packet[12:16]), socket.inet_ntop(socket.AF_INET, packet[16:20])
    return socket.inet_ntop(socket.AF_INET6, packet[8:24]), socket.inet_ntop(socket.AF_INET6, packet[24:40])


def _ttl(packet: bytes) -> int:
    return packet[8] if packet[0] >> 4 == 4 else packet[7]


def _protocol(packet: bytes) -> int:
    return packet[9] if packet[0] >> 4 == 4 else packet[6]
