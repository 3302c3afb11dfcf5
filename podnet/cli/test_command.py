"""podnet test."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from podnet.cli.output import output_option, print_json, progress

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["command"]


@click.command(short_help="Send packets between all pods and nodes, and compare with what must be.")
@click.argument("lab", required=False)
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(["icmp", "tcp", "udp"]),
    help="Only this one (again for more).",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.05, 60),
    default=1.0,
    show_default=True,
    help="Seconds of silence that mean lost.",
)
@output_option
def command(lab: str | None, protocols: tuple[str, ...], timeout: float, output: str) -> None:
    """Probe LAB (a name or a topology file; without one, the only lab that runs).

    What must be follows from the Kubernetes network model - every pod reaches every pod and every node and the
    other way round, without NAT - and from the file's own 'expect'. Exits with 1 on any difference.
    """
    from podnet.lab import record
    from podnet.probe.engine import run
    from podnet.probe.expect import derive

    subject = record.find(lab).lab
    checks = derive(subject, protocols or ("icmp", "tcp", "udp"))
    with progress(f"probing {subject.name}") as told:
        results = run(subject, checks, timeout=timeout, progress=told and partial(_count, told, len(checks)))
    if output == "json":
        from podnet.report.json import document

        print_json(document(subject, results))
    else:
        from podnet.report.text import failures, matrix, summary

        width = shutil.get_terminal_size((120, 24)).columns
        parts = [matrix(subject, results, color=sys.stdout.isatty(), width=width), failures(results), summary(results)]
        click.echo("\n\n".join(part.rstrip("\n") for part in parts if part))
    if not all(result.passed for result in results):
        sys.exit(1)


def _count(told: Callable[[int, int], None], total: int, done: int) -> None:
    told(done, total)
