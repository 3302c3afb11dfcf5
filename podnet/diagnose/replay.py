"""Send probes again, one by one, and note all that can be seen of each: on devices, in rules, in the kernel."""

from __future__ import annotations

import errno
import os
import secrets
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from podnet.diagnose import packet
from podnet.diagnose.packet import answer_to, crafted, parsed
from podnet.diagnose.trail import Met, Sighting, Trail
from podnet.diagnose.watch import Watch
from podnet.errors import KernelError
from podnet.kernel.netns import entered
from podnet.kernel.nftrace import RuleTrace, Tracer, ruled
from podnet.kernel.tracefs import Drop, DropTracer
from podnet.probe import filter as packet_filter
from podnet.probe.addressing import primary
from podnet.probe.limits import allow_files, neighbour_overflows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podnet.diagnose.trail import Subject
    from podnet.model.lab import Lab

__all__ = ["replay"]

_MOST_TRACED = 64  # namespaces
_ROUNDS = 2  # the first one has neighbours resolved; what the second one shows is the network's own doing
_QUIET = 0.12  # seconds without a frame after which nothing more is expected
_REPEATED = 1.1  # seconds after which ARP and neighbour discovery have repeated their question
_LONGEST = 1.5  # seconds for the settling of one round
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_IPV6_HDRINCL, _IP_FREEBIND, _IPV6_FREEBIND = 36, 15, 78
_SENDERS_PORTS = range(61001, 65000)  # above what Linux hands out by itself
_REMOVERS = 16


def replay(lab: Lab, subjects: Sequence[Subject], namespaces: Iterable[str], traced: Iterable[str]) -> list[Trail]:
    """Replay each subject; one trail each, in the same order.

    ``namespaces`` are watched on all devices, in those ``traced`` that have rules nftables tells of them (in 64 at
    most). Raises ``KernelError`` where this process may not do such things at all.
    """
    trails = [_prepared(lab, subject) for subject in subjects]
    watched = list(dict.fromkeys(namespaces))
    allow_files(3 * len(watched) + 6 * len(trails))
    with ExitStack() as stack:
        watch = stack.enter_context(closing(Watch(watched)))
        tracers = _tracers(stack, traced, trails)
        drops = _drop_tracer(stack)
        senders = [_Sender(stack, trail) for trail in trails]
        for number in range(_ROUNDS):
            full = neighbour_overflows()
            decided = _round(senders, watch, drops, number)
            overflowed = full is not None and (neighbour_overflows() or 0) > full
            for trail in trails:
                trail.overflowed |= overflowed
            if decided:
                break
        _add_rules(trails, tracers)
    return trails


def _prepared(lab: Lab, subject: Subject) -> Trail:
    source, target = lab.target(subject.source), lab.target(subject.target)
    if source is None or target is None:
        return Trail(subject, "", "", "", "", 0, failure="no such target")
    destination = subject.address or primary(lab, target, subject.version) or ""
    # The upper bit is left out, so that "plus one" never overflows.
    token = secrets.randbits(31)
    trail = Trail(subject, source.netns, target.netns, "", destination, token)
    if not destination:
        trail.failure = f"{subject.target} has no IPv{subject.version} address"
    return trail


def _tracers(stack: ExitStack, traced: Iterable[str], trails: Sequence[Trail]) -> list[Tracer]:
    name = f"podnet-why-{os.getpid()}"
    matches = []
    for ip, sign in (("ip", "."), ("ip6", ":")):
        addresses = sorted({t.destination for t in trails if sign in t.destination})
        if addresses:
            one_of = f"{{ {', '.join(addresses)} }}"
            matches += [f"{ip} daddr {one_of}", f"{ip} saddr {one_of}"]
    tracers = []
    for netns in dict.fromkeys(traced):
        try:
            if ruled(netns):
                tracers.append(Tracer(netns, name, matches))
            if len(tracers) == _MOST_TRACED:
                break
        except (KernelError, OSError):
            continue  # a namespace that is gone, a kernel without nftables: the other evidence remains
    # Deleting a table waits for RCU: all together.
    pool = stack.enter_context(ThreadPoolExecutor(_REMOVERS))
    stack.callback(lambda: list(pool.map(lambda tracer: tracer.close(), tracers)))
    return tracers


