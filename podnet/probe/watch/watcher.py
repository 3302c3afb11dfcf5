"""The loop of a watch: send what is due, answer, hear, and account for it.

One thread does all. The time of a probe follows from its number alone, so that nothing adds up; flows take turns within
the period. What comes too late is not sent afterwards in a burst: it is skipped, and told.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple, overload

from podnet.probe.addressing import primary
from podnet.probe.clock import await_stamps
from podnet.probe.decode import ICMP_ERROR, REPLY, REQUEST_SEEN, decode
from podnet.probe.limits import allow_files
from podnet.probe.mmsg import Inbox
from podnet.probe.template import Aim, Templates
from podnet.probe.verdict import icmp_error
from podnet.probe.watch.account import Account
from podnet.probe.watch.flow import Marks
from podnet.probe.watch.report import PERCENTILES, Event, Interval, Sample
from podnet.probe.watch.station import Station

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.model.lab import Lab
    from podnet.probe.capture import Capture
    from podnet.probe.stamp import Run
    from podnet.probe.template import Template
    from podnet.probe.watch.account import Counts, Window
    from podnet.probe.watch.answerer import Answerer
    from podnet.probe.watch.flow import Flow

__all__ = ["Plan", "Watcher"]

_LATEST = 20_000_000  # ns: up to so late, or till the flow's next one is due, a probe is sent all the same
_READ_EVERY = 4_000_000  # ns; the kernel stamps what waits, so that reading late changes no time
_LOOK_EVERY = 50_000_000  # ns; at the names of namespaces
_ASK_EVERY = 250_000_000  # ns; for other addresses, and for namespaces that are back
_SHOW_EVERY = 250_000_000  # ns
_BURST = 64  # probes before the next look at what came
_SLOT, _COUNT = 128, 256
_MOST_EVENTS = 10_000  # untold: a reader that stopped reading must not cost memory
_FILES = 12  # of a namespace
_DISCARD = 9  # a port
_TIME = struct.Struct("=16xqq")


class Plan(NamedTuple):
    """How to watch: probes per second of each flow, seconds of silence that mean lost, of an interval, and of all.

    ``probes`` is how many each flow sends; ``duration`` and ``probes`` are 0 for no end.
    """

    rate: float
    timeout: float = 1.0
    interval: float = 1.0
    duration: float = 0.0
    probes: int = 0


class _Line:
    """A flow with all that its probes need."""

    __slots__ = ("account", "aim", "aims", "before", "flow", "gone", "number", "ports", "template")

    def __init__(self, number: int, flow: Flow, account: Account, template: Template) -> None:
        self.number, self.flow, self.account, self.template = number, flow, account, template
        self.aim: Aim | None = None
        self.aims: dict[int, Aim] = {}
        self.ports = [0]
        self.gone = ""  # the names of ends that are gone, and why
        self.before: Counts = account.counts


class _Zeros(Sequence[int]):
    """0 at every place: templates ask for the number of a mark's receiver, and a line has only one."""

    def __len__(self) -> int:
        return 0

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        return self if isinstance(index, slice) else 0


_ZEROS = _Zeros()


