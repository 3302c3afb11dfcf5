"""Which cause each failed result has: its own replay's, or that of all replays that failed alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.diagnose.subjects import subject_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podnet.diagnose.cause import Cause, Diagnosis
    from podnet.diagnose.trail import Subject
    from podnet.model.lab import Lab
    from podnet.model.probe import Result

__all__ = ["Blame", "Blamed", "Key", "key_of"]

_Alike = tuple[object, ...]
Key = tuple[str, str, str, str]


class Blamed(NamedTuple):
    """One cause of a run: how many failed checks have it, how many of them were replayed, and where it is."""

    cause: Cause
    place: str
    failures: int
    replayed: int


def key_of(cause: Cause) -> Key:
    """What makes two causes one: what is wrong, where, and what mends it."""
    return (cause.kind, cause.netns, cause.what, cause.mend)


class Blame:
    """The diagnoses of a run by result.

    Of very many failures a sample is replayed. Others have the cause of those that failed in the same way between the
    same places, where it is one: ``of`` tells by its second value whether the result was replayed itself.
    """

    def __init__(self, lab: Lab, failed: Iterable[Result], diagnoses: Sequence[Diagnosis]) -> None:
        self._place = {t.name: t.node if t.kind == "pod" and t.node else t.name for t in lab.targets}
        self._names = {target.netns: target.name for target in lab.targets}
        self._by_subject: dict[Subject, Diagnosis] = {each.trail.subject: each for each in diagnoses}
        self._alike: dict[_Alike, Diagnosis | None] = {}
        self.causes: list[Blamed] = []
        if diagnoses:
            failures = list(failed)
            self._learn(failures)
            self.causes = self._counted(failures)

    def _learn(self, failures: Sequence[Result]) -> None:
        for result in failures:
            found = self._replayed(result)
            if found is None:
                continue
            alike = self._likeness(result)
            before = self._alike.setdefault(alike, found)
            if before is not None and _key(before) != _key(found):
                self._alike[alike] = None  # they have several causes

    def _replayed(self, result: Result) -> Diagnosis | None:
        subject = subject_for(result)
        return None if subject is None else self._by_subject.get(subject)

    def _likeness(self, result: Result) -> _Alike:
        check = result.check
        ends = (self._place.get(check.source, check.source), self._place.get(check.target, check.target))
        itself = check.source == check.target
        return (*ends, itself, *_kind(result), result.observed, result.detail)

    def _counted(self, failures: Sequence[Result]) -> list[Blamed]:
        counts: dict[Key, list[int]] = {}
        causes: dict[Key, Cause] = {}
        for result in failures:
            found, replayed = self.of(result)
            if found is None or found.cause is None:
                continue
            key = key_of(found.cause)
            causes.setdefault(key, found.cause)
            count = counts.setdefault(key, [0, 0])
            count[0] += 1
            count[1] += replayed
        blamed = [Blamed(causes[key], self.place(causes[key]), *count) for key, count in counts.items()]
        return sorted(blamed, key=lambda each: -each.failures)

    def of(self, result: Result) -> tuple[Diagnosis | None, bool]:
        """The diagnosis of a failed result, if there is one, and whether it is of this very result."""
        if result.passed or not self._by_subject:
            return None, False
        own = self._replayed(result)
        if own is not None:
            return own, True
        return self._alike.get(self._likeness(result)), False

    def cause(self, result: Result) -> Cause | None:
        """The cause of a failed result, if it is known."""
        found, _ = self.of(result)
        return found.cause if found is not None else None

    def facts(self, result: Result) -> dict[str, str | list[str]]:
        """What is known of why a result failed, in words; nothing where nothing was found out."""
        found, replayed = self.of(result)
        if found is None:
            return {}
        facts: dict[str, str | list[str]] = {}
        if cause := found.cause:
            facts |= {
                "cause": cause.text, "kind": cause.kind, "place": self.place(cause), "what": cause.what,
                "evidence": list(cause.evidence),
            }  # fmt: skip
        if replayed:
            facts |= {"last seen": found.last, "kernel": list(found.reasons), "note": found.note}
        else:
            facts["note"] = "not replayed itself: as all that were, of those that failed alike between the same places"
        if cause := found.cause:
            facts |= {"see": cause.show, "mend": cause.mend}
        return {name: value for name, value in facts.items() if value}

    def place(self, cause: Cause) -> str:
        """Where a cause is: the target's name, else the namespace's."""
        return self._names.get(cause.netns, cause.netns or "the machine")


def _key(diagnosis: Diagnosis) -> Key | None:
    return None if diagnosis.cause is None else key_of(diagnosis.cause)


def _kind(result: Result) -> tuple[object, ...]:
    """All of a check but its two ends."""
    check = result.check
    return (check.protocol, check.version, check.port, check.verdict, check.seen)
