"""The tests of faults and of diagnosis stand on labs: they share what the lab's own tests have for that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))

from lab_cli import podnet
from lab_kernel import namespaces


@pytest.fixture(autouse=True)
def _no_lab_outlives_its_test(machine_unchanged: None) -> Iterator[None]:
    before = namespaces()
    yield
    done = podnet("down", "--all")
    left = namespaces() - before
    for name in left:  # what podnet did not manage must not fail the next test too
        subprocess.run(["ip", "netns", "del", name], check=False)
    assert done.code == 0, done.text
    assert not left, f"'podnet down --all' left the namespaces {sorted(left)}"


@pytest.fixture(autouse=True)
def _no_trace_is_left(machine_unchanged: None) -> Iterator[None]:
    yield
    for netns in namespaces():
        tables = subprocess.run(["ip", "netns", "exec", netns, "nft", "list", "tables"], capture_output=True, text=True)
        assert "podnet-why" not in tables.stdout, f"a diagnosis left its rules in {netns}"
