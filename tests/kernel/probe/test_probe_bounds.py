"""What an expectation asks besides of packets that arrive, and how large they may be; made with `ip` and `nft`."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from probe_cluster import Cluster, Rules, inside, ip

from podnet.model.probe import Bounds, Check, Result
from podnet.probe.pmtu import Largest, largest
from podnet.probe.verify import verify

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize("version", [4, 6])


def asked(cluster: Cluster, bounds: Bounds, target: str = "p2-1", version: int = 4, **check: object) -> Result:
    wanted = replace(Check("p1-1", target, "icmp", version), bounds=bounds, **check)
    [result] = verify(cluster.lab(), [wanted], timeout=0.1, namespaces=cluster.made)
    return result


@BOTH
@pytest.mark.parametrize(
    ("target", "bounds", "detail"),
    [
        ("p2-1", Bounds(ttl=62), ""),
        ("p2-1", Bounds(ttl=64), "arrived with TTL 62, expected 64"),
        ("p1-2", Bounds(ttl=64, via=("node1",)), ""),  # its bridge is the node's
        ("p2-1", Bounds(via=("node1", "node2")), ""),
        ("p2-1", Bounds(via=("node2",)), "went via node1, node2, expected node2"),
        ("node1", Bounds(via=()), ""),
        ("p1-2", Bounds(via=()), "went via node1, expected nobody"),
        ("p2-1", Bounds(mtu=1500), ""),
        ("p2-1", Bounds(mtu=1450), "the largest packet that passes has 1500 bytes, expected 1450"),
        ("p2-1", Bounds(latency_ms=1000, loss=0.5), ""),
    ],
)
def test_bounds(cluster: Cluster, target: str, bounds: Bounds, detail: str, version: int) -> None:
    result = asked(cluster, bounds, target, version)
    assert (result.passed, result.detail) == (not detail, detail)


def test_latency_is_bounded(cluster: Cluster) -> None:
    result = asked(cluster, Bounds(latency_ms=0.000001))
    assert not result.passed
    assert result.detail.startswith("the median round trip takes 0.")
    assert result.detail.endswith(" ms, expected at most 1e-06 ms")


def test_loss_is_bounded(cluster: Cluster, rules: Rules) -> None:
    # Two of three packets are lost; a check alone would find one of its attempts answered.
    rules("node2", "table inet t { chain f { type filter hook forward priority 0; numgen inc mod 3 > 0 drop; } }")
    result = asked(cluster, Bounds(loss=0.1))
    if result.observed == "reach":
        assert not result.passed
        assert "packets were lost, expected at most 10%" in result.detail
    else:
        assert result.observed == "drop"


def test_what_converges_in_time_passes(cluster: Cluster, rules: Rules) -> None:
    rules("node2", "table inet t { chain f { type filter hook forward priority 0; policy drop; } }")
    assert asked(cluster, Bounds()).observed == "drop"
    mend = threading.Timer(0.5, inside, (cluster.netns("node2"), "nft", "flush", "ruleset"))
    mend.start()
    result = asked(cluster, Bounds(within=20))
    mend.join()
    assert (result.observed, result.passed) == ("reach", True)


def test_what_does_not_converge_fails_after_its_time(cluster: Cluster, rules: Rules) -> None:
    rules("node2", "table inet t { chain f { type filter hook forward priority 0; policy drop; } }")
    assert asked(cluster, Bounds(within=0.7)).observed == "drop"


@BOTH
def test_all_pairs_have_a_largest_packet(cluster: Cluster, version: int) -> None:
    names = [*cluster.pod_names(), "node1", "node2"]
    found = largest(cluster.lab(), [(a, b, version) for a in names for b in names])
    for one in found:
        # lo passes what IP can say.
        assert one.size == (65535 if one.source == one.target else 1500), one
        assert not one.black_hole
        assert not one.failure


@BOTH
@pytest.mark.parametrize("quiet", [False, True])
def test_a_smaller_mtu_on_the_way_is_found_with_its_host_or_as_a_black_hole(
    cluster: Cluster, rules: Rules, version: int, quiet: bool
) -> None:
    if quiet:
        rules(
            "node1",
            "table inet t { chain o { type filter hook output priority 0; icmp type destination-unreachable drop; "
            "icmpv6 type packet-too-big drop; } }",
        )
    ip("link", "set", "eth0", "mtu", "1400", netns=cluster.netns("node1"))
    try:
        [one] = largest(cluster.lab(), [("p1-1", "p2-1", version)])
        [back] = largest(cluster.lab(), [("p1-1", "p1-2", version)])
    finally:
        ip("link", "set", "eth0", "mtu", "1500", netns=cluster.netns("node1"))
    gateway = {4: "10.244.1.1", 6: "fd00:10:1::1"}[version]
    assert one == Largest("p1-1", "p2-1", version, 1400, "" if quiet else gateway, black_hole=quiet)
    assert back.size == 1500


def test_the_senders_own_mtu_is_no_black_hole(cluster: Cluster) -> None:
    lab = cluster.lab()
    ip("link", "set", "eth0", "mtu", "1300", netns=cluster.netns("p1-1"))
    try:
        [one] = largest(lab, [("p1-1", "p2-1", 4)])
    finally:
        ip("link", "set", "eth0", "mtu", "1500", netns=cluster.netns("p1-1"))
    assert (one.size, one.local, one.black_hole) == (1300, True, False)


def test_what_cannot_be_reached_says_so(cluster: Cluster, rules: Rules) -> None:
    rules("node2", "table inet t { chain f { type filter hook forward priority 0; policy drop; } }")
    [silent, unrouted] = largest(cluster.lab(), [("p1-1", "p2-1", 4), ("client", "p2-1", 4)])
    assert (silent.size, silent.failure) == (0, "not even the smallest packet comes back")
    assert (unrouted.size, unrouted.failure) == (0, "never left: Network is unreachable")
