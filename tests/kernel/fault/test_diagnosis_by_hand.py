"""Damage that no fault of the library did, with tools that are not podnet's: the cause is named, or nothing is."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from lab_cli import PODNET, podnet, succeeds, two_nodes, write
from lab_kernel import ip, namespaces, tables

from podnet.diagnose.trail import Subject
from podnet.diagnose.why import diagnose
from podnet.lab import record

pytestmark = pytest.mark.kernel


def _far_end(pod: str, node: str = "node1") -> str:
    links = ip(f"lab.{node}", "link")
    return next(str(each["ifname"]) for each in links if f"podnet.lab.{pod}.eth0" in each.get("altnames", ()))


def _shell(command: str) -> None:
    words = {"web": _far_end("web"), "api": _far_end("api")}
    subprocess.run(["sh", "-ec", command.format(**words)], check=True, capture_output=True, stdin=subprocess.DEVNULL)


def _nft(family: str, hook: str, rule: str, netns: str = "lab.node1") -> str:
    chain = f"add chain {family} hand {hook} {{{{ type filter hook {hook} priority 0; }}}}"
    lines = f"add table {family} hand; {chain}; add rule {family} hand {hook} {rule}"
    return f"ip netns exec {netns} nft '{lines}'"


_PIN = "ip -n lab.node1 neigh replace 10.244.0.2 dev podnet0 lladdr 0a:58:0a:f4:00:02 nud permanent"

_ARP_IGNORED = (
    "ip netns exec lab.api sysctl -qw net.ipv4.conf.eth0.arp_ignore=8; "
    "ip -n lab.web neigh flush all; ip -n lab.api neigh flush all"
)

# What somebody does, its undoing, the pair that is asked about, and (kind of the cause, namespace); "" is unknown.
DAMAGE: list[tuple[str, str, str, tuple[str, str, str], tuple[str, str]]] = [
    ("a bridge is down", "ip -n lab.node1 link set podnet0 down",
     "ip -n lab.node1 link set podnet0 up", ("web", "api", "icmp"), ("link-down", "lab.node1")),
    ("the underlay's bridge is down", "ip -n lab.underlay link set underlay down",
     "ip -n lab.underlay link set underlay up", ("web", "db", "icmp"), ("link-down", "lab.underlay")),
    ("a rule before routing", _nft("inet", "prerouting", 'ip daddr 10.244.1.2 drop comment "early"'),
     "ip netns exec lab.node1 nft delete table inet hand", ("web", "db", "tcp"), ("rule-drop", "lab.node1")),
    ("a second rule of a chain", _nft("ip", "forward", "counter; add rule ip hand forward ip protocol udp drop"),
     "ip netns exec lab.node1 nft delete table ip hand", ("web", "db", "udp"), ("rule-drop", "lab.node1")),
    ("a rule for bridged frames", _nft("bridge", "forward", "ether type ip drop"),
     "ip netns exec lab.node1 nft delete table bridge hand", ("web", "api", "icmp"), ("rule-drop", "lab.node1")),
    ("a rule against ARP", _nft("arp", "input", "drop", "lab.api")
     + "; ip -n lab.web neigh flush all; ip -n lab.api neigh flush all",
     "ip netns exec lab.api nft delete table arp hand", ("web", "api", "icmp"), ("rule-drop", "lab.api")),
    ("iptables on nftables", "ip netns exec lab.node1 iptables-nft -A FORWARD -d 10.244.1.2 -j DROP",
     "ip netns exec lab.node1 iptables-nft -F; ip netns exec lab.node1 nft delete table ip filter",
     ("web", "db", "icmp"), ("rule-drop", "lab.node1")),
    ("the old iptables", "ip netns exec lab.node1 iptables-legacy -A FORWARD -d 10.244.1.2 -j DROP",
     "ip netns exec lab.node1 iptables-legacy -F", ("web", "db", "icmp"), ("", "")),
    ("forwarding off on one device", "ip netns exec lab.node1 sysctl -qw net.ipv4.conf.podnet0.forwarding=0",
     "ip netns exec lab.node1 sysctl -qw net.ipv4.conf.podnet0.forwarding=1",
     ("web", "db", "icmp"), ("forwarding-off", "lab.node1")),
    ("a rule of the routing policy", "ip -n lab.node1 rule add to 10.244.1.2 prohibit",
     "ip -n lab.node1 rule del to 10.244.1.2 prohibit", ("web", "db", "icmp"), ("prohibit-route", "lab.node1")),
    ("a wider blackhole", "ip -n lab.node1 route add blackhole 10.244.1.0/28",
     "ip -n lab.node1 route del blackhole 10.244.1.0/28", ("web", "db", "icmp"), ("blackhole-route", "lab.node1")),
    # api forgets, too: a probe for what it knows of web would tell its own address.
    ("arp_ignore", _ARP_IGNORED,
     "ip netns exec lab.api sysctl -qw net.ipv4.conf.eth0.arp_ignore=0", ("web", "api", "icmp"),
     ("arp-ignored", "lab.api")),
    ("the pod's MAC changed under a pinned entry",
     f"{_PIN}; ip -n lab.web link set eth0 address 02:00:00:00:00:01",
     "ip -n lab.web link set eth0 address 0a:58:0a:f4:00:02; ip -n lab.node1 neigh del 10.244.0.2 dev podnet0",
     ("db", "web", "icmp"), ("wrong-mac", "lab.node1")),
]  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path) -> None:
    succeeds("up", write(tmp_path, two_nodes()))


def test_damage_by_hand_is_named_or_nothing_is(lab: None) -> None:
    problems = []
    for what, command, undoing, (source, target, protocol), (kind, netns) in DAMAGE:
        _shell(command)
        found = podnet("why", source, target, "--protocol", protocol, "-o", "json").json
        _shell(undoing)
        cause = found["cause"] or {"kind": "", "netns": ""}
        if found["came_through"] or (cause["kind"], cause["netns"]) != (kind, netns):
            problems.append(f"{what}: {json.dumps(found)}")
    assert problems == []


def test_the_kernel_says_what_no_rule_of_nftables_did(lab: None) -> None:
    _shell("ip netns exec lab.node1 iptables-legacy -A FORWARD -d 10.244.1.2 -j DROP")
    found = podnet("why", "web", "db", "-o", "json").json
    assert found["cause"] is None
    assert found["last_seen"] == "podnet0 in node1 (in)"
    # Under load another thread may carry the packet, whose reasons are not ours to tell.
    assert [each.rpartition(" ")[2] for each in found["kernel_reasons"]] in ([], ["NETFILTER_DROP"])


def test_a_rule_is_told_with_its_comment_and_the_command_that_removes_it(lab: None) -> None:
    _shell(_nft("inet", "forward", 'ip daddr 10.244.1.2 drop comment "closed on Sundays"'))
    found = podnet("why", "web", "db", "-o", "json").json["cause"]
    assert 'drop comment "closed on Sundays"' in found["text"]
    subprocess.run([*PODNET, *shlex.split(found["mend"])[1:]], check=True)
    assert podnet("why", "web", "db").out == "web -> db icmp ipv4: it came through, and so did the answer\n"


def test_a_pod_that_reaches_itself_through_a_service_needs_hairpin(lab: None) -> None:
    rules = (
        "table ip svc {\nchain pre {\ntype nat hook prerouting priority dstnat;\n"
        "ip daddr 10.96.0.1 dnat to 10.244.0.2\n}\n"
        "chain post {\ntype nat hook postrouting priority srcnat;\nct status dnat masquerade\n}\n}\n"
    )
    subprocess.run(["ip", "netns", "exec", "lab.node1", "nft", "-f", "-"], input=rules, text=True, check=True)
    # Elsewhere the packet is routed, and a bridge sends its own packets out of any port.
    off = "hairpin-off" if _bridged_packets_are_filtered() else None
    entry = record.find("lab")
    for value, kind in (("on", None), ("off", off)):
        _shell(f"bridge -n lab.node1 link set dev {{web}} hairpin {value}")
        itself, other = diagnose(
            entry.lab, entry.wanted, [Subject(s, "web", "icmp", 4, address="10.96.0.1") for s in ("web", "api")]
        )
        assert (itself.cause.kind if itself.cause else None) == kind, itself
        assert itself.passed == (kind is None)
        assert other.passed


def _bridged_packets_are_filtered() -> bool:
    path = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    done = subprocess.run(["ip", "netns", "exec", "lab.node1", "cat", path], capture_output=True, text=True)
    return done.stdout.strip() == "1"


def test_a_deleted_namespace_is_named(lab: None) -> None:
    subprocess.run(["ip", "netns", "del", "lab.api"], check=True)
    found = podnet("why", "web", "api", "-o", "json").json
    assert found["cause"]["kind"] == "namespace-gone"


USAGE: list[tuple[list[str], str]] = [
    (["web", "dbb"], "lab lab has no dbb: did you mean db?"),
    (["web", "db", "--family", "ipv6"], "lab lab has no IPv6"),
    (["web", "db", "--port", "80"], "ICMP has no ports: give --protocol tcp or udp"),
]


def test_why_is_refused_with_a_reason(lab: None) -> None:
    for arguments, message in USAGE:
        done = podnet("why", *arguments)
        assert (done.code, message in done.err) == (2, True), done.text


def test_large_packets_are_asked_about(lab: None) -> None:
    assert podnet("why", "web", "db", "--size", "1500").code == 0
    succeeds("fault", "inject", "mtu-port", "--at", "node2")
    found = podnet("why", "web", "db", "--size", "1500", "-o", "json")
    assert (found.code, found.json["cause"]["kind"], found.json["cause"]["netns"]) == (1, "mtu-silent", "lab.underlay")
    assert podnet("why", "web", "db").code == 0


def test_a_diagnosis_leaves_nothing(lab: None, tmp_path: Path) -> None:
    succeeds("fault", "inject", "forwarding-off")
    with subprocess.Popen([*PODNET, "test"], stdout=subprocess.PIPE, text=True) as process:
        told = process.communicate()[0]
    assert "WHY" in told
    assert [name for name in _instances(tmp_path) if name.startswith(f"podnet-{process.pid}-")] == []
    for netns in sorted(each for each in namespaces() if each.startswith("lab.")):
        done = subprocess.run(["ip", "netns", "exec", netns, "nft", "list", "tables"], capture_output=True, text=True)
        assert set(done.stdout.split("\n")) <= {"", "table inet podnet"}


_KILLED = """
import os
from podnet.kernel.nftrace import Tracer
from podnet.kernel.tracefs import DropTracer
tracer, drops = Tracer("lab.node1", "podnet-why-killed", ["ip daddr { 10.244.0.2 }"]), DropTracer()
os.kill(os.getpid(), 9)
"""


def test_a_killed_diagnosis_leaves_no_rules_and_the_next_one_removes_the_rest(lab: None, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _KILLED]) as process:
        assert process.wait() == -9
    assert tables("lab.node1") == ["inet podnet"]
    succeeds("why", "web", "db")
    assert [name for name in _instances(tmp_path) if name.startswith(f"podnet-{process.pid}-")] == []


def _instances(folder: Path) -> list[str]:
    """The instances of tracefs, looked at through a mount of one's own."""
    point = folder / "tracefs"
    point.mkdir()
    subprocess.run(["mount", "-t", "tracefs", "none", str(point)], check=True)
    try:
        return os.listdir(point / "instances")
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_namespaces_that_podnet_did_not_make_are_explained_too(lab: None) -> None:
    _shell(_nft("inet", "forward", "drop"))
    done = podnet("test", "--namespaces", "lab.web", "--namespaces", "lab.db", "--protocol", "icmp", "-o", "json")
    causes = {(each["cause"]["kind"], each["cause"]["netns"]) for each in done.json["diagnoses"]}
    assert causes == {("rule-drop", "lab.node1")}
    assert done.json["diagnoses"][0]["cause"]["mend"].startswith("ip netns exec lab.node1 nft delete rule inet hand")
