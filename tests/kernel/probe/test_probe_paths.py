"""The way of packets, both directions, against what `ip` and `nft` made; for both IP versions."""

from __future__ import annotations

import pytest
from probe_cluster import Cluster, Rules, ip

from podnet.model.path import Path
from podnet.model.probe import Check
from podnet.probe.engine import run
from podnet.probe.expect import derive
from podnet.probe.trace import Trace, trace
from podnet.report.story import path_line, story

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize("version", [4, 6])
EACH = pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp", "sctp"])


def way_of(cluster: Cluster, check: Check) -> Path:
    results = run(cluster.lab(), [check], tapped=cluster.made, timeout=0.2)
    assert results.paths is not None
    assert results.paths.complete
    return results.paths.of(0)


def followed(cluster: Cluster, check: Check) -> Trace:
    return trace(cluster.lab(), check, cluster.made, timeout=0.2)


def seen(path: Path, *, reply: bool = False) -> list[str]:
    """Place, device and direction; the switch by its cluster's name for it."""
    hops = path.reply if reply else path.request
    return [f"{hop.place.rpartition('-')[2] if 'switch' in hop.place else hop.place} {hop.device} {hop.direction}"
            for hop in hops]  # fmt: skip


ACROSS = [
    "p1-1 eth0 out", "node1 v1 in", "node1 br0 in", "node1 eth0 out", "switch s-node1 in", "switch s-node2 out",
    "node2 eth0 in", "node2 br0 out", "node2 v1 out", "p2-1 eth0 in",
]  # fmt: skip
BACK = [
    "p2-1 eth0 out", "node2 v1 in", "node2 br0 in", "node2 eth0 out", "switch s-node2 in", "switch s-node1 out",
    "node1 eth0 in", "node1 br0 out", "node1 v1 out", "p1-1 eth0 in",
]  # fmt: skip


@BOTH
@EACH
def test_every_device_both_ways_in_order(cluster: Cluster, protocol: str, version: int) -> None:
    path = way_of(cluster, Check("p1-1", "p2-1", protocol, version))
    assert seen(path) == ACROSS
    assert seen(path, reply=True) == BACK
    assert [hop.ttl for hop in path.request] == [64] * 3 + [63] * 4 + [62] * 3
    times = [hop.at for hop in (*path.request, *path.reply)]
    assert times == sorted(times)
    number = {"icmp": {4: 1, 6: 58}[version], "tcp": 6, "udp": 17, "sctp": 132}[protocol]
    assert {hop.protocol for hop in (*path.request, *path.reply)} == {number}
    assert path.places() == ("p1-1", "node1", cluster.netns("switch"), "node2", "p2-1")
    first, last = path.request[0], path.reply[-1]
    assert (first.source, first.target) == (last.target, last.source)
    if protocol != "icmp":
        assert first.ports == last.ports[::-1]


@BOTH
def test_every_pair_of_a_run_has_its_way(cluster: Cluster, version: int) -> None:
    lab = cluster.lab((version,))
    checks = derive(lab)
    results = run(lab, checks, tapped=cluster.made)
    assert results.paths is not None
    for index, check in enumerate(checks):
        path = results.paths.of(index)
        assert (path.request[0].place, path.request[-1].place) == (check.source, check.target)
        assert (path.reply[0].place, path.reply[-1].place) == (check.target, check.source)
        assert not path.request[-1].out


def test_what_a_bridge_floods_is_not_the_way(cluster: Cluster) -> None:
    # With neighbours known, no ARP teaches the bridges anything before the probe.
    way_of(cluster, Check("p1-1", "p2-1", "icmp", 4))
    for name in ("switch", "node1", "node2"):
        ip("link", "set", "br0", "type", "bridge", "fdb_flush", netns=cluster.netns(name))
    assert seen(way_of(cluster, Check("p1-1", "p2-1", "icmp", 4))) == ACROSS


@BOTH
@pytest.mark.parametrize(
    ("where", "hook", "last"),
    [("node1", "forward", "node1 br0 in"), ("node2", "forward", "node2 eth0 in"), ("node1", "postrouting", None)],
)
def test_the_last_hop_is_where_it_was_lost(
    cluster: Cluster, rules: Rules, where: str, hook: str, last: str | None, version: int
) -> None:
    word = {4: "ip daddr 10.244.2.2", 6: "ip6 daddr fd00:10:2::2"}[version]
    rules(where, f"table inet t {{ chain f {{ type filter hook {hook} priority 0; {word} drop; }} }}")
    path = way_of(cluster, Check("p1-1", "p2-1", "icmp", version, verdict="drop"))
    assert seen(path)[-1] == (last or "node1 br0 in")
    assert path.reply == ()
    assert path_line(path).endswith("; no reply seen")
    # One attempt is shown, not all three.
    assert len(path.request) == len(set(seen(path)))


