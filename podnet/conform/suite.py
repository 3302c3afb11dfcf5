"""Judging one plugin: ask what it is, run each case on a bench of its own, collect the verdicts."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from podnet.conform.bench import Bench, run_all
from podnet.conform.case import Case
from podnet.conform.model import (
    KNOWN_VERSIONS,
    NotApplicableError,
    NotMeasuredError,
    Result,
    Verdict,
    ViolationError,
)
from podnet.conform.observe import run_tool
from podnet.conform.requirements import cases, select
from podnet.conform.results import version_tuple
from podnet.conform.subject import Subject
from podnet.errors import CapabilityError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podnet.conform.model import Exchange, Level, Requirement
    from podnet.conform.profiles import Profile

__all__ = ["PRIVATE", "Report", "judge", "prepare"]

# Where plugins keep state and read the machine's configuration.
PRIVATE = ("/var/lib/cni", "/var/lib/podnet", "/etc/cni")
_CASE_TIMEOUT = 240.0


@dataclass(frozen=True, slots=True)
class Report:
    """What was found about a plugin."""

    plugin: str
    kind: str
    versions: tuple[str, ...]
    results: tuple[Result, ...]
    seconds: float

    def count(self, verdict: Verdict) -> int:
        """How many results have a verdict."""
        return sum(result.verdict == verdict for result in self.results)

    @property
    def exit_code(self) -> int:
        """0 without a failure, 1 with one, 3 where none was found but not all could be measured."""
        if self.count("fail"):
            return 1
        return CapabilityError.exit_code if self.count("not measured") else 0


def prepare(
    path: str, profile: Profile, *, cni_path: Sequence[str] = (), timeout: float = 30.0, limit: str = KNOWN_VERSIONS[-1]
) -> Subject:
    """The plugin at a path, ready to be asked; its versions are not known yet, and none newer than ``limit`` counts.

    Raises ``UsageError`` where there is no executable, ``CapabilityError`` where a tool is missing.
    """
    full = os.path.abspath(path)
    if not os.path.isfile(full) or not os.access(full, os.X_OK):
        msg = f"{path} is no executable file; give the path of a CNI plugin, for example /opt/cni/bin/bridge"
        raise UsageError(msg)
    if shutil.which("ip") is None:
        msg = "the tool 'ip' is missing, by which the suite looks at the kernel; install iproute2"
        raise CapabilityError(msg)
    folders = dict.fromkeys([os.path.dirname(full), *(os.path.abspath(each) for each in cni_path)])
    return Subject(full, profile, KNOWN_VERSIONS[-1:], tuple(folders), timeout, limit)


def judge(
    subject: Subject,
    *,
    only: Sequence[str] = (),
    levels: Sequence[Level] = (),
    parallel: int = 2,
    private: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Run the requirements that apply to the plugin's kind, and return a verdict on each.

    ``progress(done, total)`` is called after each case. Raises ``UsageError`` for ids that do not exist,
    ``CapabilityError`` where this machine cannot measure (no root, no namespaces, no such kind of link).
    """
    started = time.monotonic()
    rows, unknown = select(only, kind=subject.profile.kind, levels=levels)
    if unknown:
        msg = f"no requirement has the id {', '.join(unknown)}; podnet conform --list shows all"
        raise UsageError(msg)
    bench = Bench((*PRIVATE, *private), keep=_kept(subject))
    ((_, probed),) = run_all(bench, [partial(_probe, subject)], parallel=1, timeout=_CASE_TIMEOUT)
    if isinstance(probed, Exception):
        raise probed if isinstance(probed, CapabilityError) else CapabilityError(f"cannot measure here: {probed}")
    versions, adds = probed
    subject = replace(subject, versions=versions, adds=adds)
    wanted_versions = {each.split("@")[1] for each in only if "@" in each}
    chosen = [
        (row, version)
        for row, version in cases(rows, subject.versions, subject.profile.kind)
        if not wanted_versions or not row.per_version or version in wanted_versions
    ]
    results: dict[int, Result] = {}
    jobs = [partial(_judge_one, subject, row, version) for row, version in chosen]
    for number, answer in run_all(bench, jobs, parallel=parallel, timeout=_CASE_TIMEOUT):
        if isinstance(answer, CapabilityError):
            raise answer
        row, version = chosen[number]
        results[number] = answer if isinstance(answer, Result) else _result(row, version, "not measured", str(answer))
        if progress:
            progress(len(results), len(chosen))
    return Report(
        plugin=subject.path,
        kind=subject.profile.kind,
        versions=subject.versions,
        results=tuple(results[number] for number in sorted(results)),
        seconds=time.monotonic() - started,
    )


