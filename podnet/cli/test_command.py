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

    from podnet.model.lab import Lab
    from podnet.probe.plan import Checks
    from podnet.probe.results import Results

__all__ = ["command"]

_MANY = 250  # pods and nodes: with all protocols that is 190,000 checks, about 8 seconds


@click.command(short_help="Send packets between all pods and nodes, and compare with what must be.")
@click.argument("lab", required=False)
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(["icmp", "tcp", "udp", "connect", "http", "dns"]),
    help="Only this one (again for more). Default: icmp, tcp, udp; above 250 pods and nodes icmp only.",
)
@click.option("--from", "senders", multiple=True, metavar="WHO", help="Only what these send (again for more).")
@click.option("--to", "receivers", multiple=True, metavar="WHO", help="Only what these receive (again for more).")
@click.option(
    "--timeout",
    type=click.FloatRange(0.05, 60),
    default=1.0,
    show_default=True,
    help="Seconds of silence that mean lost.",
)
@click.option("--paths", is_flag=True, help="Also show on which way each packet went, and its answer back.")
@output_option
def command(
    lab: str | None,
    protocols: tuple[str, ...],
    senders: tuple[str, ...],
    receivers: tuple[str, ...],
    timeout: float,
    paths: bool,
    output: str,
) -> None:
    """Probe LAB (a name or a topology file; without one, the only lab that runs).

    What must be follows from the Kubernetes network model - every pod reaches every pod and every node and the
    other way round, without NAT - and from the file's own 'expect'.

    WHO is the name of a pod, node or client, of a pod with replicas, 'pods', 'nodes', 'clients', a label KEY=VALUE,
    or node:NAME for the pods on a node; joined by commas, all must fit.

    Exits with 1 where something differs from what must be, and with 3 where nothing does, but something could not
    be measured.
    """
    from podnet.lab import record
    from podnet.probe.verify import verify

    entry = record.find(lab)
    subject = entry.lab
    namespaces = sorted({*entry.namespaces, *(target.netns for target in subject.targets)})
    checks = _checks(subject, protocols, senders, receivers)
    with progress(f"probing {subject.name}") as told:
        count = told and partial(_count, told, len(checks))
        results = verify(subject, checks, timeout=timeout, progress=count, namespaces=namespaces, tapped=paths)
    if output == "json":
        from podnet.report.json import document

        print_json(document(subject, results))
    else:
        from podnet.report.text import failures, matrix, summary

        width = shutil.get_terminal_size((120, 24)).columns
        parts = [matrix(subject, results, color=sys.stdout.isatty(), width=width), failures(results)]
        if paths:
            from podnet.report.ways import ways

            parts.append(ways(subject, results))
        parts.append(summary(results))
        click.echo("\n\n".join(part.rstrip("\n") for part in parts if part))
    sys.exit(_exit_code(results))


def _checks(subject: Lab, protocols: tuple[str, ...], senders: tuple[str, ...], receivers: tuple[str, ...]) -> Checks:
    from podnet.errors import UsageError
    from podnet.probe.expect import PROTOCOLS, derive
    from podnet.probe.select import chosen

    if not protocols:
        protocols = PROTOCOLS
        ends = sum(target.kind in ("pod", "node") for target in subject.targets)
        if ends > _MANY and not senders and not receivers:
            protocols = ("icmp",)
            click.echo(
                f"podnet: {ends} pods and nodes: icmp only; all with --protocol icmp --protocol tcp --protocol udp",
                err=True,
            )
    checks = derive(
        subject,
        protocols,
        senders=chosen(subject, senders) if senders else None,
        receivers=chosen(subject, receivers) if receivers else None,
    )
    if not len(checks):
        msg = f"nothing is expected between these in lab {subject.name}: choose others with --from, --to and --protocol"
        raise UsageError(msg)
    return checks


def _exit_code(results: Results) -> int:
    """0 all as expected, 1 something differs, 3 what differs could not be measured."""
    code = 0
    for result in results.failed():
        if result.observed != "unproven":
            return 1
        code = 3
    return code


def _count(told: Callable[[int, int], None], total: int, done: int) -> None:
    told(done, total)
