"""podnet down."""

from __future__ import annotations

import os
from functools import partial

import click

from podnet.cli.output import lab_kernel, output_option, print_json
from podnet.errors import PodnetError

__all__ = ["command"]


@click.command(short_help="Take a lab down, with all that belongs to it.")
@click.argument("lab", required=False)
@click.option("--all", "everything", is_flag=True, help="Take every lab down.")
@output_option
def command(lab: str | None, everything: bool, output: str) -> None:
    """Take LAB down (a name or a topology file; without one, the only lab that runs).

    Ends its containers, deletes its namespaces and links, and puts back what 'up' changed on the machine. Taking
    down what is not there is no error.
    """
    from podnet.lab import record
    from podnet.lab.teardown import down

    if everything and lab:
        raise click.UsageError("give either LAB or --all")
    if everything:
        names = record.names()
    elif lab is None:
        names = [record.find(None).name]
    else:
        names = [record.name_meant(lab)]
    removed: list[str] = []
    absent: list[str] = []
    for name in names:
        complaints: list[str] = []
        with lab_kernel(name) as (kernel, supervisor):
            if os.path.exists(f"{record.directory(name)}/faults.json"):
                from podnet.fault.inject import clear_machine

                try:
                    clear_machine(name, kernel, supervisor)
                except PodnetError as error:
                    complaints.append(str(error))
            there = down(name, kernel, supervisor.shutdown, partial(_detach, name, complaints))
        for complaint in complaints:
            click.echo(f"{complaint} (what it was in has gone with its namespace)", err=True)
        (removed if there else absent).append(name)
    if output == "json":
        print_json({"removed": removed, "absent": absent})
        return
    for name in removed:
        click.echo(f"lab {name}: down")
    for name in absent:
        running = ", ".join(record.names()) or "none"
        click.echo(f"lab {name} is not running (running: {running}): nothing to do", err=True)
    if everything and not names:
        click.echo("no lab is running: nothing to do", err=True)


def _detach(name: str, complaints: list[str]) -> None:
    from podnet.lab.attacher import Attacher
    from podnet.lab.record import directory

    complaints += Attacher(directory(name)).detach_all()
