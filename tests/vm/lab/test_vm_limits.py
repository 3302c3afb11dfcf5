"""The neighbour table's limits, which only a machine's first namespace has: raised with a lab, put back with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_cli import clean, planned, podnet, succeeds, two_nodes, write

FOLDER = Path("/proc/sys/net/ipv4/neigh/default")

pytestmark = [
    pytest.mark.vm,
    pytest.mark.kernel,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="not the first namespace; scripts/test runs it there as well"),
]


def limits() -> list[int]:
    return [int((FOLDER / name).read_text()) for name in ("gc_thresh1", "gc_thresh2", "gc_thresh3")]


def test_raised_by_what_labs_need_and_put_back_by_the_last(tmp_path: Path) -> None:
    one, two, three = limits()
    topology = two_nodes("one")
    topology["pods"][0]["replicas"] = 23  # with api and the gateway 25 on node1's bridge, and two on node2's
    need = 25 * 24 + 2 + 2
    path = write(tmp_path, topology)
    try:
        told = {each for each in planned(path) if "gc_thresh" in each}
        assert told == {
            f"update sysctl net.ipv4.neigh.default.gc_thresh2={two + need} in the machine",
            f"update sysctl net.ipv4.neigh.default.gc_thresh3={three + need} in the machine",
        }
        assert limits() == [one, two, three]
        succeeds("up", path)
        assert limits() == [one, two + need, three + need]
        succeeds("up", write(tmp_path, two_nodes("other")))
        need += 3 * 2 + 2 + 2  # the table is one for both
        assert limits() == [one, two + need, three + need]
        clean("one")
        assert "nothing to change" in succeeds("up", path).out
    finally:
        succeeds("down", "one")
        succeeds("down", "other")
    assert limits() == [one, two, three]


@pytest.mark.timeout(900)  # nine commands, each 20 times slower here
def test_a_full_table_as_a_fault_breaks_what_it_declares_is_named_and_goes_with_clear_or_down(tmp_path: Path) -> None:
    before = limits()
    try:
        succeeds("up", write(tmp_path, two_nodes("full")))
        refused = podnet("fault", "inject", "neighbour-table-full")
        assert (refused.code, "changes the machine itself" in refused.err) == (2, True)
        assert limits() == before
        injected = succeeds("fault", "inject", "neighbour-table-full", "--machine", "-o", "json").json
        assert limits() == [0, 0, 0]
        run = podnet("test", "full", "--protocol", "icmp", "-o", "json").json
        failed = {(r["from"], r["to"]) for r in run["results"] if not r["passed"]}
        others = {(r["from"], r["to"]) for r in run["results"] if r["from"] != r["to"]}
        assert failed >= others
        assert injected["expected_failures"] == 3 * len(others)  # by ICMP, TCP and UDP
        assert {cause["kind"] for cause in run["causes"]} == {"neighbour-table-full"}
        assert [d for d in run["diagnoses"] if d["from"] != d["to"] and d["cause"] is None] == []
        mend = run["causes"][0]["mend"]
        assert mend == "sysctl -w net.ipv4.neigh.default.gc_thresh2=512 net.ipv4.neigh.default.gc_thresh3=1024"
        succeeds("fault", "clear")
        assert limits() == before
        succeeds("test", "full", "--protocol", "icmp")
        succeeds("fault", "inject", "neighbour-table-full", "--machine")
        assert limits() == [0, 0, 0]
    finally:
        succeeds("down", "full")
    assert limits() == before
