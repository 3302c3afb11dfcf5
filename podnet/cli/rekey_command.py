"""podnet rekey."""

from __future__ import annotations

import click

from podnet.cli.output import lab_kernel

__all__ = ["command"]


@click.command(short_help="Give nodes of a wireguard lab new keys.")
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@click.option("--lab", help="The lab, where several run.")
def command(nodes: tuple[str, ...], lab: str | None) -> None:
    """Give each NODE (without any: all nodes) a new key, which the others are told; nothing else is touched."""
    from podnet.lab import record
    from podnet.lab.rekey import rekey

    name = record.find(lab).name
    with lab_kernel(name) as (kernel, _):
        done = rekey(name, nodes, kernel)
    click.echo(f"lab {name}: new keys for {', '.join(done)}")
