"""A lab on Debian's stock kernel: brought up, proved by packets, left as it is, taken down."""

from __future__ import annotations

import pytest
from lab_cli import TOPOLOGIES, clean, proved, succeeds

pytestmark = [pytest.mark.vm, pytest.mark.kernel]


def test_two_nodes_up_test_up_down() -> None:
    path = TOPOLOGIES / "two-nodes.yaml"
    assert " up (" in succeeds("up", path).out
    try:
        clean("two-nodes")
        proved("two-nodes")
        assert "nothing to change" in succeeds("up", path).out
    finally:
        succeeds("down", "two-nodes")
