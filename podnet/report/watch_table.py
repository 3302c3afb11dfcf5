"""The table of a watch on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.report.watch import event_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from podnet.probe.watch.report import Event, Sample

__all__ = ["live_table"]

_AROUND = 6  # lines of a terminal that are not rows of the table


def live_table(samples: Sequence[Sample], events: Iterable[Event], height: int, title: str) -> RenderableType:
    """Rows of flows, those with losses first where not all fit into ``height`` lines, and the last events below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    last = [Text(event_line(event), no_wrap=True, overflow="ellipsis") for event in events]
    room = max(1, height - _AROUND - len(last))
    shown = samples
    if len(samples) > room:
        bad = sorted(range(len(samples)), key=lambda at: (-samples[at].open_ms, -samples[at].counts.lost, at))
        shown = [samples[at] for at in sorted(bad[: room - 1])]
        last.insert(0, Text(f"... and {len(samples) - len(shown)} flows more"))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("flow", no_wrap=True)
    # 80 columns hold all but what is rare: that has columns only when there is any.
    rare = any(each.counts.late or each.counts.reordered or each.counts.duplicates for each in samples)
    names = ("late", "reord.", "dup.") if rare else ()
    for name in ("sent", "recv.", "lost", "loss", "worst", *names, "p50", "p99", "max ms"):
        table.add_column(name, justify="right")
    for sample in shown:
        counts, ok = sample.counts, sample.answers > 0
        times = [f"{at / 1e6:.3f}" if ok else "-" for at in sample.times]
        state = f"{sample.open_ms:.0f} ms" if sample.open_ms else "gone" if sample.gone else "-"
        more = [str(each) for each in (counts.late, counts.reordered, counts.duplicates)] if rare else []
        table.add_row(
            str(sample.flow), str(counts.sent), str(counts.received), str(counts.lost), state,
            f"{sample.longest_ms:.0f} ms" if sample.longest_ms else "-", *more, times[0], times[2], times[3],
            style="red" if sample.open_ms or sample.gone else "yellow" if counts.lost else None,
        )  # fmt: skip
    return Group(table, *last)
