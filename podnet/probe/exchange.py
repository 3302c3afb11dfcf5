"""The sending and watching of one run."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.probe.dialogue import Dialogue
from podnet.probe.echo import Echo
from podnet.probe.intake import Intake, Reader
from podnet.probe.limits import neighbour_overflows
from podnet.probe.loss import Losses
from podnet.probe.mmsg import Outbox
from podnet.probe.proof import Proof
from podnet.probe.solicit import Solicitation
from podnet.probe.vantage import undecided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from podnet.probe.capture import Capture
    from podnet.probe.session import Session, Unit
    from podnet.probe.stamp import Run

__all__ = ["Exchange"]

_BATCH = 128  # probes by one system call
_EXACT = 1024  # up to so many checks, each probe is sent by a call of its own, whose time is known
_BETWEEN_READINGS = 30_000  # probes; at all namespaces together they then occupy 25 MB of buffers
_BETWEEN_TAPPINGS = 1_500  # the same where every device of the way sees each of them, and its answer
_MOST_THREADS = 8  # the interpreter's lock is free for 9/10 of the time
_LEAST_PER_THREAD = 500
_ROUNDS = 3
_LEAST_QUIET = 0.05  # seconds; a path answers within microseconds here, a loaded machine within tens of milliseconds
_FACTOR = 20
_SAMPLED = 10_000  # checks whose times are looked at

_MOST_DETECTION = 3.0  # seconds; RFC 4862: up to one of delay, and one for the answer

# A kernel sends one ICMP error per second to one address after a burst of six (net.ipv4.icmp_ratelimit).
_REFILL = 1.05  # seconds
_REFILLS = 12


class Exchange:
    """The probes of a session on their way; the evidence is in the session's ledger."""

    def __init__(
        self,
        session: Session,
        this: Run,
        timeout: float,
        progress: Callable[[int], None] | None = None,
        attempts: int = _ROUNDS,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        self._attempts, self._meanwhile = attempts, meanwhile
        self._losses: Losses | None = None
        self._last_parts: list[Sequence[int]] = []
        self._last_news = 0.0
        self._rate_limited = False
        self._overflows = neighbour_overflows()
        self._session, self._run, self._timeout, self._progress = session, this, timeout, progress
        self._ledger = ledger = session.ledger
        self._total = len(session.checks)
        self._told = -1
        self._intake = Intake(ledger, this, session.homes, session.source, session.target)
        self._reader = self._new_reader()
        self._stop = threading.Event()
        self._exact = self._total <= _EXACT
        self._parts: list[Sequence[int]] = []
        self._poll = select.epoll()
        self._captures: dict[int, tuple[Capture, int]] = {}
        self._echoes: set[int] = set()
        for here, vantage in enumerate(session.vantages):
            for capture in vantage.captures:
                self._captures[capture.fileno()] = (capture, here)
            self._echoes.update(echo.fileno() for echo in vantage.echoes)
        self._taps = {tap.fileno(): tap for tap in session.taps}
        self.records = bytearray()
        self._between = _BETWEEN_READINGS if not self._taps else _BETWEEN_TAPPINGS
        self._responders = {each.fileno(): each for vantage in session.vantages for each in vantage.responders}
        for number in (*self._captures, *self._echoes, *self._taps, *self._responders):
            self._poll.register(number, select.EPOLLIN)
        self._watched = len(self._captures) + len(self._echoes) + len(self._taps) + len(self._responders)

    def close(self) -> None:
        self._poll.close()

    def run(self) -> None:
        """Have the conversations, then send the packets, and see what all of that proves."""
        if self._session.talks:
            with Dialogue(self._session, self._run, self._timeout) as dialogue:
                dialogue.run()
            self._report()
        if self._session.asked:
            with Solicitation(self._session, self._run, self._timeout) as solicitation:
                solicitation.run()
            self._report()
        self._rounds()
        Proof(self._session, self._total, self._ask_once, overflowed=self._overflowed()).judge()
        self._report()

    def _rounds(self) -> None:
        """All rounds, until every probe is settled or has been silent in each of them."""
        held_back: int | None = 0
        for number in range(self._attempts):
            silent = self._silent()
            if not silent:
                break
            last = number == self._attempts - 1
            if last:
                self._await_addresses(silent)
            before = self._suppressed() if last else 0
            if last and self._attempts > 1 and self._surprising():
                self._losses = self._session.losses = Losses()
            self._send(silent)
            self._last_news = time.monotonic()
            self._settle(self._quiet())
            if last:
                self._be_patient()
                held_back = self._grown(before)
        else:
            if self._attempts > 1:
                self._refill(held_back)

    def _be_patient(self) -> None:
        """Silence that was not expected is given the whole time before it is called a loss, unless that is proven."""
        begun = self._last_news
        losses, self._losses = self._losses, None
        if not self._surprising() or self._all_lost(losses):
            return
        if self._meanwhile is not None:
            self._meanwhile()
        self._settle(self._timeout, begun=begun)

    def _all_lost(self, losses: Losses | None) -> bool:
        """Whether of all that is silent nothing is on its way: it never left, or the kernel says that it dropped it."""
        if losses is None:
            return False
        state, attempts, parts = self._ledger.state, self._ledger.attempts, self._last_parts
        proven = losses.proven()
        lost = {index for part in parts if part[0] in proven for index in part}
        return all(index in lost or not attempts[index] for part in parts for index in part if not state[index])

    def remark(self) -> str:
        """What else than the network under test may have kept probes silent; empty if nothing is known."""
        if not self._rate_limited:
            return ""
        return "ICMP errors were held back by a rate limit (net.ipv4.icmp_ratelimit, ipv6 likewise)"

    def _overflowed(self) -> bool:
        overflows = neighbour_overflows()
        return overflows is not None and self._overflows is not None and overflows > self._overflows

    def _ask_once(self, units: list[Unit], heard: Callable[[], bool]) -> None:
        """Send these besides, and read until all that is awaited was heard, or the time of silence is over."""
        self._worker(iter([(unit, unit.indexes) for unit in units]), self._reader, progress=False)
        until = time.monotonic() + self._timeout
        while not heard() and (left := until - time.monotonic()) > 0:
            self._read(left, self._reader)

    # -- rounds ---------------------------------------------------------------------------------------------------

    def _await_addresses(self, silent: list[tuple[Unit, Sequence[int]]]) -> None:
        """Give hosts on the way the second or two that IPv6 takes to find duplicates, before the last round."""
        if all(unit.template.version == 4 for unit, _ in silent):
            return
        waiting = {target.netns for target in self._session.lab.targets}
        until = time.monotonic() + _MOST_DETECTION
        while waiting and time.monotonic() < until:
            waiting = {netns for netns in waiting if _undecided(netns)}
            if waiting:
                self._settle(0.05, whole=True)

    def _refill(self, held_back: int | None) -> None:
        """Give rate limits time: a kernel that held back ICMP errors in the last round made refusals look like drops.

        Kernels before 6.3 do not count what they hold back; there only an expected refusal is waited for.
        """
        checks = self._session.checks
        for _ in range(_REFILLS):
            silent = self._silent()
            if not silent or held_back == 0:
                return
            expected = (checks.kinds[checks.kind[index]].verdict for _, indexes in silent for index in indexes)
            if held_back is None and not any(verdict == "refuse" for verdict in expected):
                return
            self._settle(_REFILL, whole=True)
            before = self._suppressed()
            self._send(self._silent())
            self._settle(self._quiet())
            held_back = self._grown(before)
        self._rate_limited = bool(held_back)

    def _silent(self) -> list[tuple[Unit, Sequence[int]]]:
        """What can be sent and has no answer yet."""
        state = self._ledger.state
        units = self._session.units
        if not any(state):
            return [(unit, unit.indexes) for unit in units]
        found = ((unit, [index for index in unit.indexes if not state[index]]) for unit in units)
        return [(unit, indexes) for unit, indexes in found if indexes]

    def _surprising(self) -> bool:
        checks = self._session.checks
        return any(
            checks.kinds[checks.kind[index]].verdict != "drop" for _, indexes in self._silent() for index in indexes
        )

    # -- out ------------------------------------------------------------------------------------------------------

    def _send(self, what: list[tuple[Unit, Sequence[int]]]) -> None:
        """One probe for each of these checks, by several threads."""
        size = 1 if self._exact else _BATCH
        parts = [
            (unit, indexes[at : at + size]) for unit, indexes in what for at in range(0, len(indexes), size)
        ]  # fmt: skip
        self._last_parts = [part for _, part in parts]
        self._parts += self._last_parts
        share = sum(len(indexes) for _, indexes in what) // _LEAST_PER_THREAD
        # One thread per processor; what is to be timed exactly is sent by one, undisturbed by the others.
        count = 1 if self._exact else max(1, min(len(os.sched_getaffinity(0)), _MOST_THREADS, share))
        queue = iter(parts)
        problems: list[BaseException] = []
        threads = [threading.Thread(target=self._work, args=(queue, problems)) for _ in range(count - 1)]
        for thread in threads:
            thread.start()
        try:
            self._worker(queue, self._reader, progress=True)
        except BaseException:
            self._stop.set()
            raise
        finally:
            for thread in threads:
                thread.join()
        if problems:
            raise problems[0]

    def _new_reader(self) -> Reader:
        return Reader(Echo(self._ledger, self._run))

    def _work(self, queue: Iterator[tuple[Unit, Sequence[int]]], problems: list[BaseException]) -> None:
        try:
            self._worker(queue, self._new_reader(), progress=False)
        except BaseException as problem:  # noqa: BLE001 - it is raised again, by the thread that waits for this one
            self._stop.set()
            problems.append(problem)

    def _worker(self, queue: Iterator[tuple[Unit, Sequence[int]]], reader: Reader, *, progress: bool) -> None:
        targets = self._session.target
        outboxes: dict[tuple[int, int], Outbox] = {}
        unread = 0
        for unit, part in queue:
            if self._stop.is_set():
                return
            template = unit.template
            key = (template.size, template.name_size)
            outbox = outboxes.get(key)
            if outbox is None:
                outbox = outboxes[key] = Outbox(_BATCH, *key)
            template.fill(outbox.packets, outbox.names, unit.origin, part, targets, unit.aims, unit.ports)
            now = time.time_ns()
            if self._losses is None:
                refused = outbox.send(unit.raw, len(part))
            else:
                self._losses.begin(template.version, part[0])
                refused = outbox.send(unit.raw, len(part))
                self._losses.end(template.version, part[0], len(part) - len(refused))
            self._sent(part, now, refused)
            for capture in self._session.vantages[unit.here].captures:
                self._intake.drain(capture, unit.here, reader)
            unread += len(part)
            if unread > self._between:
                self._read(0, reader)
                unread = 0
            if progress:
                self._report()

    def _sent(self, part: Sequence[int], now: int, refused: dict[int, int]) -> None:
        ledger = self._ledger
        sent, attempts, send_errno = ledger.sent, ledger.attempts, ledger.send_errno
        if not refused:
            for index in part:
                sent[index] = now
                attempts[index] += 1
                send_errno[index] = 0
            return
        for at, index in enumerate(part):
            if at not in refused:
                sent[index] = now
                attempts[index] += 1
                send_errno[index] = 0
            elif not attempts[index]:
                send_errno[index] = refused[at] or errno.EIO

    # -- in -------------------------------------------------------------------------------------------------------

    def _quiet(self) -> float:
        """Seconds without any news after which nothing more is expected."""
        self._refine()
        ledger = self._ledger
        if not ledger.state.count(0, 0, self._total):
            return 0.0
        step = max(1, self._total // _SAMPLED)
        columns = zip(
            range(0, len(ledger), step), ledger.answered[::step], ledger.sent[::step], ledger.arrived[::step],
            ledger.attempts[::step], strict=True,
        )  # fmt: skip
        whole, back = [], []
        for index, answered, sent, arrived, attempts in columns:
            if answered and arrived and attempts == 1:
                # What a UDP probe waited for our own listener is no time on the way.
                left = ledger.echoed.get(index, arrived)
                back.append(answered - left)
                whole.append(arrived - sent + answered - left)
        if not whole:
            return min(self._timeout, _LEAST_QUIET)
        # The way back is known exactly. Of a batch, times of sending are known from below only, and behind blocked
        # probes badly: there the median has to do.
        slow = max(2 * sorted(back)[len(back) * 99 // 100], sorted(whole)[len(whole) // 2]) / 1e9
        return min(self._timeout, max(_LEAST_QUIET, _FACTOR * slow))

    def _refine(self) -> None:
        """Bound the times of sending within a batch from below.

        The kernel takes the next packet of a batch when it is done with the one before, which on a machine of
        namespaces means: when that one has arrived, and mostly when its answer has come back.
        """
        sent, arrived, answered = self._ledger.sent, self._ledger.arrived, self._ledger.answered
        attempts = self._ledger.attempts
        for part in self._parts:
            least = 0
            for index in part:
                came = arrived[index]
                if attempts[index] == 1 and least > sent[index] and least <= came:
                    sent[index] = least
                back = answered[index]
                least = max(least, came, back if came and back - came < 100_000 else 0)
        self._parts.clear()

    def _settle(self, quiet: float, *, whole: bool = False, begun: float | None = None) -> None:
        """Read until nothing is open, or nothing came for ``quiet`` seconds; ``whole``: for that time anyway.

        The time counts from ``begun``, without it from now.
        """
        until = (time.monotonic() if begun is None else begun) + quiet
        if self._read(0, self._reader) and not whole:
            until = time.monotonic() + quiet
        while (left := until - time.monotonic()) > 0:
            if not self._ledger.state.count(0, 0, self._total):
                break
            if self._read(left, self._reader) and not whole:
                until = time.monotonic() + quiet
            self._report()
        # The last answer may have been read before the request that it answers, from another capture.
        self._read(0, self._reader)
        self._report()

    def _read(self, wait: float, reader: Reader) -> bool:
        """Read all that waits, at most ``wait`` seconds from now; whether there was anything."""
        news = False
        for number, _ in self._poll.poll(wait, max(1, self._watched)):
            watched = self._captures.get(number)
            if watched is not None:
                news |= self._intake.drain(*watched, reader)
            elif number in self._taps:
                news |= self._taps[number].drain(self._ledger, self.records, reader.taps)
            elif number in self._responders:
                self._ledger.echo_errno.update(self._responders[number].answer())
                news = True
            else:
                reader.echo.answer(number)
                news = True
        if news:
            self._last_news = time.monotonic()
        return news

    def _report(self) -> None:
        if self._progress is None:
            return
        done = self._total - self._ledger.state.count(0, 0, self._total)
        if done > self._told:
            self._told = done
            self._progress(done)

    def _suppressed(self) -> int | None:
        counts = [vantage.suppressed() for vantage in self._session.vantages]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def _grown(self, before: int | None) -> int | None:
        now = self._suppressed()
        return None if now is None or before is None else now - before


def _undecided(netns: str) -> bool:
    try:
        return undecided(netns)
    except KernelError:
        return False  # a namespace that is gone has been told of already
