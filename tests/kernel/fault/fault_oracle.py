"""One fault in one lab: inject it, ask packets, ask for the diagnosis, clear it; what was not as declared?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_labs import written
from lab_cli import succeeds
from lab_kernel import Snapshot, differences, snapshots

from podnet.diagnose.subjects import sampled, subjects_of
from podnet.diagnose.trail import Subject
from podnet.diagnose.why import diagnose
from podnet.fault.inject import Wish, clear, inject, site_of
from podnet.fault.model import Fault
from podnet.fault.site import Place, Site
from podnet.kernel.linux import LinuxKernel
from podnet.kernel.process import Supervisor
from podnet.lab import record
from podnet.probe.engine import run
from podnet.probe.expect import derive

_TIMEOUT = 0.3
_RECOVERS_WITHIN = 20.0  # seconds: failed neighbour entries are asked for again after a while
_FULL_SIZE = 1500


@dataclass
class Case:
    """What came of one fault: ``problems`` is empty where everything was as declared."""

    lab: str
    fault: str
    place: str
    family: str
    broken: int = 0
    right: int = 0
    unknown: int = 0
    problems: list[str] = field(default_factory=list)

    def row(self) -> str:
        return (
            f"{self.fault:22} {self.lab:11} {self.family:5} {self.place:26} broke {self.broken:3}, "
            f"named {self.right:3}, unknown {self.unknown:2}{'  ' + self.problems[0] if self.problems else ''}"
        )


class Oracle:
    """A running lab in which faults are tried one after the other."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entry = record.find(name)
        self.checks = derive(self.entry.lab)
        self.before: dict[str, Snapshot] = {}
        self._supervisor = Supervisor(record.directory(name))
        self._wait_until_all_passes()
        self.before = snapshots(name)

    @contextmanager
    def _kernel(self) -> Iterator[LinuxKernel]:
        kernel = LinuxKernel(self._supervisor)
        try:
            yield kernel
        finally:
            kernel.close()

    def site(self) -> Site:
        with self._kernel() as kernel:
            return site_of(self.entry, kernel)

    def versions(self, fault: Fault) -> list[int]:
        own = self.entry.lab.versions
        if fault.versions == "both":
            return list(own[:1])
        return [v for v in own if v == 4] if fault.versions == "ipv4" else list(own)

    def tried(self, fault: Fault, place: Place, version: int) -> Case:
        site = self.site()
        family = "both" if fault.versions == "both" else f"ipv{version}"
        case = Case(self.name, fault.name, str(place), family)
        with self._kernel() as kernel:
            inject(self.name, Wish(fault.name, place.at, place.to, version), kernel, self._supervisor)
        try:
            self._compare(site, fault, place, version, case)
        finally:
            with self._kernel() as kernel:
                clear(self.name, [], kernel, self._supervisor)
        left = self._wait_until_all_passes()
        case.problems += [f"still broken after it was cleared: {each}" for each in left]
        case.problems += [f"not as before: {each}" for each in differences(self.before, snapshots(self.name))]
        return case

    def _compare(self, site: Site, fault: Fault, place: Place, version: int, case: Case) -> None:
        results = run(self.entry.lab, self.checks, timeout=_TIMEOUT)
        failed = {result.check for result in results if not result.passed}
        case.broken = len(failed)
        for trip in site.trips:
            declared = fault.outcome(site, place, version, trip)
            if declared is not None and declared != (trip.check in failed):
                what = "did not break" if declared else "broke besides"
                check = trip.check
                case.problems.append(f"{what}: {check.source} -> {check.target} {check.protocol} ipv{check.version}")
        subjects = sampled(subjects_of([result for result in results if not result.passed]))
        if fault.large:
            subjects = [
                Subject(c.source, c.target, c.protocol, c.version, size=_FULL_SIZE)
                for trip in site.trips
                if (c := trip.check).protocol == "icmp"
                and c.verdict == "reach"
                and fault.outcome(site, place, version, trip, large=True)
            ]
            case.broken = len(subjects)
        here = {site.netns(place.at), site.far_end(place.at).netns}
        for found in diagnose(self.entry.lab, self.entry.wanted, subjects):
            if found.cause is None:
                case.unknown += 1
                if found.passed and fault.large:
                    case.problems.append(f"did not break: {found.trail.subject}")
            elif found.cause.kind in fault.says and found.cause.netns in here:
                case.right += 1
            else:
                case.problems.append(f"wrong: {found.cause.kind}: {found.cause.text} ({found.trail.subject})")

    def _wait_until_all_passes(self) -> list[str]:
        deadline = time.monotonic() + _RECOVERS_WITHIN
        while True:
            failed = [r for r in run(self.entry.lab, self.checks, timeout=_TIMEOUT) if not r.passed]
            if not failed or time.monotonic() > deadline:
                return [f"{r.check.source} -> {r.check.target} {r.check.protocol}" for r in failed]


def built(folder: Path, topology: dict[str, Any]) -> Oracle:
    succeeds("up", written(folder, topology))
    return Oracle(topology["name"])


def table(cases: list[Case]) -> str:
    count = Counter(right=sum(c.right for c in cases), unknown=sum(c.unknown for c in cases))
    total = count["right"] + count["unknown"]
    share = 100 * count["right"] / total if total else 100.0
    lines = [case.row() for case in cases]
    return "\n".join(
        [*lines, f"{len(cases)} cases, {total} diagnoses: {share:.1f} % named, {count['unknown']} unknown"]
    )
