"""Every test of the lab ends with no lab, whatever happened in it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
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
