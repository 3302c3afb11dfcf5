"""Every fault breaks what it declares and nothing else, the diagnosis names it, and clearing leaves no trace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_labs import ASYMMETRIC, SERVED, SUBNETS, TWO_NODES, shipped
from fault_oracle import Case, Oracle, built, table

from podnet.fault.library import FAULTS

pytestmark = pytest.mark.kernel

# Of 100 broken pairs, at least so many must have their cause named; none may have a wrong one.
_NAMED = 0.95

# The short form tries each fault at one place, for one IP version; the long one (scripts/stress faults) tries all
# for both, at up to three places, and in the labs of topologies/ too.
_LONG = int(os.environ.get("PODNET_STRESS_COUNT", "0")) > 10
_SHIPPED = ("docker0", "ipv6", "dual-stack", "sidecar", "host-node", "two-subnets") if _LONG else ()

_LABS: dict[str, dict[str, Any]] = {
    "two": TWO_NODES,
    "subnets": SUBNETS,
    "asymmetric": ASYMMETRIC,
    "served": SERVED,
}
# In the short form the first two labs take turns; these faults are tried where nothing else would do.
_ONLY_IN = {"rp-filter-strict": "asymmetric", "listener-gone": "served", "masquerade-missing": "subnets"}
_NOT_ALONE = {"port-isolated", "hairpin-off", "mac-pinned", "duplicate-address", "wrong-gateway"}  # two pods a node


def _lab_of(number: int, name: str) -> str:
    return _ONLY_IN.get(name) or ("two" if name in _NOT_ALONE or number % 3 else "subnets")


def _judged(cases: list[Case], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("\n" + table(cases))
    assert [f"{case.row()}: {problem}" for case in cases for problem in case.problems] == []
    right, unknown = sum(case.right for case in cases), sum(case.unknown for case in cases)
    assert right >= _NAMED * (right + unknown), table(cases)


@pytest.mark.stress
@pytest.mark.timeout(0 if _LONG else 600)
@pytest.mark.parametrize("lab", [*_LABS, *_SHIPPED])
def test_faults_break_what_they_declare_and_are_named(
    lab: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    oracle = built(tmp_path, _LABS.get(lab) or shipped(lab))
    cases = list(_everything(oracle) if _LONG else _selection(oracle, lab))
    assert cases
    _judged(cases, capsys)


def _selection(oracle: Oracle, lab: str) -> Iterator[Case]:
    chosen = [f for number, f in enumerate(FAULTS) if _lab_of(number, f.name) == lab and not f.machine]
    for number, fault in enumerate(chosen):
        versions = oracle.versions(fault)
        version = versions[number % len(versions)]
        places = fault.places(oracle.site(), version)
        assert places, f"{fault.name} finds no place in lab {lab}"
        yield oracle.tried(fault, places[number % len(places)], version)


def _everything(oracle: Oracle) -> Iterator[Case]:
    """Each fault for each IP version at up to three places: the first, the last, and one between."""
    for fault in (each for each in FAULTS if not each.machine):  # those of the machine: tests/vm/lab/test_vm_limits.py
        for version in oracle.versions(fault):
            places = fault.places(oracle.site(), version)
            for place in dict.fromkeys([*places[:1], *places[len(places) // 2 :][:1], *places[-1:]]):
                yield oracle.tried(fault, place, version)
