"""podnet link."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podnet.cli.faulty import split, target_options

if TYPE_CHECKING:
    from podnet.lab.record import Record
    from podnet.model.fault import Fault

__all__ = ["command"]


@click.command(short_help="Set an interface down, or up again.")
@target_options
@click.argument("state", type=click.Choice(["down", "up"]))
def command(target: str, state: str, lab: str | None) -> None:
    """Set an interface of TARGET (a pod, node, client or router) down or up, its first one without IFACE.

    What the kernel takes off a link that goes down, routes and IPv6 addresses, comes back with 'up'.
    """
    from podnet.cli.faulty import apply
    from podnet.lab.faults import shown
    from podnet.model.fault import Fault

    def edit(faults: list[Fault], entry: Record) -> list[Fault]:
        fault = Fault("link", *split(entry, target))
        others = [each for each in faults if each != fault]
        return [*others, fault] if state == "down" else others

    apply(lab, target, edit, shown)
