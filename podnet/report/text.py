"""The results of the probes for people: the matrix, one line for each failure, one line of totals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.probe.results import Results
from podnet.report.groups import grouped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from podnet.diagnose.cause import Cause
    from podnet.model.lab import Lab
    from podnet.model.probe import Check, Result
    from podnet.report.blame import Blame

__all__ = ["failed_of", "failures", "findings", "matrix", "summary"]

_MOST_TARGETS = 40
_MOST_FAILURES = 200
_GREEN, _RED, _DIM, _RESET = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m"

_Pair = tuple[str, str]


def matrix(lab: Lab, results: Sequence[Result], *, color: bool, width: int) -> str:
    """Senders down, receivers across; a cell is ``ok``, ``FAIL``, or ``-`` where nothing was expected.

    A cell stands for all protocols and IP versions of its pair. ``width`` is columns of the terminal: where the
    names do not fit, columns are numbered as the rows are. Above 40 targets there is a row and a column per node,
    and a cell counts passed and expected.
    """
    order = [target.name for target in lab.targets]
    if len(_ends(results)) > _MOST_TARGETS:
        place = {t.name: t.node or (t.name if t.kind == "node" else f"{t.kind}s") for t in lab.targets}
        groups = list(dict.fromkeys(place[name] for name in order))
        counted = _tally(results, place)
        return _table(groups, counted, lambda ok, all_: f"{ok}/{all_}", color=color, width=width)
    counted = _tally(results, {name: name for name in order})
    return _table(order, counted, lambda ok, all_: "ok" if ok == all_ else "FAIL", color=color, width=width)


def failed_of(results: Sequence[Result]) -> Iterator[Result]:
    """The results that did not pass."""
    return results.failed() if isinstance(results, Results) else (each for each in results if not each.passed)


def failures(results: Sequence[Result], limit: int = _MOST_FAILURES) -> str:
    """One line for each failed check, empty if there is none; beyond ``limit`` lines only how many more there are."""
    failed = list(failed_of(results))
    lines = [_failure(result) for result in failed[:limit]]
    if len(failed) > limit:
        lines.append(f"... and {len(failed) - limit} more; -o json lists all")
    return "\n".join(lines)


def findings(lab: Lab, results: Sequence[Result], limit: int = _MOST_FAILURES, blame: Blame | None = None) -> str:
    """The failures with those that are alike in one line and an example below, empty where nothing failed.

    Those with one known cause come together, below a line with the cause and the command that mends it.
    """
    failed = list(failed_of(results))
    lines: list[str] = []
    groups = grouped(lab, results, failed, blame)
    cause: Cause | None = None
    for group in groups[:limit]:
        if group.cause is not cause:
            cause = group.cause
            lines.append(_heading(cause, sum(len(each.results) for each in groups if each.cause is cause)))
        first = group.results[0]
        if len(group.results) == 1:
            lines.append(_failure(first))
            continue
        many = f"all {len(group.results)}" if group.whole else f"{len(group.results)}"
        detail = f" ({first.detail})" if first.detail else ""
        lines.append(
            f"FAIL {many} checks {group.scope} {group.kinds}: expected {first.check.verdict}, "
            f"observed {first.observed}{detail}"
        )
        lines.append(f"     such as {_failure(first).removeprefix('FAIL ').partition(':')[0]}")
    if len(groups) > limit:
        lines.append(f"... and {len(groups) - limit} groups more")
    if len(groups) < len(failed):
        lines.append("(-o json lists every check)")
    return "\n".join(lines)


def _heading(cause: Cause | None, count: int) -> str:
    many = f"{count} failure{'s' if count > 1 else ''}"
    if cause is None:
        return f"{many} without a known cause"
    return f"{many} because {cause.text} [{cause.kind}]{f'; mend: {cause.mend}' if cause.mend else ''}"


def summary(results: Sequence[Result]) -> str:
    """The totals in one line; what could not be measured has failed, too."""
    passed = sum(results.passed) if isinstance(results, Results) else sum(result.passed for result in results)
    unproven = sum(result.observed == "unproven" for result in failed_of(results))
    also = f" ({unproven} of them unproven)" if unproven else ""
    return f"{len(results)} expected, {passed} passed, {len(results) - passed} failed{also}"


def _failure(result: Result) -> str:
    check = result.check
    detail = f" ({result.detail})" if result.detail else ""
    where = f", {_origin(check)}" if check.line else ""
    return (
        f"FAIL {check.source} -> {check.target} {check.protocol}{f'/{check.port}' if check.port else ''} "
        f"ipv{check.version}: expected {check.verdict}{where}, observed {result.observed}{detail}"
    )


def _origin(check: Check) -> str:
    return f"by line {check.line}"


def _ends(results: Sequence[Result]) -> set[str]:
    if isinstance(results, Results):
        return results.ends()
    return {name for result in results for name in (result.check.source, result.check.target)}


def _tally(results: Sequence[Result], place: Mapping[str, str]) -> dict[_Pair, tuple[int, int]]:
    """Passed and expected from place to place: from a run's columns where results are of a run."""
    if isinstance(results, Results):
        return results.tally(place)
    counted: dict[_Pair, tuple[int, int]] = {}
    for result in results:
        pair = (place[result.check.source], place[result.check.target])
        ok, all_ = counted.get(pair, (0, 0))
        counted[pair] = (ok + result.passed, all_ + 1)
    return counted


def _table(
    order: Sequence[str],
    counted: dict[_Pair, tuple[int, int]],
    cell: Callable[[int, int], str],
    *,
    color: bool,
    width: int,
) -> str:
    rows = [name for name in order if any(name == source for source, _ in counted)]
    columns = [name for name in order if any(name == target for _, target in counted)]
    if not counted:
        return ""
    cells = {pair: cell(*numbers) for pair, numbers in counted.items()}
    named = _widths(columns, columns, cells)
    labels, heads = rows, columns
    if max(map(len, rows)) + sum(w + 2 for w in named) > width:
        number = {name: str(at) for at, name in enumerate(dict.fromkeys([*rows, *columns]), 1)}
        labels = [f"{number[name]} {name}" for name in rows]
        heads = [number[name] for name in columns]
        # A receiver that never sends has no row to explain its number.
        legend = [f"{number[name]} {name}" for name in columns if name not in rows]
    else:
        legend = []
    widths = _widths(columns, heads, cells)
    margin = max(map(len, labels))
    lines = [" " * margin + "".join(f"  {head:>{w}}" for head, w in zip(heads, widths, strict=True))]
    for name, label in zip(rows, labels, strict=True):
        line = f"{label:<{margin}}"
        for column, w in zip(columns, widths, strict=True):
            text = cells.get((name, column), "-")
            ok, all_ = counted.get((name, column), (0, 0))
            line += "  " + _painted(f"{text:>{w}}", ok=ok, expected=all_, color=color)
        lines.append(line)
    return "\n".join([*lines, *(["also: " + ", ".join(legend)] if legend else [])])


def _widths(columns: Sequence[str], heads: Sequence[str], cells: dict[_Pair, str]) -> list[int]:
    longest = dict.fromkeys(columns, 1)
    for (_, column), text in cells.items():
        longest[column] = max(longest[column], len(text))
    return [max(len(head), longest[column]) for head, column in zip(heads, columns, strict=True)]


def _painted(text: str, *, ok: int, expected: int, color: bool) -> str:
    if not color:
        return text
    return (_DIM if not expected else _GREEN if ok == expected else _RED) + text + _RESET
