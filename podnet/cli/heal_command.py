"""podnet heal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podnet.lab.record import Record
    from podnet.model.fault import Fault

__all__ = ["command"]


@click.command(short_help="End a partition; with --all, undo every fault.")
@click.option("--all", "everything", is_flag=True, help="Undo what impair, link and node did, too.")
@click.option("--lab", help="The lab, where several run.")
def command(everything: bool, lab: str | None) -> None:
    """End what 'podnet partition' did. What the topology file impairs stays."""
    from podnet.cli.faulty import apply
    from podnet.lab.faults import shown

    def edit(faults: list[Fault], entry: Record) -> list[Fault]:
        return [] if everything else [each for each in faults if each.kind != "partition"]

    apply(lab, "", edit, shown)
