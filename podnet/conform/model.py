"""The nouns of the suite: a requirement, what the plugin was asked and answered, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podnet.conform.case import Case

__all__ = [
    "ALL_KINDS",
    "CHAINED",
    "INTERFACE",
    "IPAM",
    "KNOWN_VERSIONS",
    "Exchange",
    "Kind",
    "Level",
    "NotApplicableError",
    "NotMeasuredError",
    "Requirement",
    "Result",
    "Verdict",
    "ViolationError",
    "not_applicable",
    "violated",
]

Kind = Literal["interface", "chained", "ipam"]
Level = Literal["MUST", "SHOULD", "library", "practice"]
Verdict = Literal["pass", "fail", "not applicable", "not measured"]

INTERFACE: tuple[Kind, ...] = ("interface",)
CHAINED: tuple[Kind, ...] = ("chained",)
IPAM: tuple[Kind, ...] = ("ipam",)
ALL_KINDS: tuple[Kind, ...] = ("interface", "chained", "ipam")

# Every version of the specification that was published, oldest first.
KNOWN_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


class ViolationError(Exception):
    """The plugin does not do what the requirement says; the message is the evidence."""


class NotApplicableError(Exception):
    """The requirement says nothing about this plugin in this configuration; the message says why."""


class NotMeasuredError(Exception):
    """The case could not come to a verdict, for example since an earlier step failed; the message says why."""


def violated(text: str) -> NoReturn:
    """End the case: the requirement is not met."""
    raise ViolationError(text)


def not_applicable(text: str) -> NoReturn:
    """End the case: the requirement does not apply."""
    raise NotApplicableError(text)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One execution of the plugin: what it was given, and what it did.

    ``code`` is the exit code, negative for a signal, ``None`` where it was still running after the time limit.
    """

    title: str
    env: Mapping[str, str]
    stdin: str
    code: int | None
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Requirement:
    """One testable fact about a plugin.

    ``level`` says who demands it: ``MUST`` and ``SHOULD`` the specification, ``library`` the reference library
    (libcni, skel), on whose behaviour runtimes have come to depend, ``practice`` what operators need beyond both.
    ``per_version`` runs the case once for each announced version between ``since`` and ``until``.
    """

    id: str
    level: Level
    text: str
    source: str
    judge: Callable[[Case], str | None]
    kinds: tuple[Kind, ...] = ALL_KINDS
    since: str = "0.1.0"
    until: str = KNOWN_VERSIONS[-1]
    per_version: bool = False
    section: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict on one requirement (in one version), with its evidence and everything the plugin was asked."""

    id: str
    level: Level
    text: str
    source: str
    section: str
    verdict: Verdict
    evidence: str
    version: str
    seconds: float = 0.0
    exchanges: tuple[Exchange, ...] = field(default=())

    def document(self) -> dict[str, Any]:
        """As JSON; the exchanges only where there is something to look into."""
        entry: dict[str, Any] = {
            "id": self.id,
            "level": self.level,
            "section": self.section,
            "text": self.text,
            "source": self.source,
            "verdict": self.verdict,
            "evidence": self.evidence,
            "cniVersion": self.version,
            "seconds": round(self.seconds, 3),
        }
        if self.verdict in {"fail", "not measured"}:
            entry["exchanges"] = [
                {
                    "title": each.title,
                    "env": dict(each.env),
                    "stdin": each.stdin,
                    "exitCode": each.code,
                    "stdout": each.stdout,
                    "stderr": each.stderr,
                    "seconds": round(each.seconds, 3),
                }
                for each in self.exchanges
            ]
        return entry
