"""Each verdict, made with rules, routes and sockets of the kernel, for both IP versions."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from ipaddress import ip_interface

import pytest
from probe_cluster import Cluster, Rules, inside, ip

from podnet.kernel.netns import entered
from podnet.model.lab import Lab
from podnet.model.probe import Check, Result
from podnet.probe.capture import Capture
from podnet.probe.engine import run
from podnet.probe.expect import derive
from podnet.probe.stamp import Run
from podnet.probe.vantage import Vantage

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize("version", [4, 6])
EACH = pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp", "sctp"])


def only(lab: Lab, check: Check, **options: float) -> Result:
    [result] = run(lab, [check], **options)
    return result


def on_port(source: str, target: str, protocol: str, version: int, port: int, verdict: str) -> Check:
    return Check(source, target, protocol, version, port, verdict, seen="own", listen=False, origin="file", line=7)


def test_every_pair_of_the_model_is_reached_under_its_own_address(cluster: Cluster) -> None:
    lab = cluster.lab()
    results = run(lab, derive(lab))
    # 6 nodes and pods, in pairs, without the 4 pairs of nodes; 3 protocols, 2 versions.
    assert len(results) == (36 - 4) * 6
    assert [r for r in results if not r.passed] == []
    assert {r.observed for r in results} == {"reach"}
    for result in results:
        own = {str(a.ip) for a in lab.target(result.check.source).addresses(result.check.version)}
        assert result.source_seen in own
        assert result.rtt_ms is None or 0 < result.rtt_ms < 1000
    assert sum(r.rtt_ms is not None for r in results) > len(results) // 2


@BOTH
@pytest.mark.parametrize("target", ["p1-1", "p1-2", "p2-1", "node1", "node2"])
@pytest.mark.parametrize(("protocol", "says"), [("tcp", "TCP reset"), ("udp", "ICMP port unreachable from ")])
def test_a_closed_port_refuses(cluster: Cluster, target: str, protocol: str, says: str, version: int) -> None:
    result = only(cluster.lab(), on_port("p1-1", target, protocol, version, 81, "refuse"))
    assert (result.observed, result.passed) == ("refuse", True)
    assert result.detail.startswith(says)
    assert result.source_seen


@BOTH
@EACH
def test_a_reject_rule_on_the_way_refuses(cluster: Cluster, rules: Rules, protocol: str, version: int) -> None:
    rules(
        "node2", "table inet t { chain f { type filter hook forward priority 0; reject with icmpx admin-prohibited; } }"
    )
    result = only(cluster.lab(), Check("p1-1", "p2-1", protocol, version, verdict="refuse"))
    assert (result.observed, result.passed, result.source_seen) == ("refuse", True, "")
    address = {4: "192.168.7.2", 6: "fd00:7::2"}[version]
    assert result.detail == f"ICMP administratively prohibited from {address}"


@BOTH
def test_a_tcp_reset_by_a_rule_refuses(cluster: Cluster, rules: Rules, version: int) -> None:
    rules(
        "node2",
        "table inet t { chain f { type filter hook forward priority 0; meta l4proto tcp reject with tcp reset; } }",
    )
    result = only(cluster.lab(), Check("p1-1", "p2-1", "tcp", version, verdict="refuse"))
    assert (result.observed, result.detail) == ("refuse", "TCP reset, never arrived")


@BOTH
@EACH
def test_a_drop_rule_before_the_receiver_drops(cluster: Cluster, rules: Rules, protocol: str, version: int) -> None:
    rules("node2", "table inet t { chain f { type filter hook forward priority 0; policy drop; } }")
    result = only(cluster.lab(), Check("p1-1", "p2-1", protocol, version, verdict="drop"))
    assert (result.observed, result.passed, result.detail) == ("drop", True, "never arrived")
    failed = only(cluster.lab(), Check("p1-1", "p2-1", protocol, version), timeout=0.3)
    assert (failed.observed, failed.passed, failed.source_seen) == ("drop", False, "")


@BOTH
@EACH
def test_a_lost_reply_is_told_from_a_lost_request(cluster: Cluster, rules: Rules, protocol: str, version: int) -> None:
    sender = {4: "ip saddr 10.244.2.2", 6: "ip6 saddr fd00:10:2::2"}[version]
    rules("node1", f"table inet t {{ chain f {{ type filter hook forward priority 0; {sender} drop; }} }}")
    result = only(cluster.lab(), Check("p1-1", "p2-1", protocol, version))
    assert (result.observed, result.passed) == ("drop", False)
    assert result.detail == "arrived, no reply came back"
    assert result.source_seen == {4: "10.244.1.2", 6: "fd00:10:1::2"}[version]


@BOTH
@EACH
def test_a_receiver_that_drops_its_input_does_not_answer(
    cluster: Cluster, rules: Rules, protocol: str, version: int
) -> None:
    neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept;"
    rules("p2-1", f"table inet t {{ chain i {{ type filter hook input priority 0; policy drop; {neighbours} }} }}")
    result = only(cluster.lab(), Check("p1-1", "p2-1", protocol, version, verdict="drop"))
    assert (result.observed, result.detail) == ("drop", "arrived, no reply came back")


@BOTH
@EACH
@pytest.mark.parametrize(("seen", "passes"), [("own", False), ("node", True), ("any", True), ("address", True)])
def test_masquerade_is_seen_by_the_receiver(
    cluster: Cluster, rules: Rules, protocol: str, version: int, seen: str, passes: bool
) -> None:
    rules("node1", "table inet t { chain p { type nat hook postrouting priority 100; oifname eth0 masquerade; } }")
    node = {4: "192.168.7.1", 6: "fd00:7::1"}[version]
    seen = node if seen == "address" else seen
    result = only(cluster.lab(), Check("p1-1", "client", protocol, version, seen=seen))
    assert (result.observed, result.source_seen, result.passed) == ("reach", node, passes)
    if not passes:
        assert result.detail == f"client saw {node}, expected the sender's own address"


@BOTH
@EACH
def test_two_senders_behind_one_address_are_told_apart(
    cluster: Cluster, rules: Rules, protocol: str, version: int
) -> None:
    # All senders start at the same few ports: what the receiver sees is not what was sent, and still known.
    ports = "" if protocol == "icmp" else " to :7000-7009"
    number = {"icmp": 58 if version == 6 else 1, "tcp": 6, "udp": 17, "sctp": 132}[protocol]
    rules(
        "node1",
        f"table inet t {{ chain p {{ type nat hook postrouting priority 100; "
        f"meta l4proto {number} oifname eth0 masquerade{ports}; }} }}",
    )
    checks = [Check(pod, "client", protocol, version, seen="node") for pod in ("p1-1", "p1-2")]
    node = {4: "192.168.7.1", 6: "fd00:7::1"}[version]
    assert [(r.observed, r.source_seen) for r in run(cluster.lab(), checks)] == [("reach", node)] * 2


@BOTH
def test_an_open_port_of_a_program_is_reached(cluster: Cluster, version: int) -> None:
    family, address = {4: (socket.AF_INET, "0.0.0.0"), 6: (socket.AF_INET6, "::")}[version]
    netns = cluster.netns("p2-1")
    with entered(netns), socket.socket(family) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
        tcp.bind((address, 8080))
        tcp.listen()
        udp.bind((address, 5353))
        result = only(cluster.lab(), on_port("p1-1", "p2-1", "tcp", version, 8080, "reach"))
        assert (result.observed, result.passed, result.detail) == ("reach", True, "")
        # Half-open connections are ended by the reset of the sender's kernel.
        assert inside(netns, "ss", "-Htan", "state", "syn-recv") == ""
        assert inside(netns, "ss", "-Htan", "state", "established") == ""
        silent = only(cluster.lab(), on_port("p1-1", "p2-1", "udp", version, 5353, "reach"))
        assert (silent.observed, silent.passed, silent.detail) == ("reach", True, "arrived, no answer")


@BOTH
def test_refusals_are_found_behind_the_rate_limit_of_icmp_errors(cluster: Cluster, version: int) -> None:
    # The kernel sends six ICMP errors to one address at once, and one a second from then on.
    checks = [on_port("p2-2", "p1-2", "udp", version, 9000 + n, "refuse") for n in range(9)]
    assert [r.observed for r in run(cluster.lab(), checks)] == ["refuse"] * 9


def test_an_address_that_the_lab_does_not_know_is_not_the_senders_own(cluster: Cluster) -> None:
    netns = cluster.netns("p1-2")
    lab = cluster.lab()
    ip("addr", "add", "10.244.1.77/24", "dev", "eth0", netns=netns)
    try:
        ip("route", "replace", "default", "via", "10.244.1.1", "src", "10.244.1.77", netns=netns)
        result = only(lab, Check("p1-2", "p2-1", "icmp", 4))
        assert (result.observed, result.passed, result.source_seen) == ("reach", False, "10.244.1.77")
        assert result.detail == "p2-1 saw 10.244.1.77, expected the sender's own address"
    finally:
        ip("route", "replace", "default", "via", "10.244.1.1", netns=netns)
        ip("addr", "del", "10.244.1.77/24", "dev", "eth0", netns=netns)


@pytest.mark.parametrize(
    ("protocol", "observed", "says"),
    [
        ("icmp", "drop", "never arrived, yet somebody answered"),
        ("tcp", "refuse", "TCP reset, never arrived"),
        ("udp", "refuse", "ICMP port unreachable from 10.244.2.2"),
    ],
)
def test_an_answer_from_somebody_else_is_not_the_receiver_reached(
    cluster: Cluster, rules: Rules, protocol: str, observed: str, says: str
) -> None:
    rules(
        "node2",
        "table ip t { chain p { type nat hook prerouting priority -100; ip daddr 10.244.2.2 dnat to 10.244.2.3; } }",
    )
    result = only(cluster.lab(), Check("p1-1", "p2-1", protocol, 4))
    assert (result.observed, result.passed) == (observed, False)
    assert result.detail.startswith(says)


@BOTH
@pytest.mark.parametrize(
    ("route", "says"),
    [
        ("blackhole", "never left: Invalid argument"),
        ("prohibit", "never left: Permission denied"),
        ("unreachable", "never left: No route to host"),
        ("", "never left: Network is unreachable"),
    ],
)
def test_a_sender_without_a_way_out_is_a_drop_that_says_so(
    cluster: Cluster, version: int, route: str, says: str
) -> None:
    prefix = {4: "10.244.2.0/24", 6: "fd00:10:2::/64"}[version]
    netns = cluster.netns("client")
    if route:
        ip("route", "add", route, prefix, netns=netns)
    try:
        result = only(cluster.lab(), Check("client", "p2-1", "icmp", version, verdict="drop"))
    finally:
        if route:
            ip("route", "del", route, prefix, netns=netns)
    assert (result.observed, result.passed) == ("drop", True)
    if version == 4 or not route:
        assert result.detail == says
    else:
        assert result.detail.startswith("never left: ")


@EACH
def test_a_drop_rule_of_the_sender_itself_drops(cluster: Cluster, rules: Rules, protocol: str) -> None:
    rules("p1-1", "table inet t { chain o { type filter hook output priority 0; ip daddr 10.244.2.2 drop; } }")
    result = only(cluster.lab(), Check("p1-1", "p2-1", protocol, 4, verdict="drop"))
    assert (result.observed, result.detail) == ("drop", "never left: Operation not permitted")


def test_a_pod_that_lost_its_loopback_does_not_reach_itself(cluster: Cluster) -> None:
    netns = cluster.netns("p1-1")
    ip("link", "set", "lo", "down", netns=netns)
    try:
        result = only(cluster.lab(), Check("p1-1", "p1-1", "icmp", 4))
        assert (result.observed, result.passed) == ("drop", False)
    finally:
        ip("link", "set", "lo", "up", netns=netns)
    assert only(cluster.lab(), Check("p1-1", "p1-1", "icmp", 4)).passed


def test_a_routing_loop_is_named(cluster: Cluster) -> None:
    for node, via in (("node1", "192.168.7.2"), ("node2", "192.168.7.1")):
        ip("route", "add", "10.99.0.0/24", "via", via, netns=cluster.netns(node))
    try:
        lab = cluster.lab((4,))
        gone = lab.target("p2-2")
        moved = replace(gone.interfaces[0], addresses=(ip_interface("10.99.0.9/24"),))
        looped = tuple(replace(t, interfaces=(moved,)) if t is gone else t for t in lab.targets)
        result = only(replace(lab, targets=looped), Check("p1-1", "p2-2", "icmp", 4, verdict="drop"))
    finally:
        for node in ("node1", "node2"):
            ip("route", "del", "10.99.0.0/24", netns=cluster.netns(node))
    assert result.observed == "drop"
    assert result.detail.startswith("ICMP time exceeded (a routing loop?) from 192.168.7.")


def test_a_namespace_that_is_gone_leaves_its_own_checks_unproven_only(cluster: Cluster) -> None:
    lab = cluster.lab()
    targets = tuple(replace(t, netns="no-such-netns") if t.name == "p2-2" else t for t in lab.targets)
    results = run(replace(lab, targets=targets), derive(lab, ("icmp",)))
    for result in results:
        if "p2-2" in (result.check.source, result.check.target):
            assert (result.observed, result.passed) == ("unproven", False)
            assert "no-such-netns" in result.detail
        else:
            assert result.passed


def test_a_target_without_an_address_is_unproven(cluster: Cluster) -> None:
    lab = cluster.lab()
    bare = tuple(replace(t, interfaces=()) if t.name == "p2-2" else t for t in lab.targets)
    result = only(replace(lab, targets=bare), Check("p1-1", "p2-2", "icmp", 6))
    assert (result.observed, result.detail) == ("unproven", "p2-2 has no IPv6 address")


@BOTH
def test_a_node_may_be_the_namespace_that_we_are_in(cluster: Cluster, version: int) -> None:
    lab = cluster.lab((version,))
    targets = tuple(replace(t, netns="") if t.name == "node1" else t for t in lab.targets)
    with entered(cluster.netns("node1")):
        results = run(replace(lab, targets=targets), derive(lab))
    assert [r for r in results if not r.passed] == []


def test_many_blocked_paths_cost_one_quiet_period_not_one_each(cluster: Cluster, rules: Rules) -> None:
    for node in ("node1", "node2"):
        rules(node, "table inet t { chain f { type filter hook forward priority 0; policy drop; } }")
    lab = cluster.lab()
    checks = [
        replace(check, verdict="drop")
        for check in derive(lab)
        if check.source[1] != check.target[1] and "node" not in check.source + check.target
    ]
    begun = time.monotonic()
    results = run(lab, checks)
    assert {r.observed for r in results} == {"drop"}
    assert time.monotonic() - begun < len(checks) / 3  # one each would be longer than that


def test_progress_counts_up_to_all(cluster: Cluster) -> None:
    lab = cluster.lab()
    told: list[int] = []
    checks = derive(lab)
    run(lab, checks, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == len(checks)


@EACH
@pytest.mark.parametrize("deaf", ["p1-1", "p2-1"])
def test_silence_of_a_prober_that_hears_nothing_is_no_verdict(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, protocol: str, deaf: str
) -> None:
    watch = Vantage.watch

    def watch_or_not(self: Vantage, version: int, run: Run, own: frozenset[bytes]) -> Capture:
        return watch(self, version, Run(run.number ^ 0xFFFFFFFF) if self.netns == cluster.netns(deaf) else run, own)

    monkeypatch.setattr(Vantage, "watch", watch_or_not)
    for verdict in ("reach", "drop"):
        result = only(cluster.lab(), Check("p1-1", "p2-1", protocol, 4, verdict=verdict), timeout=0.1)
        assert (result.observed, result.passed) == ("unproven", False)
        assert result.detail == f"no answer, but {deaf} does not hear its own control probe either"


def test_the_ttl_that_arrived_is_told(cluster: Cluster) -> None:
    for version in (4, 6):
        near, far = (only(cluster.lab(), Check("p1-1", target, "icmp", version)) for target in ("p1-2", "p2-1"))
        assert (near.ttl, far.ttl) == (64, 62)


@BOTH
def test_sctp_is_filtered_by_its_port_on_a_kernel_that_has_none(cluster: Cluster, rules: Rules, version: int) -> None:
    rules("node2", "table inet t { chain f { type filter hook forward priority 0; sctp dport 7000 drop; } }")
    checks = [
        Check("p1-1", "p2-1", "sctp", version, port, verdict, "any")
        for port, verdict in ((7000, "drop"), (7001, "reach"))
    ]
    assert [(r.observed, r.passed) for r in run(cluster.lab(), checks)] == [("drop", True), ("reach", True)]