class Watcher:
    """Watches flows of a lab. ``run`` is the work, for a thread of its own; all else may be asked by others meanwhile.

    ``renewed`` gives the lab where it is another than when last asked, else ``None``. Namespaces that are not there,
    or go, are told as events, and taken up again when they come back.
    """

    def __init__(
        self, lab: Lab, flows: Sequence[Flow], plan: Plan, this: Run, renewed: Callable[[], Lab | None] = lambda: None
    ) -> None:
        self._lab, self._plan, self._run, self._renewed = lab, plan, this, renewed
        self._marks = Marks(len(flows), plan.rate, plan.timeout)
        templates = Templates(this)
        self._lines = [
            _Line(
                number, flow, Account(round(plan.timeout * 1e9), self._marks.known),
                templates.of(flow.protocol, flow.version),
            )
            for number, flow in enumerate(flows)
        ]  # fmt: skip
        self.events: deque[Event] = deque(maxlen=_MOST_EVENTS)
        self.intervals: deque[list[Interval]] = deque(maxlen=_MOST_EVENTS)
        self.samples: list[Sample] = []
        self._answerers: dict[int, Answerer] = {}
        self._stations: dict[str, Station] = {}
        self._places = {target.name: target.netns for target in lab.targets}
        for flow in flows:
            for name in (flow.source, flow.target):
                self._stations.setdefault(self._places[name], Station(self._places[name], this))
        self._captures: dict[int, tuple[Capture, str]] = {}
        self._stop = threading.Event()
        self._hurry = False
        self._closers: list[threading.Thread] = []
        self._inbox = Inbox(_COUNT, _SLOT)
        self._packet = memoryview(bytearray(256))
        self._name = memoryview(bytearray(64))
        self._overruns: dict[Capture, int] = {}
        self._begun = 0

    # -- asked by others ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Send nothing more, and end when what is in flight is settled; called again: end at once."""
        self._hurry = self._stop.is_set()
        self._stop.set()

    # -- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch until stopped, or all is sent. Raises ``KernelError`` where no socket can be opened anywhere."""
        allow_files(_FILES * len(self._stations))
        self._poll = select.epoll()
        try:
            for station in self._stations.values():
                self._start(station)
            await_stamps()
            self._mark_gone()
            self._loop()
        finally:
            for station in self._stations.values():
                self._close(station)
            for closer in self._closers:
                closer.join()
            self._poll.close()

    def _loop(self) -> None:
        plan, lines = self._plan, self._lines
        period = 1e9 / plan.rate / len(lines)  # between two probes of whichever flow
        begun = self._begun = time.monotonic_ns() + 1_000_000
        end = begun + round(plan.duration * 1e9) if plan.duration else 0
        slot = 0
        read = look = ask = show = begun
        self._show(begun)
        tell, told, ended = begun + round(plan.interval * 1e9), begun, 0
        while True:
            now = time.monotonic_ns()
            if not ended and (self._stop.is_set() or (end and now >= end) or self._all_sent()):
                self._stop.set()
                ended = now
            if not ended:
                slot = self._send_due(begun, period, slot, end)
            now = time.monotonic_ns()
            self._answer()
            if now - read >= _READ_EVERY or ended:
                now = read = self._read()
                if now - look >= _LOOK_EVERY:
                    look = now
                    patient = now - ask < _ASK_EVERY
                    ask = ask if patient else now
                    self._look(patient=patient)
            if now >= tell:
                self._tell(told, now)
                told, tell = now, tell + round(plan.interval * 1e9) * (1 + (now - tell) // round(plan.interval * 1e9))
            if now - show >= _SHOW_EVERY:
                show = now
                self._show(now)
            if ended and (self._hurry or not any(line.account.in_flight for line in lines)):
                break
            due = now + _READ_EVERY if ended else min(begun + round(slot * period), read + _READ_EVERY, tell)
            self._wait((due - time.monotonic_ns()) / 1e9)
        now = self._read()
        self._show(now)
        if any(any(line.account.counts.since(line.before)) for line in lines):
            self._tell(told, now)

    def _all_sent(self) -> bool:
        count = self._plan.probes
        return bool(count) and all(line.account.counts.sent >= count for line in self._lines)

    def _wait(self, seconds: float) -> None:
        # epoll_wait counts in milliseconds, select in microseconds.
        if seconds > 0:
            select.select([self._poll.fileno()], [], [], seconds)

    # -- out ------------------------------------------------------------------------------------------------------

    def _send_due(self, begun: int, period: float, slot: int, end: int) -> int:
        """Send all that is due, at most a burst; the number of the slot that comes next."""
        lines, count = self._lines, self._plan.probes
        latest = max(_LATEST, period * len(lines))
        for _ in range(_BURST):
            now = time.monotonic_ns()
            due = begun + round(slot * period)
            if due > now or (end and due >= end):
                break
            line = lines[slot % len(lines)]
            slot += 1
            if count and line.account.counts.sent >= count:
                continue
            if now - due > latest:
                if not self._station(line.flow.source).open:
                    continue
                line.account.skip(1)
                continue
            self._send(line)
        return slot

    def _station(self, name: str) -> Station:
        return self._stations[self._places[name]]

    def _send(self, line: _Line) -> None:
        flow, aim = line.flow, line.aim
        station = self._station(flow.source)
        origin = station.origins.get(flow)
        if origin is None or aim is None:
            return  # the sender is gone: it sends nothing, and loses nothing
        account, template, packet = line.account, line.template, self._packet
        at = time.monotonic_ns()
        number = account.send(at)
        mark = self._marks.mark(line.number, number)
        template.fill(
            packet, self._name, (line.number & 0xFFFF, origin.packed, origin.port), [mark], _ZEROS, line.aims,
            line.ports,
        )  # fmt: skip
        try:
            origin.raw.sendto(packet[: template.size], (aim.text, 0))
        except OSError as error:
            account.refuse(number, os.strerror(error.errno or errno.EIO))

    # -- in -------------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Have podnet's own listeners answer what waits for them."""
        step = time.time_ns() - time.monotonic_ns()
        for fd, _ in self._poll.poll(0):
            answerer = self._answerers.get(fd)
            for mark, at in answerer.answer() if answerer else ():
                found = self._known(mark)
                if found is not None:
                    found[0].account.echo(found[1], at - step)

    def _known(self, mark: int) -> tuple[_Line, int] | None:
        number = self._marks.flow(mark)
        if number >= len(self._lines):
            return None
        line = self._lines[number]
        sequence = line.account.locate(mark & self._marks.mask, self._marks.mask)
        return None if sequence < 0 else (line, sequence)

    def _read(self) -> int:
        """Hear all that waits, and settle what that, and silence, settles; the time up to which all was heard."""
        now = time.monotonic_ns()
        step = time.time_ns() - time.monotonic_ns()
        answers: list[tuple[Account, int, int]] = []
        for fd, (capture, netns) in self._captures.items():
            while count := self._inbox.receive(fd):
                self._hear(capture, netns, count, step, answers)
                if count < _COUNT:
                    break
        # A request is known before its answer: which was read first says nothing.
        for account, number, at in answers:
            account.answer(number, at)
        for line in self._lines:
            for opened, window in line.account.advance(now):
                kind = "loss-opened" if opened else "loss-closed"
                self._event(kind, line, window.reason, window, window.milliseconds(now))
        return now

    def _hear(
        self, capture: Capture, netns: str, count: int, step: int, answers: list[tuple[Account, int, int]]
    ) -> None:
        inbox, version = self._inbox, capture.version
        times = _TIME.iter_unpack(inbox.control[: count * Inbox.CONTROL])
        for at, (seconds, nanoseconds) in enumerate(times):
            packet = bytes(inbox.packets[at * _SLOT : at * _SLOT + inbox.length(at)])
            sighting = decode(version, self._run, capture.own, packet)
            found = None if sighting is None else self._known(sighting.check)
            if sighting is None or found is None:
                continue
            line, number = found
            stamp = seconds * 1_000_000_000 + nanoseconds - step
            if sighting.kind == REQUEST_SEEN:
                if self._places[line.flow.target] == netns:
                    line.account.arrive(number, stamp)
            elif self._places[line.flow.source] == netns:
                if sighting.kind == REPLY:
                    answers.append((line.account, number, stamp))
                elif sighting.kind == ICMP_ERROR:
                    reporter = str(ip_address(sighting.sender))
                    line.account.blame(number, icmp_error(version, *sighting.error, reporter)[1])
                else:
                    line.account.blame(number, "TCP reset")

    # -- namespaces that go and come ------------------------------------------------------------------------------

    def _start(self, station: Station) -> bool:
        """Open a namespace's sockets; whether that could be done."""
        flows = [line.flow for line in self._lines]
        opened = station.start(
            self._lab,
            [flow for flow in flows if self._places[flow.source] == station.netns],
            [flow for flow in flows if self._places[flow.target] == station.netns],
        )
        for capture in station.captures:
            self._captures[capture.fileno()] = (capture, station.netns)
        for answerer in station.answerers:
            self._answerers[answerer.fileno()] = answerer
            self._poll.register(answerer.fileno(), select.EPOLLIN)
        for line in self._lines:
            flow = line.flow
            target = self._lab.target(flow.target)
            text = primary(self._lab, target, flow.version) if target is not None else None
            line.aim = None if text is None else Aim.at(text)
            line.aims = {} if line.aim is None else {0: line.aim}
            port = self._station(flow.target).ports.get((flow.target, flow.protocol, flow.version), 0)
            # Before its receiver was ever there, a probe goes where nobody listens.
            line.ports = [port or (0 if flow.protocol == "icmp" else _DISCARD)]
        return opened

    def _close(self, station: Station) -> None:
        for capture in station.captures:
            del self._captures[capture.fileno()]
        for answerer in station.answerers:
            del self._answerers[answerer.fileno()]
            self._poll.unregister(answerer.fileno())
        self._closers = [closer for closer in self._closers if closer.is_alive()]
        station.close(self._closers)

    def _look(self, *, patient: bool) -> None:
        """Let go of namespaces that are gone; if not ``patient``, take up those that are back, and other addresses."""
        for station in self._stations.values():
            if station.open and station.changed():
                self._close(station)
                station.why = f"namespace {station.netns} is gone"
        self._mark_gone()
        if patient:
            return
        lab = self._renewed()
        if lab is not None:
            self._adopt(lab)
        for station in self._stations.values():
            if not station.open and station.changed():
                self._start(station)
        self._mark_gone()

    def _mark_gone(self) -> None:
        for line in self._lines:
            ends = {name: self._station(name) for name in (line.flow.source, line.flow.target)}
            gone = "; ".join(f"{name}: {station.why}" for name, station in ends.items() if not station.open)
            if gone != line.gone:
                line.gone = gone
                self._event("gone" if gone else "back", line, gone)

    def _adopt(self, lab: Lab) -> None:
        """Go on with the lab as it is now; targets that it has no more keep what they had, for when they come back."""
        before = {target.name: target for target in self._lab.targets}
        now = {target.name: target for target in lab.targets}
        self._lab = replace(lab, targets=tuple((before | now).values()))
        other = {name for name, target in now.items() if name in before and target != before[name]}
        touched = [line for line in self._lines if {line.flow.source, line.flow.target} & other]
        stations = {self._station(name).netns for line in touched for name in (line.flow.source, line.flow.target)}
        for netns in stations:
            self._close(self._stations[netns])
            self._stations[netns].why = "its addresses are being changed"
        self._places = {target.name: target.netns for target in self._lab.targets}
        for line in touched:
            for name in (line.flow.source, line.flow.target):
                self._stations.setdefault(self._places[name], Station(self._places[name], self._run))
            self._event("changed", line, "an end has other interfaces or addresses now")

    # -- told to others -------------------------------------------------------------------------------------------

    def _event(
        self, kind: str, line: _Line, text: str = "", window: Window | None = None, milliseconds: float = 0.0
    ) -> None:
        self.events.append(Event(kind, line.flow, time.time(), text, window, milliseconds))

    def _tell(self, since: int, now: int) -> None:
        """What happened in the interval that ends now."""
        intervals = []
        for line in self._lines:
            account = line.account
            counts, recent = account.counts, account.fresh()
            delta, line.before = counts.since(line.before), counts
            times = (*recent.percentiles(PERCENTILES), recent.highest)
            intervals.append(
                Interval(
                    line.flow, time.time(), (now - since) / 1e9, delta, times, recent.count, account.in_flight,
                    _open_ms(account, now), line.gone,
                )
            )  # fmt: skip
            if delta.skipped:
                text = f"{delta.skipped} of {delta.skipped + delta.sent} probes were not sent: podnet could not keep up"
                self._event("behind", line, text)
        for capture, netns in self._captures.values():
            if lost := capture.lost() - self._overruns.get(capture, 0):
                self._overruns[capture] = capture.lost()
                for line in self._lines:
                    if netns in (self._places[line.flow.source], self._places[line.flow.target]):
                        self._event("overrun", line, f"podnet's own buffer was full: {lost} packets were not heard")
        self.intervals.append(intervals)

    def _show(self, now: int) -> None:
        """All flows so far, for whoever looks."""
        self.samples = [
            Sample(
                line.flow, time.time(), max(0, now - self._begun) / 1e9, (account := line.account).counts,
                (*account.times.percentiles(PERCENTILES), account.times.highest), account.times.count,
                account.times.total, tuple(account.times.fixed), _open_ms(account, now), account.longest_ms, line.gone,
                account.window.reason if account.window else "",
            )
            for line in self._lines
        ]  # fmt: skip


def _open_ms(account: Account, now: int) -> float:
    return account.window.milliseconds(now) if account.window else 0.0
