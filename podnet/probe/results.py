"""The results of a run: judged all at once where that is simple, made as objects when somebody looks at one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from podnet.model.probe import Result
from podnet.probe.addressing import Sources, described
from podnet.probe.ledger import REPLIED, SILENT
from podnet.probe.verdict import judge
from podnet.probe.voices import Voices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podnet.model.lab import Lab
    from podnet.probe.ledger import Ledger
    from podnet.probe.paths import Paths
    from podnet.probe.plan import Checks

__all__ = ["Results"]

_MOST_KEPT = 20_000  # failed results, which are asked for several times: 10 MB


class Results(Sequence[Result]):
    """One result for each check, in order; ``passed`` is a byte each, 1 where the check passed."""

    def __init__(self, lab: Lab, checks: Checks, ledger: Ledger, remark: str = "") -> None:
        self.checks, self.ledger = checks, ledger
        self.paths: Paths | None = None
        self._remark = remark
        self._sources, self._voices = Sources(lab), Voices(lab, ledger)
        self._replaced: dict[int, Result] = {}
        self._kept: dict[int, Result] = {}
        self.passed = self._judged()

    def __len__(self) -> int:
        return len(self.checks)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> list[Result]: ...
    def __getitem__(self, index: int | slice) -> Result | list[Result]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._replaced.get(index) or self._result(index)

    def put(self, index: int, result: Result) -> None:
        """Put what a later look gave in the place of a result."""
        self._replaced[index] = result
        self._kept.pop(index, None)
        self.passed[index] = result.passed

    def failed(self) -> Iterator[Result]:
        """The results that did not pass, in order."""
        at = self.passed.find(0)
        while at >= 0:
            result = self._kept.get(at)
            if result is None:
                result = self[at]
                if len(self._kept) < _MOST_KEPT:
                    self._kept[at] = result
            yield result
            at = self.passed.find(0, at + 1)

    def ends(self) -> set[str]:
        """The names of all senders and receivers."""
        return {self.checks.names[number] for number in {*self.checks.source, *self.checks.target}}

    def tally(self, place: Mapping[str, str]) -> dict[tuple[str, str], tuple[int, int]]:
        """Passed and expected checks from place to place; ``place`` is by name of a target. No result is made."""
        places = [place[name] for name in self.checks.names]
        sources, targets = (map(places.__getitem__, end) for end in (self.checks.source, self.checks.target))
        tally: dict[tuple[str, str], tuple[int, int]] = {}
        for (source, target, passed), number in Counter(zip(sources, targets, self.passed, strict=True)).items():
            ok, all_ = tally.get((source, target), (0, 0))
            tally[source, target] = (ok + number * passed, all_ + number)
        return tally

    def _judged(self) -> bytearray:
        """What a reply from where it was expected settles at once; the rest one by one."""
        ledger, checks = self.ledger, self.checks
        passed = bytearray(len(checks))
        simple = [kind.verdict == "reach" for kind in checks.kinds]
        lost = [kind.verdict == "drop" for kind in checks.kinds]
        fits: dict[tuple[int, int, int], bool] = {}
        columns = zip(
            ledger.state[: len(checks)], ledger.arrived[: len(checks)], ledger.seen[: len(checks)],
            ledger.send_errno[: len(checks)], checks.kind, checks.source, strict=True,
        )  # fmt: skip
        for index, (state, arrived, seen, refused, kind, source) in enumerate(columns):
            if state == REPLIED and arrived and simple[kind]:
                key = (kind, source, seen)
                known = fits.get(key)
                if known is None:
                    known = fits[key] = self._sources.fits(checks[index], ledger.text(seen))
                passed[index] = known
            elif not state & ~SILENT and not arrived and not refused and index not in ledger.unproven:
                passed[index] = lost[kind]  # it never arrived
            else:
                passed[index] = self._result(index).passed
        return passed

    def _result(self, index: int) -> Result:
        check, evidence = self.checks[index], self.ledger.evidence(index)
        silent_means_reach = check.protocol == "udp" and not check.listen
        observed, detail = judge(evidence, silent_means_reach=silent_means_reach, remark=self._remark)
        if check.protocol == "sctp":
            detail = detail.replace("TCP reset", "SCTP abort")  # the same bit of the evidence
        passed = observed == check.verdict
        if passed and observed in ("reach", "refuse") and evidence.source_seen:
            passed = self._sources.fits(check, evidence.source_seen)
            if not passed:
                detail = f"{check.target} saw {evidence.source_seen}, expected {described(check.seen)}"
        passed, detail = self._voices.judge(check, index, passed=passed, detail=detail)
        return Result(
            check, observed, evidence.source_seen, passed, evidence.rtt_ms, detail, evidence.reporter, evidence.ttl
        )
