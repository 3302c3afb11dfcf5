"""podnet version."""

from __future__ import annotations

import platform

import click

from podnet import __version__
from podnet.cli.output import output_option, print_json

__all__ = ["command"]


@click.command(short_help="Print podnet's version.")
@output_option
def command(output: str) -> None:
    """Print the versions of podnet, Python and the kernel."""
    shown = {"podnet": __version__, "python": platform.python_version(), "kernel": platform.release()}
    if output == "json":
        print_json(shown)
    else:
        click.echo(f"podnet {__version__} (Python {shown['python']}, Linux {shown['kernel']})")
