"""podnet doctor."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from podnet.cli.output import output_option, print_json, table
from podnet.errors import CapabilityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.kernel.capabilities import Capability

__all__ = ["command"]

_WORDS = {"yes": "ok", "no": "missing", "unknown": "unknown"}


@click.command(short_help="Check what this machine can do: kernel, tools, privileges, limits.")
@output_option
def command(output: str) -> None:
    """Check what this machine can do: kernel features, tools, privileges and limits.

    Each line says what does not work without it and how to get it. Nothing is changed. Exit code 3 where
    something is missing that every lab needs.
    """
    from dataclasses import asdict

    from podnet.kernel.capabilities import probe_all

    found = probe_all()
    lacking = [each for each in found if each.required and each.found != "yes"]
    if output == "json":
        print_json({"ok": not lacking, "capabilities": [asdict(each) for each in found]})
    else:
        click.echo("\n".join(_lines(found)))
        if lacking:
            click.echo(f"\nNo lab runs here without: {', '.join(each.name for each in lacking)}.")
    if lacking:
        sys.exit(CapabilityError.exit_code)


def _lines(found: Sequence[Capability]) -> list[str]:
    rows = [
        [
            each.name,
            _WORDS[each.found],
            f"{each.needed_for}, required" if each.required else each.needed_for,
            each.detail if each.found == "yes" else f"{each.detail} -> {each.remedy}",
        ]
        for each in found
    ]
    head, *lines = table(["NAME", "FOUND", "WITHOUT IT DOES NOT WORK", "DETAIL -> HOW TO GET IT"], rows).splitlines()
    start = head.index("FOUND")
    colored = [head]
    for each, line in zip(found, lines, strict=True):
        end = start + len(_WORDS[each.found])
        # What is missing but not required is no fault of the machine: only what is required is red.
        color = "green" if each.found == "yes" else "red" if each.required else "yellow"
        colored.append(line[:start] + click.style(line[start:end], fg=color) + line[end:])
    return colored
