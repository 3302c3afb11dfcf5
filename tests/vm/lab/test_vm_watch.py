"""A watch where packets are duplicated and overtake each other, which needs netem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab_cli import podnet, succeeds, two_nodes, write

pytestmark = [pytest.mark.vm, pytest.mark.kernel]


def test_a_watch_counts_what_netem_duplicates_and_reorders(tmp_path: Path) -> None:
    succeeds("up", write(tmp_path, two_nodes()))

    def watched() -> dict[str, Any]:
        done = succeeds("watch", "lab", "--from", "web", "--to", "db", "--rate", "10", "--count", "40",
                        "--timeout", "5", "-o", "json")  # fmt: skip
        lines = [json.loads(line) for line in done.out.splitlines()]
        [summary] = [line for line in lines if line["type"] == "summary"]
        assert (summary["sent"], summary["received"], summary["lost"]) == (40, 40, 0), summary
        found: dict[str, Any] = summary
        return found

    # node1 sends the requests twice; each copy is answered.
    succeeds("impair", "node1", "--duplicate", "100%")
    seen = watched()
    assert (seen["request"]["duplicates"], seen["duplicates"]) == (40, 40)
    assert (seen["request"]["reordered"], seen["reordered"]) == (0, 0)
    # Half of the requests overtake those that wait, five probes long.
    succeeds("impair", "node1", "--delay", "500ms", "--reorder", "50%")
    seen = watched()
    assert seen["request"]["reordered"] > 5
    assert seen["reordered"] > 5
    assert (seen["request"]["duplicates"], seen["duplicates"]) == (0, 0)
    assert seen["rtt_ms"]["max"] > 500
    succeeds("impair", "node1", "--clear")
    assert podnet("down", "--all").code == 0
