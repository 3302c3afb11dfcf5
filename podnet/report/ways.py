"""The ways of a run's packets, for people: those that differ from what the model predicts first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.probe.predict import Predictor
from podnet.report.story import path_line

if TYPE_CHECKING:
    from podnet.model.lab import Lab
    from podnet.model.path import Path
    from podnet.probe.results import Results

__all__ = ["differing", "ways"]

_MOST = 60


def ways(lab: Lab, results: Results) -> str:
    """One line a check: failed ones first, then those on another way than predicted, at most 60 in all."""
    if results.paths is None:
        return ""
    predictors = {version: Predictor(lab, version) for version in lab.versions}
    known = {target.name for target in lab.targets}
    modelled = any(target.kind != "pod" for target in lab.targets)  # of bare namespaces no way can be predicted
    strays: list[tuple[int, str]] = []
    lines: list[tuple[int, str]] = []
    for index in range(len(results)):
        path = results.paths.of(index)
        check = results.checks[index]
        text = f"{check.source} -> {check.target} {check.protocol} ipv{check.version}: {path_line(path)}"
        predicted = _predicted(predictors[check.version], lab, check.source, check.target)
        if modelled and results.passed[index] and differing(path, predicted, known):
            strays.append((index, f"{text}; predicted: {' > '.join(predicted or ('no way',))}"))
        elif len(lines) < _MOST or not results.passed[index]:
            lines.append((index, text))
    lines.sort(key=lambda line: bool(results.passed[line[0]]))
    shown = [text for _, text in [*strays, *lines]][:_MOST]
    if len(results) > len(shown):
        shown.append(f"... and {len(results) - len(shown)} more; -o json lists all")
    if strays:
        shown.append(f"{len(strays)} went another way than the topology predicts")
    if not results.paths.complete:
        shown.append("not all hops could be kept: ask for fewer pairs with --from and --to")
    return "\n".join(shown)


def differing(path: Path, predicted: tuple[str, ...] | None, known: set[str]) -> bool:
    """Whether a packet that arrived came another way than the model predicts; switches are no hosts."""
    seen: list[str] = []
    for place in path.places():
        if place in known and (not seen or seen[-1] != place):
            seen.append(place)
    return predicted is None or tuple(seen) != predicted


def _predicted(predictor: Predictor, lab: Lab, source: str, target: str) -> tuple[str, ...] | None:
    ends = lab.target(source), lab.target(target)
    assert ends[0] is not None  # noqa: S101 - results are of targets of the lab
    assert ends[1] is not None  # noqa: S101
    return predictor.way(ends[0], ends[1])
