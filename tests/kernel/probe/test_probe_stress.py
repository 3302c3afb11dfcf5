"""No false alarm: a healthy lab is found healthy, every time, however many pairs there are."""

from __future__ import annotations

import os

import pytest
from probe_cluster import Cluster

from podnet.probe.engine import run
from podnet.probe.expect import derive

pytestmark = [pytest.mark.kernel, pytest.mark.stress]

LONG = "PODNET_STRESS_COUNT" in os.environ
# scripts/stress: 400 pods and 20 runs, however many rounds others have; each run takes seconds of both processors.
NODES, PODS, RUNS = (4, 100, 20) if LONG else (4, 15, 3)


def test_all_pairs_again_and_again_without_a_false_failure() -> None:
    made = Cluster(nodes=NODES, pods=PODS)
    try:
        made.build()
        made.know_neighbours()
        lab = made.lab((4,))
        checks = derive(lab, ("icmp",))
        ends = NODES * (PODS + 1)
        assert len(checks) == ends**2 - NODES**2
        for number in range(RUNS):
            results = run(lab, checks)
            wrong = list(results.failed())
            assert wrong == [], f"run {number}: {len(wrong)} of {len(checks)}"
    finally:
        made.remove()


def test_no_false_failure_while_ipv6_looks_for_duplicates() -> None:
    # Nodes ask for their neighbours from a link-local address, which they cannot for a second or two.
    made = Cluster(nodes=2, pods=1)
    try:
        made.build()
        lab = made.lab((6,))
        assert list(run(lab, derive(lab, ("icmp", "udp"))).failed()) == []
    finally:
        made.remove()
