"""podnet node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podnet.lab.record import Record
    from podnet.model.fault import Fault

__all__ = ["command"]


@click.command(short_help="Stop a node, or start it again.")
@click.argument("name", metavar="NODE")
@click.argument("state", type=click.Choice(["stop", "start"]))
@click.option("--lab", help="The lab, where several run.")
def command(name: str, state: str, lab: str | None) -> None:
    """Stop NODE as if its power failed, or start it: all its links go down, and the containers on it end."""
    from podnet.cli.faulty import apply
    from podnet.lab.faults import named, shown
    from podnet.model.fault import Fault

    def edit(faults: list[Fault], entry: Record) -> list[Fault]:
        fault = Fault("node", named(entry, name, ("node",))["name"])
        others = [each for each in faults if each != fault]
        return [*others, fault] if state == "stop" else others

    apply(lab, name, edit, shown)
