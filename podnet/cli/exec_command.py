"""podnet exec."""

from __future__ import annotations

import sys

import click

from podnet.cli.target import lab_option, resolve

__all__ = ["command"]


@click.command(
    short_help="Run a command in a pod, node, client or router.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@lab_option
@click.argument("target")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARG]...")
def command(lab: str | None, target: str, argv: tuple[str, ...]) -> None:
    """Run COMMAND in the namespace of TARGET (a pod, node, client or router; LAB/TARGET where several labs run).

    Input, output and exit code are the command's own.
    """
    from podnet.kernel.execute import run_in
    from podnet.kernel.process import HOSTS
    from podnet.lab.record import directory

    arguments = argv[1:] if argv[0] == "--" else argv
    if not arguments:
        raise click.UsageError("give a command: podnet exec TARGET -- COMMAND")
    entry, found = resolve(lab, target)
    sys.exit(run_in(found.netns, arguments, hosts=f"{directory(entry.name)}/{HOSTS}"))
