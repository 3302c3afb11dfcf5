"""podnet list."""

from __future__ import annotations

import time
from typing import Any

import click

from podnet.cli.output import output_option, print_json, table

__all__ = ["command"]


@click.command(short_help="List the running labs.")
@output_option
def command(output: str) -> None:
    """List the running labs."""
    from podnet.lab import record

    labs = [_row(entry) for name in record.names() if (entry := record.load(name)) is not None]
    if output == "json":
        print_json({"labs": labs})
    elif labs:
        head = ["NAME", "STATE", "NODES", "PODS", "AGE", "TOPOLOGY"]
        rows = [
            [lab["name"], lab["state"], str(lab["nodes"]), str(lab["pods"]), _age(lab["since"]), lab["topology"]]
            for lab in labs
        ]
        click.echo(table(head, rows))
    else:
        click.echo("no lab is running", err=True)


def _row(entry: Any) -> dict[str, Any]:
    kinds = [target["kind"] for target in entry.lab_json["targets"]]
    return {
        "name": entry.name,
        "state": "up" if entry.settled else "unfinished",
        "nodes": kinds.count("node"),
        "pods": kinds.count("pod"),
        "since": entry.since,
        "topology": entry.path,
    }


def _age(since: float) -> str:
    seconds = max(0, int(time.time() - since))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
