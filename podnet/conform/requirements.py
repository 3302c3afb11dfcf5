"""All requirements, in the order of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.conform.results import version_tuple
from podnet.conform.sections import (
    add,
    check,
    configuration,
    delegation,
    delete,
    environment,
    gc,
    ports,
    status,
    version,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.conform.model import Kind, Level, Requirement

__all__ = ["REQUIREMENTS", "cases", "select"]

REQUIREMENTS: tuple[Requirement, ...] = tuple(
    row
    for section in (environment, configuration, version, add, delete, check, status, gc, delegation, ports)
    for row in section.TABLE.rows
)


def select(
    only: Sequence[str] = (), *, kind: Kind | None = None, levels: Sequence[Level] = ()
) -> tuple[list[Requirement], list[str]]:
    """The requirements of some ids (of a kind of plugin, of some levels), and the ids that nothing has.

    An id may carry a version (``A3@0.4.0``); one that ends in a digit also stands for its sub-letters (``A2``).
    """
    wanted = [each.split("@")[0].upper() for each in only]
    chosen = [row for row in REQUIREMENTS if not wanted or any(_means(each, row.id) for each in wanted)]
    unknown = [each for each in wanted if not any(_means(each, row.id) for row in REQUIREMENTS)]
    return [
        row for row in chosen if (kind is None or kind in row.kinds) and (not levels or row.level in levels)
    ], unknown


def _means(wanted: str, identity: str) -> bool:
    upper = identity.upper()
    return upper == wanted or (
        wanted[-1:].isdigit() and upper[: len(wanted)] == wanted and upper[len(wanted) :].isalpha()
    )


def cases(rows: Sequence[Requirement], versions: Sequence[str], kind: Kind) -> list[tuple[Requirement, str]]:
    """Which requirement is judged in which cniVersion: in the newest announced one, or in each."""
    # prevResult came with 0.3.0: there is no chained plugin before.
    announced = [v for v in versions if kind != "chained" or version_tuple(v) >= (0, 3, 0)] or list(versions)
    chosen = []
    for row in rows:
        fitting = [v for v in announced if version_tuple(row.since) <= version_tuple(v) <= version_tuple(row.until)]
        if row.per_version and fitting:
            chosen += [(row, v) for v in fitting]
        else:
            chosen.append((row, fitting[-1] if fitting else announced[-1]))
    return chosen
