"""What a watch tells, as JSON values and as lines of text."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from podnet.probe.watch.report import PERCENTILES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.probe.watch.account import Counts, Window
    from podnet.probe.watch.flow import Flow
    from podnet.probe.watch.report import Event, Interval, Sample

__all__ = [
    "event_json",
    "event_line",
    "interval_json",
    "interval_line",
    "summary_json",
    "summary_lines",
    "times_text",
    "total_line",
]

_NAMES = (*(f"p{share * 100:g}" for share in PERCENTILES), "max")


def interval_json(interval: Interval) -> dict[str, Any]:
    """One flow in one interval, as ``podnet watch -o json`` prints it; every value is of a JSON type."""
    return {
        **_head("interval", interval.flow, interval.at),
        "seconds": round(interval.seconds, 3),
        **_counts(interval.counts, interval.in_flight),
        "rtt_ms": _times(interval.times, interval.answers),
        "loss_window_ms": round(interval.open_ms, 3) if interval.open_ms else None,
        "gone": interval.gone or None,
    }


def event_json(event: Event) -> dict[str, Any]:
    """What happened to a flow."""
    found = {**_head("event", event.flow, event.at), "event": event.kind, "text": event.text or None}
    return found if event.window is None else found | {"window": _window(event.window, event.milliseconds)}


def summary_json(sample: Sample) -> dict[str, Any]:
    """One flow from the beginning to the end."""
    return {
        **_head("summary", sample.flow, sample.at),
        "seconds": round(sample.seconds, 3),
        **_counts(sample.counts, sample.counts.in_flight),
        "rtt_ms": _times(sample.times, sample.answers),
        "loss_windows": sample.counts.windows,
        "longest_loss_ms": round(max(sample.longest_ms, sample.open_ms), 3) if sample.counts.windows else None,
        "loss_window_ms": round(sample.open_ms, 3) if sample.open_ms else None,
        "gone": sample.gone or None,
    }


def _head(kind: str, flow: Flow, at: float) -> dict[str, Any]:
    return {
        "type": kind,
        "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "from": flow.source,
        "to": flow.target,
        "protocol": flow.protocol,
        "family": flow.family,
    }


def _counts(counts: Counts, in_flight: int) -> dict[str, Any]:
    return {
        "sent": counts.sent,
        "received": counts.received,
        "lost": counts.lost,
        "in_flight": in_flight,
        "late": counts.late,
        "reordered": counts.reordered,
        "duplicates": counts.duplicates,
        "unsent": counts.unsent,
        "elsewhere": counts.elsewhere,
        "request": {
            "arrived": counts.arrived,
            "lost": counts.request_lost,
            "reordered": counts.request_reordered,
            "duplicates": counts.request_duplicates,
        },
        "reply": {"lost": counts.reply_lost},
        "skipped": counts.skipped,
    }


def _times(times: Sequence[int], answers: int) -> dict[str, float] | None:
    return {name: round(at / 1e6, 4) for name, at in zip(_NAMES, times, strict=True)} if answers else None


def _window(window: Window, milliseconds: float) -> dict[str, Any]:
    return {
        "ms": round(milliseconds, 3),
        "packets": window.packets,
        "first": window.first,
        "direction": window.direction,
        "request_lost": window.request_lost,
        "reply_lost": window.reply_lost,
        "unsent": window.unsent,
        "elsewhere": window.elsewhere,
    }


def times_text(times: Sequence[int], answers: int) -> str:
    """Percentiles in milliseconds, as ``p50/p90/p99/max 0.041/0.06/0.081/0.2 ms``; empty without answers."""
    if not answers:
        return ""
    return f"{'/'.join(_NAMES)} {'/'.join(f'{at / 1e6:.3f}' for at in times)} ms"


def interval_line(interval: Interval) -> str:
    """One flow in one interval."""
    counts, parts = interval.counts, [_numbers(interval.counts)]
    if interval.open_ms:
        parts.append(f"losing for {interval.open_ms:.0f} ms")
    if interval.gone:
        parts.append(f"gone ({interval.gone})")
    if counts.received:
        parts.append(times_text(interval.times, interval.answers))
    return f"{_clock(interval.at)} {interval.flow}: {', '.join(parts)}"


def total_line(intervals: Sequence[Interval]) -> str:
    """All flows in one interval."""
    columns = zip(*(each.counts for each in intervals), strict=True)
    counts = type(intervals[0].counts)(*(sum(column) for column in columns))
    return f"{_clock(intervals[0].at)} all {len(intervals)} flows: {_numbers(counts)}"


def event_line(event: Event) -> str:
    """What happened to a flow."""
    why = f" ({event.text})" if event.text else ""
    window = event.window
    if window is None:
        return f"{_clock(event.at)} {event.flow}: {event.kind}{why}"
    if event.kind == "loss-opened":
        return f"{_clock(event.at)} {event.flow}: loss begins, {event.milliseconds:.0f} ms without an answer{why}"
    ways = {
        "never left": window.unsent, "never arrived": window.request_lost,
        "arrived, no reply came back": window.reply_lost, "answered by another host": window.elsewhere,
    }  # fmt: skip
    how = ", ".join(f"{number} {way}" for way, number in ways.items() if number)
    ends = (
        f"loss of {event.milliseconds:.1f} ms ends, {window.packets} packet{'' if window.packets == 1 else 's'}: {how}"
    )
    return f"{_clock(event.at)} {event.flow}: {ends}{why}"


def summary_lines(samples: Sequence[Sample]) -> list[str]:
    """All flows from the beginning to the end, two lines each; the second has times and loss windows."""
    lines = []
    for sample in samples:
        counts = sample.counts
        rate = f", {counts.sent / sample.seconds:.1f} packets/s" if sample.seconds else ""
        lines.append(f"{sample.flow}: {_numbers(counts, share=True)}, {sample.seconds:.1f} s{rate}")
        parts = [times_text(sample.times, sample.answers)]
        if counts.windows:
            longest = max(sample.longest_ms, sample.open_ms)
            many = "s" if counts.windows > 1 else ""
            still = f", {'one ' if many else ''}still open" if sample.open_ms else ""
            parts.append(f"{counts.windows} loss window{many}, the longest {longest:.1f} ms{still}")
        if counts.lost:
            ways = {
                "never left": counts.unsent, "requests lost": counts.request_lost, "replies lost": counts.reply_lost,
                "answered by another host": counts.elsewhere,
            }  # fmt: skip
            parts.append(", ".join(f"{number} {way}" for way, number in ways.items() if number))
        second = "; ".join(part for part in parts if part)
        lines += [f"    {second}"] if second else []
    return lines


def _numbers(counts: Counts, *, share: bool = False) -> str:
    further = {
        "late": counts.late, "reordered": counts.reordered, "duplicates": counts.duplicates,
        "not sent (behind schedule)": counts.skipped,
    }  # fmt: skip
    more = "".join(f", {number} {name}" for name, number in further.items() if number)
    part = f" ({100 * counts.lost / max(1, counts.sent):.2g}%)" if share else ""
    return f"{counts.sent} sent, {counts.received} received, {counts.lost} lost{part}{more}"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03d}"
