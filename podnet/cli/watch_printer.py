"""What podnet watch prints: JSON lines, lines for people, or a table that moves on a terminal."""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podnet.probe.watch.report import Event
    from podnet.probe.watch.watcher import Watcher

__all__ = ["Printer", "printer_of"]

_REFRESH = 0.5  # seconds
_EVENTS = 6
_LISTED = 12  # flows that each have a line of their own in every interval


def printer_of(output: str, watcher: Watcher, title: str) -> Printer:
    """The printer for ``text`` or ``json``; ``title`` stands above the table of a terminal."""
    if output == "json":
        return _Json(watcher)
    return _Table(watcher, title) if sys.stdout.isatty() else _Lines(watcher)


class Printer(ABC):
    """Prints what there is since it was last asked; as a context, for as long as the watch runs."""

    def __init__(self, watcher: Watcher) -> None:
        # Imported before the first probe is due: it would be late for it.
        from podnet.report import watch

        self._watcher, self._report = watcher, watch

    def __enter__(self) -> None:  # noqa: B027 - only the table has something to do
        pass

    def __exit__(self, *_: object) -> None:  # noqa: B027
        pass

    @abstractmethod
    def show(self) -> None:
        """Print what is new."""

    @abstractmethod
    def end(self) -> None:
        """Print the rest, and the summary."""


class _Json(Printer):
    def show(self) -> None:
        watcher = self._watcher
        while watcher.events:
            self._print(self._report.event_json(watcher.events.popleft()))
        while watcher.intervals:
            for interval in watcher.intervals.popleft():
                self._print(self._report.interval_json(interval))
        sys.stdout.flush()

    def end(self) -> None:
        self.show()
        for sample in self._watcher.samples:
            self._print(self._report.summary_json(sample))

    def _print(self, value: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(value, separators=(",", ":")) + "\n")


class _Lines(Printer):
    def show(self) -> None:
        watcher = self._watcher
        while watcher.events:
            event = watcher.events.popleft()
            if event.kind != "behind":  # the interval's line says how many
                click.echo(self._report.event_line(event))
        while watcher.intervals:
            told = watcher.intervals.popleft()
            plain = len(told) > _LISTED
            for interval in told:
                if not plain or interval.counts.lost or interval.gone or interval.open_ms:
                    click.echo(self._report.interval_line(interval))
            if plain:
                click.echo(self._report.total_line(told))

    def end(self) -> None:
        self.show()
        click.echo("\n" + "\n".join(self._report.summary_lines(self._watcher.samples)))


class _Table(_Lines):
    def __init__(self, watcher: Watcher, title: str) -> None:
        from rich.live import Live

        from podnet.report.watch_table import live_table

        super().__init__(watcher)
        self._live, self._table, self._title = Live(auto_refresh=False, transient=True), live_table, title
        self._last: deque[Event] = deque(maxlen=_EVENTS)
        self._drawn = 0.0

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self) -> None:
        watcher = self._watcher
        watcher.intervals.clear()
        while watcher.events:
            self._last.append(watcher.events.popleft())
        if time.monotonic() - self._drawn >= _REFRESH and watcher.samples:
            self._drawn = time.monotonic()
            height = self._live.console.height
            self._live.update(self._table(watcher.samples, self._last, height, self._title), refresh=True)

    def end(self) -> None:
        watcher = self._watcher
        self._last.extend(watcher.events)
        for event in self._last:
            click.echo(self._report.event_line(event))
        click.echo("\n".join(self._report.summary_lines(watcher.samples)))
