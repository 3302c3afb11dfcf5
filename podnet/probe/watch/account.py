"""What became of one flow's probes: events in, numbers out. Pure; times are nanoseconds of one clock that never steps.

A probe is received when its answer came back in time; its fate is sealed in the order of sending, so that a loss
window is what lies between two probes that were received. Whatever was sent is received, lost, or in flight.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from typing import NamedTuple

from podnet.probe.watch.histogram import Histogram

__all__ = ["Account", "Change", "Counts", "Window"]

# What a slot's probe is; a lost one's state says how it was lost.
_PENDING, _RECEIVED, _UNSENT, _REQUEST_LOST, _REPLY_LOST, _ELSEWHERE = range(1, 7)
_WAYS = {_UNSENT: "unsent", _REQUEST_LOST: "request_lost", _REPLY_LOST: "reply_lost", _ELSEWHERE: "elsewhere"}


class Counts(NamedTuple):
    """Numbers of packets.

    ``lost`` is the sum of ``unsent`` (the sender's kernel refused), ``request_lost`` (never arrived), ``reply_lost``
    (arrived, no answer came back in time) and ``elsewhere`` (answered, but the receiver never saw it: another host
    has its address). ``late`` are answers to what had been given up: these stay lost. ``reordered`` and
    ``duplicates`` are of the answers at the sender, ``request_...`` of the requests at the receiver (RFC 4737: smaller
    than the next expected sequence number; only a first copy counts). ``skipped`` should have been sent, but podnet was
    behind its schedule.
    """

    sent: int = 0
    received: int = 0
    lost: int = 0
    arrived: int = 0
    unsent: int = 0
    request_lost: int = 0
    reply_lost: int = 0
    elsewhere: int = 0
    late: int = 0
    reordered: int = 0
    duplicates: int = 0
    request_reordered: int = 0
    request_duplicates: int = 0
    skipped: int = 0
    windows: int = 0

    @property
    def in_flight(self) -> int:
        """What is neither received nor lost yet. Of a difference of counts: by how much that has changed."""
        return self.sent - self.received - self.lost

    def since(self, before: Counts) -> Counts:
        """What was counted after ``before``."""
        return Counts(*(now - then for now, then in zip(self, before, strict=True)))


@dataclass(slots=True)
class Window:
    """Consecutive losses. ``since`` is when the last answer before came in, ``until`` the first one after.

    Where nothing came before, ``since`` is when the first of the lost was sent; ``until`` is 0 while it is open.
    """

    since: int
    first: int  # sequence number
    until: int = 0
    packets: int = 0
    unsent: int = 0
    request_lost: int = 0
    reply_lost: int = 0
    elsewhere: int = 0
    reason: str = ""  # what a kernel or an ICMP error said

    def milliseconds(self, now: int = 0) -> float:
        """How long it was, or is at ``now``."""
        return max(0, (self.until or now) - self.since) / 1e6

    @property
    def direction(self) -> str:
        """Which way lost packets: ``request``, ``reply`` or ``both``."""
        there, back = self.unsent + self.request_lost, self.reply_lost
        return "reply" if back and not there else "both" if back else "request"


class Change(NamedTuple):
    """A loss window that opened or closed."""

    opened: bool
    window: Window


class Account:
    """One flow. ``timeout`` is in nanoseconds; ``size``, a power of two, is how many probes back answers are known.

    Sequence numbers count from 0 and are given by ``send``.
    """

    def __init__(self, timeout: int, size: int) -> None:
        self._timeout, self._mask = timeout, size - 1
        self._sent, self._arrived, self._echoed, self._answered = (array("q", bytes(8 * size)) for _ in range(4))
        self._state = bytearray(size)
        self._next = self._cursor = 0
        self._expected = self._expected_there = 0
        self._last = 0
        self._counts = dict.fromkeys(Counts._fields, 0)
        self._reason, self._reason_of = "", 0
        self._changes: list[Change] = []
        self.window: Window | None = None
        self.longest_ms = 0.0
        self.times, self.recent = Histogram(), Histogram()

    @property
    def counts(self) -> Counts:
        """All numbers so far."""
        return Counts(**self._counts)

    @property
    def in_flight(self) -> int:
        """How many probes are neither received nor lost yet."""
        counts = self._counts
        return counts["sent"] - counts["received"] - counts["lost"]

    def fresh(self) -> Histogram:
        """The times since this was last asked."""
        recent, self.recent = self.recent, Histogram()
        return recent

    def send(self, at: int) -> int:
        """A probe is being sent; its sequence number."""
        number = self._next
        if number - self._cursor > self._mask:  # nobody looked for long: what is that old is lost
            self._lose(self._cursor & self._mask)
            self._step()
        place = number & self._mask
        self._sent[place], self._state[place] = at, _PENDING
        self._arrived[place] = self._echoed[place] = self._answered[place] = 0
        self._next += 1
        self._counts["sent"] += 1
        return number

    def locate(self, low: int, mask: int) -> int:
        """The sequence number of which a packet carries the bits in ``mask``; -1 for one too old to be known."""
        number = self._next - 1 - ((self._next - 1 - low) & mask)
        return number if number >= 0 and self._next - number <= self._mask + 1 else -1

    def refuse(self, number: int, reason: str) -> None:
        """The sender's kernel did not take it."""
        self.blame(number, reason)
        if self._state[number & self._mask] == _PENDING:
            self._lose(number & self._mask, _UNSENT)

    def blame(self, number: int, reason: str) -> None:
        """A kernel or an ICMP error said why a probe is lost."""
        self._reason, self._reason_of = reason, number

    def skip(self, count: int) -> None:
        """So many probes were due, and could not be sent in time."""
        self._counts["skipped"] += count

    def arrive(self, number: int, at: int) -> None:
        """The receiver's namespace saw a request."""
        place = number & self._mask
        if self._arrived[place]:
            self._counts["request_duplicates"] += 1
            return
        self._arrived[place] = at
        self._counts["arrived"] += 1
        if number < self._expected_there:
            self._counts["request_reordered"] += 1
        else:
            self._expected_there = number + 1
        if self._answered[place] and self._state[place] == _PENDING:
            self._receive(place)

    def echo(self, number: int, at: int) -> None:
        """podnet's own listener answers a request now: what it waited for that is no time on the way."""
        if not self._echoed[number & self._mask]:
            self._echoed[number & self._mask] = at

    def answer(self, number: int, at: int) -> None:
        """The sender's namespace saw an answer."""
        place = number & self._mask
        if self._answered[place]:
            self._counts["duplicates"] += 1
            return
        if self._state[place] == _PENDING and at - self._sent[place] > self._timeout:
            self._lose(place)
        self._answered[place] = at
        if number < self._expected:
            self._counts["reordered"] += 1
        else:
            self._expected = number + 1
        if self._state[place] in _WAYS:
            self._counts["late"] += 1
        elif self._arrived[place]:
            self._receive(place)

    def advance(self, now: int) -> list[Change]:
        """Give up what is older than the timeout, and seal fates in order. All that came before ``now`` was told."""
        while self._cursor < self._next:
            place = self._cursor & self._mask
            if self._state[place] == _PENDING:
                if now - self._sent[place] <= self._timeout:
                    break
                self._lose(place)
            self._step()
        changes, self._changes = self._changes, []
        return changes

    def _receive(self, place: int) -> None:
        self._state[place] = _RECEIVED
        self._counts["received"] += 1
        inside = max(0, self._echoed[place] - self._arrived[place]) if self._echoed[place] else 0
        took = max(0, self._answered[place] - self._sent[place] - inside)
        self.times.add(took)
        self.recent.add(took)

    def _lose(self, place: int, how: int = 0) -> None:
        """Call a probe lost, if it is not settled yet."""
        if self._state[place] != _PENDING:
            return
        if not how:
            how = _REPLY_LOST if self._arrived[place] else _ELSEWHERE if self._answered[place] else _REQUEST_LOST
        self._state[place] = how
        self._counts["lost"] += 1
        self._counts[_WAYS[how]] += 1

    def _step(self) -> None:
        """One more probe's fate is sealed: what that means for the loss window."""
        number, window = self._cursor, self.window
        place = number & self._mask
        self._cursor += 1
        way = _WAYS.get(self._state[place])
        if way is None:
            self._last = self._answered[place]
            if number > self._reason_of:
                self._reason = ""
            if window is not None:
                window.until = self._last
                self.longest_ms = max(self.longest_ms, window.milliseconds())
                self._changes.append(Change(opened=False, window=window))
                self.window = None
            return
        new = window is None
        if window is None:
            window = self.window = Window(self._last or self._sent[place], number)
            self._counts["windows"] += 1
        window.packets += 1
        setattr(window, way, getattr(window, way) + 1)
        window.reason = self._reason or window.reason
        if new:
            self._changes.append(Change(opened=True, window=replace(window)))