def _drop_tracer(stack: ExitStack) -> DropTracer | None:
    try:
        return stack.enter_context(closing(DropTracer()))
    except KernelError:
        return None  # no tracefs: the kernel keeps its reasons to itself


class _Sender:
    """One trail's sockets: to send from, and to listen on where the subject asks for that."""

    def __init__(self, stack: ExitStack, trail: Trail) -> None:
        self.trail = trail
        self.echo: socket.socket | None = None
        self._raw: socket.socket | None = None
        self._packet = b""
        subject = trail.subject
        if trail.failure:
            return
        try:
            with entered(trail.target_netns):
                port = self._listen(stack, subject) if subject.protocol != "icmp" else 0
            with entered(trail.source_netns):
                self._raw = stack.enter_context(_raw(subject.version))
                trail.source, trail.send_errno = _chosen(subject.version, trail.destination)
                ports = (trail.token & 0xFFFF, 1) if subject.protocol == "icmp" else (self._reserve(stack), port)
        except (KernelError, OSError) as error:
            trail.failure = str(error)
            return
        if trail.source:
            self._packet = crafted(subject.protocol, trail.source, trail.destination, ports, trail.token, subject.size)
            trail.length = len(self._packet)

    def _listen(self, stack: ExitStack, subject: Subject) -> int:
        if subject.port or subject.address:
            return subject.port
        kind = socket.SOCK_STREAM if subject.protocol == "tcp" else socket.SOCK_DGRAM
        sock = stack.enter_context(_bound(subject.version, kind, self.trail.destination))
        if subject.protocol == "tcp":
            sock.listen(8)
        else:
            self.echo = sock
        return int(sock.getsockname()[1])

    def _reserve(self, stack: ExitStack) -> int:
        """A port to send from, which nobody else answers at."""
        subject, wish = self.trail.subject, secrets.choice(_SENDERS_PORTS)
        if subject.protocol == "tcp" or not self.trail.source:
            return wish
        # A closed UDP port would answer the answer with an ICMP error.
        try:
            sock = stack.enter_context(_bound(subject.version, socket.SOCK_DGRAM, self.trail.source))
        except OSError:  # a link-local address, for want of another
            return wish
        packet_filter.attach(sock, packet_filter.NOTHING)
        return int(sock.getsockname()[1])

    def send(self) -> None:
        """Send it once; a refusal is evidence too."""
        if self._raw is None or not self._packet:
            return
        try:
            self._raw.sendto(self._packet, (self.trail.destination, 0))
            self.trail.send_errno = 0
        except OSError as error:
            self.trail.send_errno = error.errno or errno.EIO

    @property
    def unseen(self) -> bool:
        """Whether it was sent, and no device has seen it."""
        return bool(self._packet) and not self.trail.send_errno and not self.trail.sightings

    def answer(self) -> None:
        """Answer what reached the UDP listener."""
        while self.echo is not None:
            try:
                payload, sender = self.echo.recvfrom(2048)
                if back := answer_to(payload):
                    self.echo.sendto(back, sender)
            except BlockingIOError:
                return
            except OSError:
                return  # no way back: the trail shows that there is no answer


