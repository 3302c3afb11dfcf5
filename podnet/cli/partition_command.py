"""podnet partition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podnet.errors import UsageError

if TYPE_CHECKING:
    from podnet.lab.record import Record
    from podnet.model.fault import Fault

__all__ = ["command"]


@click.command(short_help="Let groups of nodes not reach each other.")
@click.argument("groups", nargs=-1, required=True, metavar="NODE[,NODE]... NODE[,NODE]...")
@click.option("--lab", help="The lab, where several run.")
def command(groups: tuple[str, ...], lab: str | None) -> None:
    """Drop all that nodes of one group send to nodes of another, in the underlay: 'podnet partition a,b c'.

    Nodes that are in no group reach everybody. There is one partition at a time; 'podnet heal' ends it.
    """
    from podnet.cli.faulty import apply
    from podnet.lab.faults import named, shown
    from podnet.model.fault import Fault

    sides = tuple(tuple(name for name in group.split(",") if name) for group in groups)
    flat = [name for side in sides for name in side]
    if len(sides) < 2 or not all(sides):
        msg = "a partition has two groups or more, as in 'podnet partition node1,node2 node3'"
        raise UsageError(msg)
    if len(set(flat)) < len(flat):
        msg = f"{next(name for name in flat if flat.count(name) > 1)} is named twice: a node is in one group"
        raise UsageError(msg)

    def edit(faults: list[Fault], entry: Record) -> list[Fault]:
        for name in flat:
            named(entry, name, ("node",))
        return [*(each for each in faults if each.kind != "partition"), Fault("partition", groups=sides)]

    apply(lab, flat[0], edit, shown)
