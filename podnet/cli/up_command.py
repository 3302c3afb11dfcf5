"""podnet up."""

from __future__ import annotations

import time

import click

from podnet.cli.output import lab_kernel, output_option, print_json, progress

__all__ = ["command"]


@click.command(short_help="Build a lab from a topology, or make a running one what the file says.")
@click.argument("topology", default="topology.yaml", metavar="[TOPOLOGY]")
@output_option
def command(topology: str, output: str) -> None:
    """Build the lab of a TOPOLOGY file (default: topology.yaml here; - reads standard input).

    Run it again after editing the file, or after something broke: it changes what differs and nothing else.
    """
    from podnet.fabric import fabric_of
    from podnet.kernel.capabilities import require
    from podnet.kernel.impairment import kind_of
    from podnet.kernel.objects import Process
    from podnet.lab.attacher import Attacher
    from podnet.lab.converge import up
    from podnet.lab.record import directory
    from podnet.lab.status import change_json
    from podnet.topology.load import load

    started = time.monotonic()
    wanted = load(topology)
    require()
    require({*fabric_of(wanted.networking.fabric).NEEDS, *(f"tc {kind_of(each.settings)}" for each in wanted.impair)})
    with lab_kernel(wanted.name) as (kernel, supervisor), progress(f"lab {wanted.name}") as told:
        outcome = up(wanted, kernel, told, Attacher(directory(wanted.name)))
        if any(target.containers for target in outcome.lab.targets):
            ended = [s for s in supervisor.observe() if s.state == "failed"]
        else:
            ended = []
            supervisor.shutdown()
    took = time.monotonic() - started
    if output == "json":
        print_json(
            {
                "name": wanted.name,
                "nodes": len(wanted.nodes),
                "pods": len(wanted.pods),
                "changes": [change_json(change) for change in outcome.changes],
                "seconds": round(took, 3),
            }
        )
        return
    size = f"{_count(len(wanted.nodes), 'node')}, {_count(len(wanted.pods), 'pod')}"
    if not outcome.changes:
        click.echo(f"lab {wanted.name}: {size}, nothing to change")
        return
    containers = sum(isinstance(change.new, Process) for change in outcome.changes)
    started_text = f", {_count(containers, 'container')} started" if containers else ""
    click.echo(f"lab {wanted.name}: {size} up ({_count(len(outcome.changes), 'change')}{started_text}, {took:.2f} s)")
    for status in ended:
        click.echo(f"container {status.process.name}: {status.message}", err=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
