"""podnet validate."""

from __future__ import annotations

import click

from podnet.cli.output import output_option, print_json
from podnet.errors import TopologyError

__all__ = ["command"]


@click.command(short_help="Check a topology file without touching anything.")
@click.argument("topology", default="topology.yaml", metavar="[TOPOLOGY]")
@output_option
def command(topology: str, output: str) -> None:
    """Check a TOPOLOGY file: all errors at once, each with its place and the remedy. Needs no root."""
    from podnet.topology.compile import compile_topology
    from podnet.topology.load import load
    from podnet.topology.place import place

    try:
        checked = load(topology)
        compile_topology(place(checked))
    except TopologyError as error:
        if output == "json":
            print_json({"valid": False, "problems": error.problems})
        raise
    if output == "json":
        print_json({"valid": True, "name": checked.name, "nodes": len(checked.nodes), "pods": len(checked.pods)})
    else:
        click.echo(f"{topology}: lab {checked.name}, {len(checked.nodes)} nodes, {len(checked.pods)} pods: valid")
