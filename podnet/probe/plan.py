"""Many checks in little memory: numbers in arrays, a ``Check`` only when somebody looks at one.

All pairs of 1,000 pods are a million checks: as objects 300 MB, as numbers 8 MB.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, overload

from podnet.errors import UsageError
from podnet.model.probe import Check

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podnet.model.lab import Lab
    from podnet.model.probe import Bounds

__all__ = ["Checks", "Kind"]


class Kind(NamedTuple):
    """All of a check but its two ends; fields as those of ``Check``."""

    protocol: str
    version: int
    port: int = 0
    verdict: str = "reach"
    seen: str = "own"
    listen: bool = True
    origin: str = "model"
    line: int = 0
    bounds: Bounds | None = None


class Checks(Sequence[Check]):
    """Checks of one lab; ``source`` and ``target`` are numbers of its targets, ``kind`` of ``kinds``."""

    def __init__(self, names: Sequence[str], checks: Iterable[Check] = ()) -> None:
        self.names = list(names)
        self.kinds: list[Kind] = []
        self.source, self.target, self.kind = array("H"), array("H"), array("I")
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self._known: dict[Kind, int] = {}
        for check in checks:
            kind = Kind(
                check.protocol, check.version, check.port, check.verdict, check.seen, check.listen, check.origin,
                check.line, check.bounds,
            )  # fmt: skip
            self.add(check.source, check.target, kind)

    @classmethod
    def of(cls, lab: Lab, checks: Sequence[Check]) -> Checks:
        """These checks in this form. Raises ``UsageError`` for a check of a target that the lab does not have."""
        names = [target.name for target in lab.targets]
        if isinstance(checks, Checks) and checks.names == names:
            return checks
        known = set(names)
        for check in checks:
            missing = next((name for name in (check.source, check.target) if name not in known), None)
            if missing is not None:
                where = f"line {check.line}: " if check.line else ""
                msg = f"{where}no pod, node or client named {missing} in lab {lab.name}"
                raise UsageError(msg)
        return cls(names, checks)

    def number(self, kind: Kind) -> int:
        """The number of a kind, a new one where it has none yet."""
        number = self._known.get(kind)
        if number is None:
            number = self._known[kind] = len(self.kinds)
            self.kinds.append(kind)
        return number

    def add(self, source: str, target: str, kind: Kind) -> None:
        """One check more."""
        self.source.append(self._numbers[source])
        self.target.append(self._numbers[target])
        self.kind.append(self.number(kind))

    def row(self, source: int, targets: Sequence[int], kind: int) -> None:
        """Checks of one kind from one sender to many receivers, by number."""
        self.source.extend([source] * len(targets))
        self.target.extend(targets)
        self.kind.extend([kind] * len(targets))

    def replace(self, index: int, kind: Kind) -> None:
        """Ask something else of the same two ends."""
        self.kind[index] = self.number(kind)

    def __len__(self) -> int:
        return len(self.source)

    @overload
    def __getitem__(self, index: int) -> Check: ...
    @overload
    def __getitem__(self, index: slice) -> list[Check]: ...
    def __getitem__(self, index: int | slice) -> Check | list[Check]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        source, target = self.names[self.source[index]], self.names[self.target[index]]
        return Check(source, target, *self.kinds[self.kind[index]])

    def chosen(self, indexes: Iterable[int]) -> Checks:
        """Some of the checks, by number."""
        made = Checks(self.names)
        made.kinds, made._known = list(self.kinds), dict(self._known)
        for index in indexes:
            made.source.append(self.source[index])
            made.target.append(self.target[index])
            made.kind.append(self.kind[index])
        return made
