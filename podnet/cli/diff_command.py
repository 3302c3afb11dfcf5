"""podnet diff."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

__all__ = ["command"]


@click.command(short_help="Compare two saved runs of podnet test.")
@click.argument("run1", type=click.Path(dir_okay=False))
@click.argument("run2", type=click.Path(dir_okay=False))
def command(run1: str, run2: str) -> None:
    """Show what differs between two runs that 'podnet test -o json=FILE' has saved, RUN1 and then RUN2.

    A line for each check: '-' it was only in RUN1, '+' only in RUN2, '~' its result is another. Round-trip times are
    not compared. Exits with 1 where anything differs.
    """
    from podnet.report.difference import differences

    lines = differences(_read(run1), _read(run2))
    for line in lines:
        click.echo(line)
    if not lines:
        click.echo("no difference")
    sys.exit(1 if lines else 0)


def _read(path: str) -> dict[str, Any]:
    from podnet.errors import UsageError

    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UsageError(msg) from None
    except ValueError as error:
        msg = f"{path} is no JSON: {error}"
        raise UsageError(msg) from None
    if not isinstance(value, dict):
        msg = f"{path} is not a run of podnet test: save one with 'podnet test -o json=FILE'"
        raise UsageError(msg)
    return value