def _raw(version: int) -> socket.socket:
    sock = socket.socket(_FAMILY[version], socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
    if version == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
    sock.setblocking(False)
    return sock


def _bound(version: int, kind: int, address: str) -> socket.socket:
    sock = socket.socket(_FAMILY[version], kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    level, option = (socket.IPPROTO_IP, _IP_FREEBIND) if version == 4 else (socket.IPPROTO_IPV6, _IPV6_FREEBIND)
    try:
        sock.setsockopt(level, option, 1)  # the address may be what is missing
        sock.bind((address, 0))
    except OSError:
        sock.close()
        raise
    return sock


def _chosen(version: int, destination: str) -> tuple[str, int]:
    """The address that this namespace's kernel sends from, or its errno."""
    with socket.socket(_FAMILY[version], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect((destination, 9))
        except OSError as error:
            return "", error.errno or errno.EIO
        return str(sock.getsockname()[0]), 0


def _round(senders: list[_Sender], watch: Watch, drops: DropTracer | None, number: int) -> bool:
    """Send all once, and note what is seen of it; whether that decides about every packet."""
    trails = [sender.trail for sender in senders]
    by_token = {trail.token: trail for trail in trails}
    for trail in trails:
        trail.sightings.clear()
    echoing = [sender for sender in senders if sender.echo is not None]
    for sender in senders:
        if drops is not None:
            drops.mark(f"{sender.trail.token}.{number}")
        sender.send()
        sender.answer()
        if drops is not None:
            drops.mark("")
    _note(watch.read(), by_token, trails)
    _add_drops(trails, drops, number)
    if all(_ruled_out(trail) for trail in trails):
        return True
    started = last = time.monotonic()
    while (now := time.monotonic()) - started < _LONGEST:
        # A question for a neighbour that was asked before is repeated only after a second.
        waits = number == 0 and any(sender.unseen for sender in senders)
        if now - last > _QUIET and not (waits and now - started < _REPEATED):
            break
        for sender in echoing:
            sender.answer()
        if _note(watch.read(), by_token, trails):
            last = time.monotonic()
        select.select([], [], [], 0.01)
    _add_drops(trails, drops, number)
    return False


def _ruled_out(trail: Trail) -> bool:
    """Whether a rule dropped the packet or its answer, or it was not sent at all: nothing else can come of it."""
    return bool(trail.failure) or any(drop.reason == "NETFILTER_DROP" for drop in trail.drops)


def _note(seen: list[Sighting], by_token: dict[int, Trail], trails: list[Trail]) -> bool:
    news = False
    for sighting in seen:
        if sighting.frame.kind == packet.ARP:
            # Whose question it is shows only in what is asked: each trail picks its own later.
            for trail in trails:
                trail.asked.append(sighting)
            continue
        trail_of = by_token.get(sighting.frame.token)
        if trail_of is not None:
            trail_of.sightings.append(sighting)
            news = True
    for trail in trails:
        trail.sightings.sort(key=lambda sighting: sighting.at)
    return news


def _add_rules(trails: Sequence[Trail], tracers: Sequence[Tracer]) -> None:
    by_token = {trail.token: trail for trail in trails}
    for tracer in tracers:
        for trace in tracer.read():
            if asked := _asked(trace):
                for each in trails:
                    each.asking.append((asked, Met(trace, tracer.text_of(trace), reply=False)))
                continue
            frame = _frame_of(trace)
            trail = by_token.get(frame.token) if frame else None
            if frame is None or trail is None:
                continue
            met = Met(trace, tracer.text_of(trace), frame.kind != packet.REQUEST)
            if met not in trail.rules:
                trail.rules.append(met)


def _frame_of(trace: RuleTrace) -> packet.Frame | None:
    head = trace.network
    if not head:
        return None
    length = (head[0] & 15) * 4 if head[0] >> 4 == 4 else 40
    return parsed(head[:length] + trace.transport, ethernet=False)


def _asked(trace: RuleTrace) -> bytes:
    """The address, or its beginning, that a traced ARP packet or neighbour discovery is about."""
    head, body = trace.network, trace.transport
    if len(head) >= 28 and head[:6] == b"\0\1\x08\0\6\4":
        return head[24:28] if head[7] == 1 else head[14:18]
    if len(head) >= 40 and head[0] >> 4 == 6 and head[6] == 58 and len(body) >= 12 and body[0] in (135, 136):
        return body[8:]
    return b""


def _add_drops(trails: Sequence[Trail], drops: DropTracer | None, number: int) -> None:
    """The kernel's reasons of a round, those for packets of the trail's own kind."""
    if drops is None:
        return
    found: dict[str, list[Drop]] = {}
    for drop in drops.read():
        found.setdefault(drop.mark, []).append(drop)
    for trail in trails:
        kind = 0x86DD if trail.subject.version == 6 else 0x0800
        trail.drops = [drop for drop in found.get(f"{trail.token}.{number}", ()) if drop.ethertype == kind]
