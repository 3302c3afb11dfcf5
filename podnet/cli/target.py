"""How commands name a target: TARGET, LAB/TARGET, or TARGET with --lab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.lab.record import Record
    from podnet.model.lab import Target

__all__ = ["lab_option", "resolve"]


def lab_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option --lab."""
    return click.option("--lab", help="The lab, where several run (or write LAB/TARGET).")(command)


def resolve(lab: str | None, name: str) -> tuple[Record, Target]:
    """The lab and target that a user means. Raises ``UsageError`` with what there is, or was perhaps meant."""
    from podnet.lab import record

    if lab is None and "/" in name:
        lab, name = name.split("/", 1)
    entry = record.find(lab)
    target = entry.lab.target(name)
    if target is not None:
        return entry, target
    from difflib import get_close_matches

    names = [each.name for each in entry.lab.targets]
    close = get_close_matches(name, names, 1)
    hint = (
        f"did you mean {close[0]}?"
        if close
        else f"there are {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}"
    )
    msg = f"lab {entry.name} has no {name}: {hint}"
    raise UsageError(msg)