def test_a_routing_loop_shows_its_turns(cluster: Cluster) -> None:
    for node, via in (("node1", "192.168.7.2"), ("node2", "192.168.7.1")):
        ip("route", "add", "10.244.2.2/32", "via", via, netns=cluster.netns(node))
    try:
        path = way_of(cluster, Check("p1-1", "p2-1", "icmp", 4, verdict="drop"))
    finally:
        for node in ("node1", "node2"):
            ip("route", "del", "10.244.2.2/32", netns=cluster.netns(node))
    assert path.places().count("node1") > 10
    assert path.request[-1].ttl == 1


@BOTH
def test_a_trace_tells_addresses_of_all_layers(cluster: Cluster, version: int) -> None:
    found = followed(cluster, Check("p1-1", "p2-1", "icmp", version))
    assert found.result.observed == "reach"
    assert [f"{s.hop.place.rpartition('-')[2] if 'switch' in s.hop.place else s.hop.place} {s.hop.device}"
            for s in found.request] == [each.rpartition(" ")[0] for each in ACROSS]  # fmt: skip
    macs = {
        name: ip("-br", "link", "show", "dev", dev, netns=cluster.netns(name)).split()[2]
        for name, dev in (("p1-1", "eth0"), ("node1", "br0"), ("node2", "eth0"))
    }
    assert found.request[0].macs == (macs["p1-1"], macs["node1"])
    assert found.request[6].macs[1] == macs["node2"]
    assert found.predicted == ("p1-1", "node1", "node2", "p2-1") == found.seen
    assert found.seen_back == found.seen[::-1]
    assert not any(step.changes for step in found.request)
    assert "predicted: p1-1 > node1 > node2 > p2-1; seen: the same; the reply came the same way" in story(found)


@EACH
def test_a_trace_finds_the_entry_of_its_own_packet_by_ipv6_too(cluster: Cluster, rules: Rules, protocol: str) -> None:
    rules("node1", 'table inet t { chain p { type nat hook postrouting priority 100; oifname "eth0" masquerade; } }')
    for target in ("client", "p2-2", "p2-1"):  # entries of others stand beside it
        found = followed(cluster, Check("p1-1", target, protocol, 6, seen="any"))
        [step] = [step for step in found.request if step.changes]
        address = cluster.lab().target(target).addresses(6)[-1].ip.exploded
        assert f"src=fd00:0010:0001:0000:0000:0000:0000:0002 dst={address}" in step.changes[0].entry


@EACH
def test_a_trace_names_rule_and_conntrack_entry_of_nat(cluster: Cluster, rules: Rules, protocol: str) -> None:
    rules(
        "node1",
        'table inet t { chain p { type nat hook postrouting priority 100; oifname "eth0" masquerade comment "out"; } }',
    )
    found = followed(cluster, Check("p1-1", "p2-1", protocol, 4, seen="node"))
    [step] = [step for step in found.request if step.changes]
    [change] = step.changes
    assert (step.hop.place, step.hop.device, step.hop.out) == ("node1", "eth0", True)
    assert change.what == "source"
    assert change.before.startswith("10.244.1.2")
    assert change.after.startswith("192.168.7.1")
    assert change.rules == ('table inet t, chain p: oifname "eth0" masquerade comment "out"',)
    assert "src=10.244.1.2 dst=10.244.2.2" in change.entry
    assert "src=10.244.2.2 dst=192.168.7.1" in change.entry
    [back] = [step for step in found.reply if step.changes]
    assert back.changes[0].what == "destination"
    text = story(found)
    assert "by the only NAT rule here: table inet t, chain p:" in text
    assert "as conntrack undoes it for replies" in text


def test_a_trace_says_where_a_packet_was_lost_and_who_refused(cluster: Cluster, rules: Rules) -> None:
    rules("node2", "table inet t { chain f { type filter hook forward priority 0; ip protocol icmp drop; } }")
    lost = story(followed(cluster, Check("p1-1", "p2-1", "icmp", 4)))
    assert "lost after node2 eth0 in" in lost
    assert "reply: none was seen" in lost
    assert "predicted: p1-1 > node1 > node2 > p2-1\nseen:      p1-1 > node1 > node2" in lost
    refused = story(followed(cluster, Check("p1-1", "node2", "udp", 4, 81, listen=False)))
    assert "refuse" in refused
    assert "ICMP error type 3, code 3" in refused
