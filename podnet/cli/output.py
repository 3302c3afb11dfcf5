"""What the commands share: the -o option, JSON and plain tables on standard output, the kernel of a lab."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from podnet.kernel.diff import Change
    from podnet.kernel.linux import LinuxKernel
    from podnet.kernel.process import Supervisor

__all__ = ["changes_text", "lab_kernel", "output_option", "print_json", "progress", "table"]


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option -o/--output of every command that has something to read."""
    option = click.option(
        "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="What to print.", show_default=True
    )
    return option(command)


def print_json(value: Any) -> None:
    """Print JSON and nothing else."""
    click.echo(json.dumps(value, indent=2))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as kubectl prints them. (rich's tables cost as much time as the whole of ``status``.)"""
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "recreate": ("±", "yellow"), "delete": ("-", "red")}


def changes_text(changes: Sequence[Change]) -> str:
    """One line a change: what, where and why; coloured where a terminal shows it."""
    lines = []
    for change in changes:
        sign, color = _SIGNS[change.action]
        lines.append(click.style(f"{sign} {change.object}", fg=color) + f": {change.reason}")
    return "\n".join(lines)


@contextmanager
def lab_kernel(name: str) -> Iterator[tuple[LinuxKernel, Supervisor]]:
    """The machine's kernel and the supervisor of one lab's containers."""
    from podnet.kernel.bird import Birds
    from podnet.kernel.linux import LinuxKernel
    from podnet.kernel.process import Supervisor
    from podnet.lab.attacher import Attacher
    from podnet.lab.record import daemons_directory, directory

    supervisor = Supervisor(str(directory(name)))
    kernel = LinuxKernel(
        supervisor, Attacher(directory(name)), f"{directory(name)}/keys", Birds(daemons_directory(name))
    )
    try:
        yield kernel, supervisor
    finally:
        kernel.close()


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error, where that is a terminal and the work takes more than a moment."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
