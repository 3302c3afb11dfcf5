"""The tests of fabrics share command line and looks at the kernel with those of the labs, and end with no lab."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))

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
    for name in namespaces() - before:
        subprocess.run(["ip", "netns", "del", name], check=False)
    assert done.code == 0, done.text
