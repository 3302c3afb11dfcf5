"""How long silence is waited for: to the end of its time, unless the kernel itself says what became of the packets."""

from __future__ import annotations

import time

import pytest
from delayed_wire import DelayedWire
from probe_cluster import Cluster, Rules, ip

from podnet.errors import KernelError
from podnet.kernel.tracefs import DropTracer
from podnet.model.probe import Check
from podnet.probe.engine import run
from podnet.probe.results import Results

pytestmark = pytest.mark.kernel

_TRIES = 30  # on a busy machine another thread may carry a packet on, whose end then proves nothing
_DROP = "table inet t { chain f { type filter hook forward priority 0; %s drop; } }"


def _waited(cluster: Cluster, checks: list[Check]) -> list[Results]:
    """The provisional results of a run that waits for silence, none if it does not."""
    told: list[Results] = []
    results = run(cluster.lab(), checks, timeout=0.1, meanwhile=told.append)
    assert [result.observed for result in results if result.check.target == "p2-1"] == ["drop"] * sum(
        check.target == "p2-1" for check in checks
    )
    return told


@pytest.fixture
def _reasons() -> None:
    try:
        DropTracer().close()
    except KernelError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("_reasons")
@pytest.mark.parametrize("version", [4, 6])
def test_what_a_rule_dropped_is_not_waited_for(cluster: Cluster, rules: Rules, version: int) -> None:
    rules("node1", _DROP % f"meta nfproto ipv{version}")
    checks = [Check(f"p1-{n}", "p2-1", protocol, version) for n in (1, 2) for protocol in ("icmp", "tcp")]
    assert any(not _waited(cluster, checks) for _ in range(_TRIES))


@pytest.mark.usefixtures("_reasons")
def test_answers_that_a_rule_dropped_are_not_waited_for_either(cluster: Cluster, rules: Rules) -> None:
    rules("node1", _DROP % "icmp type echo-reply")
    assert any(not _waited(cluster, [Check("p1-1", "p2-1", "icmp", 4)]) for _ in range(_TRIES))


def test_packets_that_wait_for_a_neighbour_are_waited_for(cluster: Cluster, rules: Rules) -> None:
    """Nobody dropped them, although the same call sent others that a rule dropped, and a rule drops ARP."""
    rules("node1", _DROP % "ip daddr 10.244.2.2")
    rules("p2-2", "table arp t { chain i { type filter hook input priority 0; policy drop; } }")
    ip("neigh", "flush", "dev", "br0", netns=cluster.netns("node2"))
    checks = [Check("p1-1", "p2-1", "icmp", 4), Check("p1-1", "p2-2", "icmp", 4)]
    for _ in range(3):
        assert [[r.observed for r in each] for each in _waited(cluster, checks)] == [["drop", "drop"]]


def test_an_answer_within_the_time_is_no_loss_however_fast_others_are() -> None:
    with DelayedWire(1.5) as wire:
        told: list[list[str]] = []
        checks = [Check("near", "far", "icmp", 4), Check("near", "near", "icmp", 4)]
        begun = time.monotonic()
        results = run(
            wire.lab(), checks, timeout=20, meanwhile=lambda so_far: told.append([r.observed for r in so_far])
        )
        assert [(r.observed, r.passed) for r in results] == [("reach", True)] * 2
        assert told == [["drop", "reach"]]
        assert time.monotonic() - begun < 15  # and nothing is waited for when all have come
