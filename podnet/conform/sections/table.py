"""How a section lists its requirements: a decorator that makes a row of a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.conform.model import ALL_KINDS, KNOWN_VERSIONS, Kind, Level, Requirement

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.conform.case import Case

__all__ = ["Table"]


class Table:
    """The requirements of one section, in the order in which they are defined."""

    def __init__(self, section: str) -> None:
        self.section = section
        self.rows: list[Requirement] = []

    def row(
        self,
        identity: str,
        level: Level,
        text: str,
        source: str,
        *,
        kinds: tuple[Kind, ...] = ALL_KINDS,
        since: str = "0.1.0",
        until: str = KNOWN_VERSIONS[-1],
        per_version: bool = False,
    ) -> Callable[[Callable[[Case], str | None]], Callable[[Case], str | None]]:
        """The function below judges this requirement; what it returns is the evidence of a pass."""

        def take(judge: Callable[[Case], str | None]) -> Callable[[Case], str | None]:
            self.rows.append(
                Requirement(identity, level, text, source, judge, kinds, since, until, per_version, self.section)
            )
            return judge

        return take
