"""podnet test."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from podnet.cli.causes import Causes
from podnet.cli.output import progress
from podnet.cli.reports import Output, Outputs, write

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
    type=click.Choice(["icmp", "tcp", "udp", "sctp", "connect", "http", "dns", "arp", "nd"]),
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
@click.option("--pmtu", is_flag=True, help="Measure the largest packet of each pair instead, and what sets the limit.")
@click.option(
    "--why/--no-why",
    default=None,
    help="Replay what failed, and say why.  [default: why, but for a lab with a hidden fault]",
)
@click.option(
    "--namespaces",
    multiple=True,
    metavar="NAME|PATH|PID",
    help="Probe these namespaces of the machine instead of a lab (again for more), each against each.",
)
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=Outputs(),
    help="text, json, junit, tap, html or pcapng; with =FILE to a file. Again for more.  [default: text]",
)
def command(
    lab: str | None,
    protocols: tuple[str, ...],
    senders: tuple[str, ...],
    receivers: tuple[str, ...],
    timeout: float,
    paths: bool,
    pmtu: bool,
    why: bool | None,
    namespaces: tuple[str, ...],
    outputs: tuple[Output, ...],
) -> None:
    """Probe LAB (a name or a topology file; without one, the only lab that runs).

    What must be follows from the Kubernetes network model - every pod reaches every pod and every node and the
    other way round, without NAT - and from the file's own 'expect'.

    WHO is the name of a pod, node or client, of a pod with replicas, 'pods', 'nodes', 'clients', a label KEY=VALUE,
    or node:NAME for the pods on a node; joined by commas, all must fit.

    Exits with 1 where something differs from what must be, and with 3 where nothing does, but something could not
    be measured.
    """
    from podnet.probe.verify import verify

    started = time.monotonic()
    subject, places = _subject(lab, namespaces)
    checks = _checks(subject, protocols, senders, receivers)
    if pmtu:
        sys.exit(_pmtu(subject, checks, outputs))
    with progress(f"probing {subject.name}") as told:
        count = told and partial(_count, told, len(checks))
        causes = Causes(None if namespaces else subject.name, subject, places, why)
        results = verify(
            subject, checks, timeout=timeout, progress=count, namespaces=places, tapped=paths, meanwhile=causes.look
        )
    seconds = time.monotonic() - started
    write(outputs, subject, results, seconds, places, causes.of(results))
    sys.exit(_exit_code(results))


def _subject(lab: str | None, namespaces: tuple[str, ...]) -> tuple[Lab, list[str]]:
    """What is probed, and all of the namespaces that its packets may pass."""
    if namespaces:
        from podnet.errors import UsageError
        from podnet.probe.surroundings import surroundings

        if lab is not None:
            msg = "either a lab or --namespaces: not both"
            raise UsageError(msg)
        return surroundings(namespaces)
    from podnet.lab import record

    entry = record.find(lab)
    return entry.lab, sorted({*entry.namespaces, *(target.netns for target in entry.lab.targets)})


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


def _pmtu(subject: Lab, checks: Checks, outputs: tuple[Output, ...]) -> int:
    """The largest packet of every pair of the checks; 1 where there is a black hole or nothing passes."""
    from podnet.errors import UsageError
    from podnet.probe.pmtu import largest
    from podnet.report.sizes import document, sizes

    forms = {output.form for output in outputs if not output.path} or {"text"}
    if len(outputs) > 1 or not forms <= {"text", "json"}:
        msg = "--pmtu reports as -o text or -o json only"
        raise UsageError(msg)
    pairs = list(dict.fromkeys((check.source, check.target, check.version) for check in checks))
    found = largest(subject, pairs)
    if forms == {"json"}:
        from podnet.cli.output import print_json

        print_json(document(subject, found))
    else:
        click.echo(sizes(found))
    return 1 if any(one.black_hole or one.failure for one in found) else 0


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
