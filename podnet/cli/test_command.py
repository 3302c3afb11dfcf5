"""podnet test."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from podnet.cli.output import output_option, print_json, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podnet.diagnose.cause import Diagnosis
    from podnet.lab.record import Record
    from podnet.model.probe import Result

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
@click.option(
    "--why/--no-why",
    default=None,
    help="Replay what failed, and say why.  [default: why, but for a lab with a hidden fault]",
)
@output_option
def command(lab: str | None, protocols: tuple[str, ...], timeout: float, why: bool | None, output: str) -> None:
    """Probe LAB (a name or a topology file; without one, the only lab that runs).

    What must be follows from the Kubernetes network model - every pod reaches every pod and every node and the
    other way round, without NAT - and from the file's own 'expect'. Exits with 1 on any difference.
    """
    from podnet.lab import record
    from podnet.probe.engine import run
    from podnet.probe.expect import derive

    entry = record.find(lab)
    subject = entry.lab
    checks = derive(subject, protocols or ("icmp", "tcp", "udp"))
    with progress(f"probing {subject.name}") as told:
        results = run(subject, checks, timeout=timeout, progress=told and partial(_count, told, len(checks)))
    why = _unspoilt(entry.name) if why is None else why
    diagnoses = _diagnosed(entry, results) if why else []
    if output == "json":
        from podnet.report import diagnosis
        from podnet.report.json import document

        print_json(document(subject, results) | ({"diagnoses": diagnosis.document(diagnoses)} if why else {}))
    else:
        from podnet.report.diagnosis import paragraphs
        from podnet.report.text import failures, matrix, summary

        width = shutil.get_terminal_size((120, 24)).columns
        parts = [matrix(subject, results, color=sys.stdout.isatty(), width=width), failures(results)]
        parts += [paragraphs(diagnoses), summary(results)]
        click.echo("\n\n".join(part.rstrip("\n") for part in parts if part))
    if not all(result.passed for result in results):
        sys.exit(1)


def _unspoilt(name: str) -> bool:
    """Whether no exercise is under way to which a diagnosis would be the answer."""
    from podnet.fault import ledger

    return not any(entry.hidden for entry in ledger.load(name))


def _diagnosed(entry: Record, results: Sequence[Result]) -> list[Diagnosis]:
    """Why what failed did so; replaying takes about half a second."""
    if all(result.passed for result in results):
        return []
    from podnet.diagnose.why import diagnose, subjects_of

    return diagnose(entry.lab, entry.wanted, subjects_of(results))


def _count(told: Callable[[int, int], None], total: int, done: int) -> None:
    told(done, total)