def _kept(subject: Subject) -> tuple[str, ...]:
    """Directories that must stay visible on the bench although what is above them is hidden."""
    # The suite's own delegate is a script: its source and its interpreter are needed, too.
    folders = [*subject.cni_path, str(Path(__file__).parent), sys.prefix, sys.base_prefix]
    hidden = ("/run", *PRIVATE)
    return tuple(f for f in (os.path.realpath(f) for f in folders) if f.startswith(tuple(f"{h}/" for h in hidden)))


def _probe(subject: Subject) -> tuple[tuple[str, ...], bool]:
    """On a bench: which versions the plugin announces (0.1.0 if it does not know the verb), and whether it adds."""
    for kind in subject.profile.needs:
        run_tool(["ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"])
        done = run_tool(["ip", "link", "add", "link", "probe0", "name", "probe2", "type", kind])
        if done.returncode != 0:
            msg = f"this kernel has no {kind} ({done.stderr.strip()}), which this plugin needs"
            raise CapabilityError(msg)
    case = Case(subject, KNOWN_VERSIONS[-1])
    announced: list[str] = []
    with suppress(ViolationError):
        exchange = case.run("VERSION", title="VERSION")
        found = case.result_of(exchange).get("supportedVersions") if exchange.code == 0 else None
        announced = [each for each in KNOWN_VERSIONS if isinstance(found, list) and each in found]
    versions = tuple(announced or KNOWN_VERSIONS[:1])
    limit = version_tuple(subject.limit)
    versions = tuple(each for each in versions if version_tuple(each) <= limit) or versions[:1]
    case.version = versions[-1]
    adds = False
    with suppress(ViolationError):
        adds = case.run("ADD", case.attachment()).code == 0
    return versions, adds


def _judge_one(subject: Subject, row: Requirement, version: str) -> Result:
    """On a bench: the verdict on one requirement."""
    started = time.monotonic()
    exchanges: list[Exchange] = []
    verdict: Verdict
    if version_tuple(version) < version_tuple(row.since):
        evidence = f"came with {row.since}; the plugin announces up to {subject.newest}"
        return _result(row, version, "not applicable", evidence)
    try:
        case = Case(subject, version)
        exchanges = case.exchanges
        verdict, evidence = "pass", row.judge(case) or ""
    except ViolationError as error:
        verdict, evidence = "fail", str(error)
        if (
            not subject.adds
            and row.id != "A1a"
            and any(e.env.get("CNI_COMMAND") == "ADD" and e.code for e in exchanges)
        ):
            verdict, evidence = "not measured", f"a plain ADD fails (see A1a); here: {error}"
    except NotApplicableError as error:
        verdict, evidence = "not applicable", str(error)
    except NotMeasuredError as error:
        verdict, evidence = "not measured", str(error)
    return replace(
        _result(row, version, verdict, evidence),
        seconds=time.monotonic() - started,
        exchanges=tuple(exchanges) if verdict in {"fail", "not measured"} else (),
    )


def _result(row: Requirement, version: str, verdict: Verdict, evidence: str) -> Result:
    in_version = row.per_version and version_tuple(version) >= version_tuple(row.since)
    identity = f"{row.id}@{version}" if in_version else row.id
    return Result(identity, row.level, row.text, row.source, row.section, verdict, evidence, version)
