"""Every lab of topologies/ comes up, is proved by packets, stays as it is, and goes away without a trace."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lab_cli import SECOND_TIER, TOPOLOGIES, clean, proved, succeeds
from lab_kernel import differences, eventually, inside, namespaces_of, snapshots

pytestmark = pytest.mark.kernel

FILES = sorted(TOPOLOGIES.glob("*.yaml"))


def _listens(netns: str, port: int) -> bool:
    argv = inside(netns, "ss", "-Htln", f"sport = :{port}")
    return bool(subprocess.run(argv, capture_output=True, check=True, text=True).stdout)


def test_there_is_a_lab_for_each_idea() -> None:
    ideas = {"docker0", "two-nodes", "two-subnets", "dual-stack", "ipv6", "host-node", "sidecar", "vxlan", "bgp"}
    ideas.update(SECOND_TIER)
    assert {path.stem for path in FILES} >= ideas


@pytest.mark.parametrize("path", [path for path in FILES if path.stem not in SECOND_TIER], ids=lambda path: path.stem)
def test_up_test_up_down(path: Path) -> None:
    name = path.stem
    up = succeeds("up", path)
    assert f"lab {name}:" in up.out
    assert " up (" in up.out
    clean(name)
    if name == "sidecar":
        eventually(lambda: _listens("sidecar.web", 8080))
    proved(name)
    clean(name)  # the probes left nothing behind

    before = snapshots(name, "")
    assert len(before) > 2
    again = succeeds("up", path)
    assert "nothing to change" in again.out
    assert differences(before, snapshots(name, "")) == []

    succeeds("down", name)
    assert namespaces_of(name) == []  # all else is compared by the fixture


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_opens_with_a_picture_of_its_addresses_and_what_to_try(path: Path) -> None:
    opening = path.read_text().partition("\nname:")[0].splitlines()
    assert all(line.startswith("#") or not line for line in opening)
    assert any("Try:" in line for line in opening)
    assert any(f"podnet up topologies/{path.name}" in line for line in opening)
