"""Failures that are alike as one line: 300 checks that fail for one reason are one finding, not 300."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from podnet.probe.results import Results
from podnet.report.blame import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence

    from podnet.diagnose.cause import Cause
    from podnet.model.lab import Lab
    from podnet.model.probe import Result
    from podnet.report.blame import Blame

__all__ = ["Group", "grouped"]

_FEW = 3  # so many failures are listed, however alike

_Pair = tuple[str, str]


class Group(NamedTuple):
    """Alike failures; ``scope`` says in words whose packets they are, ``whole`` whether all of those failed."""

    scope: str
    whole: bool
    results: tuple[Result, ...]
    cause: Cause | None = None

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

    def cuts(self) -> Iterator[Callable[[_Pair], _Pair]]:
        """Ways to cut the pairs into parts, the coarsest first; the words are of the sender and of the receiver."""
        place = self.place
        yield lambda pair: ("all", "all")
        yield lambda pair: ("all", pair[1])
        yield lambda pair: (pair[0], "all")
        yield lambda pair: ("all", place(pair[1]))
        yield lambda pair: (place(pair[0]), "all")
        yield lambda pair: (place(pair[0]), place(pair[1]))
        yield lambda pair: (place(pair[0]), pair[1])
        yield lambda pair: (pair[0], place(pair[1]))


def grouped(
    lab: Lab, results: Sequence[Result], failed: Sequence[Result], blame: Blame | None = None
) -> list[Group]:  # fmt: skip
    """The failed results, those of the largest group first; groups with one cause stand together.

    Alike is what was expected and observed and said, and has one cause where that is known; where the failures with
    all of that in common are all that was asked of some hosts, these name the group.
    """
    alike: dict[tuple[str, str, str, Cause | None], list[Result]] = {}
    known: dict[object, Cause] = {}
    for result in failed:
        cause = blame.cause(result) if blame is not None else None
        if cause is not None:
            cause = known.setdefault(key_of(cause), cause)
        alike.setdefault((result.check.verdict, result.observed, result.detail, cause), []).append(result)
    groups: list[Group] = []
    for (verdict, _, _, cause), some in alike.items():
        if len(some) <= _FEW:
            parts = [Group(f"{r.check.source} -> {r.check.target}", True, (r,)) for r in some]
        else:
            parts = _cut(_Ends(lab), results, verdict, some)
        groups += [part._replace(cause=cause) for part in parts]
    # Those of one cause stay together; what is not explained comes last.
    caused = Counter(dict.fromkeys(known.values(), 0))
    for group in groups:
        if group.cause is not None:
            caused[group.cause] += len(group.results)
    place = {cause: at for at, (cause, _) in enumerate(caused.most_common())}
    return sorted(groups, key=lambda g: (len(place) if g.cause is None else place[g.cause], -len(g.results)))


def _cut(ends: _Ends, results: Sequence[Result], verdict: str, some: list[Result]) -> list[Group]:
    asked = _asked(results, verdict, {(r.check.protocol, r.check.version, r.check.port) for r in some})
    failed = Counter((r.check.source, r.check.target) for r in some)
    best: tuple[int, Callable[[_Pair], _Pair]] | None = None
    for cut in ends.cuts():
        parts = _parts(failed, cut)
        if (best is None or len(parts) < best[0]) and parts == _parts(asked, cut, parts):
            best = (len(parts), cut)
            if len(parts) == 1:
                break
    # No hosts share the failures as a whole: by their places, that is a group per pair of places at most.
    whole = best is not None and best[0] <= len(some) // 2
    cut = best[1] if best is not None and whole else lambda pair: (ends.place(pair[0]), ends.place(pair[1]))
    found: dict[_Pair, list[Result]] = {}
    for result in some:
        found.setdefault(cut((result.check.source, result.check.target)), []).append(result)
    return [Group(f"{key[0]} -> {key[1]}", whole, tuple(part)) for key, part in found.items()]


def _asked(results: Sequence[Result], verdict: str, kinds: set[tuple[str, int, int]]) -> Counter[_Pair]:
    """How many checks of these kinds, with this verdict expected, there are of each pair."""
    if not isinstance(results, Results):
        asked = (r.check for r in results if r.check.verdict == verdict)
        return Counter((c.source, c.target) for c in asked if (c.protocol, c.version, c.port) in kinds)
    checks = results.checks
    meant = [kind.verdict == verdict and (kind.protocol, kind.version, kind.port) in kinds for kind in checks.kinds]
    rows = zip(checks.source, checks.target, checks.kind, strict=True)
    numbers = Counter((source, target) for source, target, kind in rows if meant[kind])
    return Counter({(checks.names[source], checks.names[target]): count for (source, target), count in numbers.items()})


def _parts(
    counted: Counter[_Pair], cut: Callable[[_Pair], _Pair], only: Container[_Pair] | None = None
) -> dict[_Pair, int]:
    """The sum of each part, of all parts or of those named."""
    parts: dict[_Pair, int] = {}
    for pair, count in counted.items():
        key = cut(pair)
        if only is None or key in only:
            parts[key] = parts.get(key, 0) + count
    return parts
