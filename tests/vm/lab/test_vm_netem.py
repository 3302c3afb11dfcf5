"""Impairments that need netem: as tc(8) shows them, and as ping feels those that it can tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_cli import clean, podnet, succeeds, two_nodes, write
from lab_kernel import inside, ip, run

pytestmark = [pytest.mark.vm, pytest.mark.kernel]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Path]:
    file = write(tmp_path, two_nodes())
    succeeds("up", file)
    yield file
    assert podnet("down", "--all").code == 0


def netem(dev: str = "eth0") -> dict[str, Any]:
    rows = json.loads(run("lab.node1", "tc", "-j", "qdisc", "show", "dev", dev))
    found: dict[str, Any] = next((row["options"] for row in rows if row["kind"] == "netem"), {})
    return found


def echoes(*options: str) -> str:
    import subprocess

    db = ip("lab.db", "-4", "address", "show", "dev", "eth0")[0]["addr_info"][0]["local"]
    argv = inside("lab.web", "ping", "-i", "0.2", "-W", "5", *options, db)
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def test_every_setting_as_tc_shows_it_kept_and_undone(lab: Path) -> None:
    given = {
        "delay": "400ms", "jitter": "50ms", "loss": "1%", "duplicate": "2%", "reorder": "25%", "corrupt": "0.5%",
        "rate": "5mbit",
    }  # fmt: skip
    succeeds("impair", "node1", *(word for name, value in given.items() for word in (f"--{name}", value)))
    shown = netem()
    assert shown["delay"]["delay"] == pytest.approx(0.4)
    assert shown["delay"]["jitter"] == pytest.approx(0.05)
    assert shown["loss-random"]["loss"] == pytest.approx(0.01)
    assert shown["duplicate"]["duplicate"] == pytest.approx(0.02)
    assert shown["reorder"]["reorder"] == pytest.approx(0.25)
    assert shown["corrupt"]["corrupt"] == pytest.approx(0.005)
    assert shown["rate"]["rate"] == 625_000
    clean()
    assert "nothing to change" in succeeds("up", lab).out
    # Others in their place: nothing of the earlier ones is left.
    succeeds("impair", "node1", "--delay", "400ms")
    assert netem()["delay"]["delay"] == pytest.approx(0.4)
    assert not netem().keys() & {"loss-random", "duplicate", "reorder", "corrupt", "rate"}
    times = [float(text) for text in re.findall(r"time=([\d.]+)", echoes("-c", "3"))]
    assert len(times) == 3
    assert min(times) >= 400
    succeeds("impair", "node1", "--duplicate", "100%")
    assert "DUP!" in echoes("-c", "3")
    succeeds("impair", "node1", "--loss", "100%")
    assert " 0 received" in echoes("-c", "2", "-w", "3")
    succeeds("impair", "node1", "--clear")
    assert netem() == {}
    clean()
    assert " 2 received" in echoes("-c", "2")
