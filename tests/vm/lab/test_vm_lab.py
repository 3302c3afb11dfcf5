"""A lab on Debian's stock kernel: brought up, proved by packets, left as it is, taken down."""

from __future__ import annotations

import pytest
from lab_cli import SECOND_TIER, TOPOLOGIES, clean, proved, succeeds

pytestmark = [pytest.mark.vm, pytest.mark.kernel]


@pytest.mark.parametrize("name", ["two-nodes", *SECOND_TIER])
def test_up_test_up_down(name: str) -> None:
    path = TOPOLOGIES / f"{name}.yaml"
    assert " up (" in succeeds("up", path).out
    try:
        clean(name)
        proved(name)
        assert "nothing to change" in succeeds("up", path).out
    finally:
        succeeds("down", name)
