"""Failures that are alike as one line: 300 checks that fail for one reason are one finding, not 300."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from podnet.model.lab import Lab
    from podnet.model.probe import Check, Result

__all__ = ["Group", "grouped"]

_FEW = 3  # so many failures are listed, however alike


class Group(NamedTuple):
    """Alike failures; ``scope`` says in words whose packets they are, ``whole`` whether all of those failed."""

    scope: str
    whole: bool
    results: tuple[Result, ...]

    @property
    def kinds(self) -> str:
        """The protocols and IP versions of the group."""
        checks = [result.check for result in self.results]
        ports = {f"{c.protocol}{f'/{c.port}' if c.port else ''}" for c in checks}
        versions = sorted({c.version for c in checks})
        return f"{' '.join(sorted(ports))} {' '.join(f'ipv{version}' for version in versions)}"


class _Ends:
    """Where senders and receivers are, in words."""

    def __init__(self, lab: Lab) -> None:
        self._place = {}
        for target in lab.targets:
            self._place[target.name] = f"pods on {target.node}" if target.kind == "pod" and target.node else target.name

    def place(self, name: str) -> str:
        return self._place.get(name, name)

    def cuts(self) -> Iterator[Callable[[Check], tuple[str, str]]]:
        """Ways to cut the pairs into parts, the coarsest first; the words are of the sender and of the receiver."""
        yield lambda check: ("all", "all")
        yield lambda check: ("all", check.target)
        yield lambda check: (check.source, "all")
        yield lambda check: ("all", self.place(check.target))
        yield lambda check: (self.place(check.source), "all")
        yield lambda check: (self.place(check.source), self.place(check.target))
        yield lambda check: (self.place(check.source), check.target)
        yield lambda check: (check.source, self.place(check.target))


def grouped(lab: Lab, results: Sequence[Result], failed: Sequence[Result]) -> list[Group]:
    """The failed results, those of the largest group first.

    Alike is what was expected and observed and said; where the failures with all of that in common are all that was
    asked of some hosts, these name the group.
    """
    alike: dict[tuple[str, str, str], list[Result]] = {}
    for result in failed:
        alike.setdefault((result.check.verdict, result.observed, result.detail), []).append(result)
    groups: list[Group] = []
    for (verdict, _, _), some in alike.items():
        if len(some) <= _FEW:
            groups += [Group(f"{r.check.source} -> {r.check.target}", True, (r,)) for r in some]
        else:
            groups += _cut(_Ends(lab), results, verdict, some)
    return sorted(groups, key=lambda group: -len(group.results))


def _cut(ends: _Ends, results: Sequence[Result], verdict: str, some: list[Result]) -> list[Group]:
    kinds = {(r.check.protocol, r.check.version, r.check.port) for r in some}
    asked = [r.check for r in results if r.check.verdict == verdict]
    asked = [check for check in asked if (check.protocol, check.version, check.port) in kinds]
    best: list[Group] | None = None
    for cut in ends.cuts():
        parts: dict[tuple[str, str], list[Result]] = {}
        for result in some:
            parts.setdefault(cut(result.check), []).append(result)
        sizes = Counter(cut(check) for check in asked)
        found = [
            Group(f"{key[0]} -> {key[1]}", len(part) == sizes[key], tuple(part)) for key, part in parts.items()
        ]  # fmt: skip
        if all(group.whole for group in found) and (best is None or len(found) < len(best)):
            best = found
    # No hosts share the failures as a whole: by their places, that is a group per pair of places at most.
    if best is None or len(best) > len(some) // 2:
        parts = {}
        for result in some:
            parts.setdefault((ends.place(result.check.source), ends.place(result.check.target)), []).append(result)
        return [Group(f"{key[0]} -> {key[1]}", False, tuple(part)) for key, part in parts.items()]
    return best
