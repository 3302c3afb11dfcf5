"""What a watch tells while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from podnet.probe.watch.account import Counts, Window
    from podnet.probe.watch.flow import Flow

__all__ = ["PERCENTILES", "Event", "Interval", "Sample"]

PERCENTILES = (0.5, 0.9, 0.99)


class Sample(NamedTuple):
    """One flow so far.

    ``at`` is seconds since the epoch. ``times`` are the 50th, 90th and 99th percentile and the maximum of the time
    there and back in nanoseconds, of ``answers`` answers; ``total`` is their sum. ``fixed`` counts them by
    ``histogram.BOUNDS``. ``open_ms`` is the age of the loss window that is open, 0 for none; ``gone`` says which end
    has no namespace now.
    """

    flow: Flow
    at: float
    seconds: float
    counts: Counts
    times: tuple[int, ...]
    answers: int
    total: int
    fixed: tuple[int, ...]
    open_ms: float
    longest_ms: float
    gone: str
    reason: str


class Interval(NamedTuple):
    """One flow within one interval, of ``seconds``; ``counts`` and ``times`` are of what happened in it."""

    flow: Flow
    at: float
    seconds: float
    counts: Counts
    times: tuple[int, ...]
    answers: int
    in_flight: int
    open_ms: float
    gone: str


class Event(NamedTuple):
    """Something that happened to a flow.

    ``kind`` is ``loss-opened``, ``loss-closed`` (with ``window``, and its ``milliseconds``), ``gone``, ``back``,
    ``changed`` (an end has other addresses), ``behind`` (podnet could not keep its schedule) or ``overrun`` (it could
    not hear all that came).
    """

    kind: str
    flow: Flow
    at: float
    text: str = ""
    window: Window | None = None
    milliseconds: float = 0.0
