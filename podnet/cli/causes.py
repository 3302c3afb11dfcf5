"""Why what failed in a run of ``podnet test`` did so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podnet.diagnose.cause import Diagnosis
    from podnet.diagnose.trail import Subject
    from podnet.model.lab import Lab
    from podnet.model.probe import Result
    from podnet.probe.results import Results

__all__ = ["Causes"]


class Causes:
    """The diagnoses of a run: begun while silence is waited for, completed when all results are there.

    ``name`` is a running lab's, ``None`` for namespaces that podnet did not make: of those it is taken that they
    should be as they are. For ``why`` false there are none; without a word about it, the answer to an exercise is not
    given away.
    """

    def __init__(self, name: str | None, lab: Lab, places: Sequence[str], why: bool | None) -> None:
        self._name, self._lab, self._places, self._why = name, lab, places, why
        self._asked: set[Subject] = set()
        self._found: list[Diagnosis] = []

    def look(self, results: Results) -> None:
        """Replay what failed and was not looked at before, which takes about half a second."""
        from podnet.diagnose.subjects import sampled

        new = [each for each in self._subjects(results.failed()) if each not in self._asked]
        if new and self._wanted():
            self._asked.update(new)
            self._found += self._diagnosed(sampled(new))

    def of(self, results: Results) -> list[Diagnosis]:
        """The diagnoses of what failed in the end."""
        self.look(results)
        failed = set(self._subjects(results.failed())) if self._found else set()
        return [each for each in self._found if each.trail.subject in failed]

    def _subjects(self, failed: Iterable[Result]) -> list[Subject]:
        first = next(iter(failed := iter(failed)), None)
        if first is None:
            return []
        from podnet.diagnose.subjects import subjects_of

        return subjects_of([first, *failed])

    def _wanted(self) -> bool:
        if self._why is None and self._name is not None:
            from podnet.fault import ledger

            self._why = not any(entry.hidden for entry in ledger.load(self._name))
        return self._why is not False

    def _diagnosed(self, subjects: Sequence[Subject]) -> list[Diagnosis]:
        from podnet.diagnose.why import diagnose

        if self._name is not None:
            from podnet.lab import record

            return diagnose(self._lab, record.find(self._name).wanted, subjects)
        from contextlib import closing

        from podnet.kernel.linux import LinuxKernel

        with closing(LinuxKernel()) as kernel:
            return diagnose(self._lab, kernel.observe(self._places), subjects, running=False)
