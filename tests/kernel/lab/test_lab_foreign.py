"""What is not podnet's is neither named nor touched; what stands in the way is refused, with the reason."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_cli import Topology, clean, drift, podnet, proved, succeeds, two_nodes, write
from lab_kernel import at_rest, differences, eventually, link, namespaces, namespaces_of, run, snapshot, snapshots

pytestmark = pytest.mark.kernel

BY_HAND = [
    ("an address in a pod", "ip -n lab.web addr add 10.244.0.99/24 dev eth0"),
    ("a route in a pod", "ip -n lab.web route add 192.0.2.0/24 via 10.244.0.1"),
    ("a route in a node", "ip -n lab.node1 route add 192.0.2.0/24 via 198.18.0.3"),
    ("a link in a pod", "ip -n lab.web link add mine type bridge"),
    ("a link in a node", "ip -n lab.node1 link add mine type veth peer name mine2"),
    ("a port of the pods' bridge", "ip -n lab.node1 link set mine master podnet0"),
    ("a neighbour in a pod", "ip -n lab.web neigh add 10.244.0.50 lladdr 02:00:00:00:00:50 dev eth0"),
    ("a table in a node", "nsenter --net=/run/netns/lab.node1 nft add table inet mine"),
    ("a rule of policy routing", "ip -n lab.node1 rule add from 10.9.0.0/16 table 77"),
    ("a sysctl that the lab does not set", "nsenter --net=/run/netns/lab.web sysctl -qw net.ipv4.tcp_ecn=0"),
]  # fmt: skip


def test_what_was_added_by_hand_in_a_lab_stays_until_down(tmp_path: Path) -> None:
    path = write(tmp_path, two_nodes())
    succeeds("up", path)
    for _, command in BY_HAND:
        subprocess.run(["sh", "-ec", command], check=True)
    before = snapshots("lab")
    assert drift() == set()
    assert "nothing to change" in succeeds("up", path).out
    assert differences(before, snapshots("lab")) == []
    # A repair beside it touches only what was damaged.
    subprocess.run(["sh", "-ec", "ip -n lab.web route del default"], check=True)
    succeeds("up", path)
    assert differences(before, snapshots("lab")) == []
    # An edited file, too.
    topology = two_nodes()
    topology["pods"].append({"name": "new", "node": "node1"})
    write(tmp_path, topology)
    succeeds("up", path)
    assert [line for line in differences(before, snapshots("lab")) if " was: " in line] == []


@pytest.fixture
def others() -> Iterator[None]:
    """A namespace, a link into it, a route, a rule and a table that belong to somebody else."""
    run("", "sh", "-ec", """
        ip netns add other
        ip link add theirs type veth peer name eth0 netns other
        ip addr add 192.0.2.1/24 dev theirs
        ip link set theirs up
        ip -n other link set eth0 up
        ip route add 198.51.100.0/24 via 192.0.2.2
        ip route add blackhole 203.0.113.0/24 proto 112
        ip rule add from 10.9.0.0/16 table 77 pref 1000
        nft add table inet theirs
        nft add table inet podnet
        nft add table inet podnet-somebody
    """)  # fmt: skip
    eventually(lambda: link("other", "eth0")["operstate"] == "UP" and at_rest("") and at_rest("other"))
    yield
    run("", "sh", "-ec", """
        ip link del theirs
        ip netns del other
        ip route del blackhole 203.0.113.0/24
        ip rule del pref 1000
        nft delete table inet theirs
        nft delete table inet podnet
        nft delete table inet podnet-somebody
    """)  # fmt: skip


def _host_node() -> Topology:
    return {
        "name": "lab",
        "nodes": [{"name": "host", "host": True}, {"name": "node2"}],
        "pods": [{"name": "web", "node": "host"}, {"name": "db", "node": "node2"}],
    }


@pytest.mark.parametrize("topology", [two_nodes(), _host_node()], ids=["namespaces", "host node"])
@pytest.mark.usefixtures("others")
def test_what_others_have_on_the_machine_is_neither_named_nor_touched(topology: Topology, tmp_path: Path) -> None:
    before = {name: snapshot(name) for name in ("", "other")}
    path = write(tmp_path, topology)
    succeeds("up", path)
    clean()
    assert differences({"other": before["other"]}, {"other": snapshot("other")}) == []
    gone = [line for line in differences(before, {name: snapshot(name) for name in before}) if " was: " in line]
    assert [line for line in gone if "sysctls" not in line] == []
    succeeds("up", path)
    succeeds("down", "lab")
    assert differences(before, {name: snapshot(name) for name in before}) == []


def test_a_namespace_of_that_name_is_refused_and_untouched(tmp_path: Path) -> None:
    run("", "ip", "netns", "add", "lab.web")
    try:
        run("lab.web", "ip", "link", "add", "mine", "type", "bridge")
        before = snapshot("lab.web")
        done = podnet("up", write(tmp_path, two_nodes()))
        assert done.code == 4
        assert "lab.web" in done.err
        assert podnet("plan", tmp_path / "lab.yaml").code == 4
        assert namespaces_of("lab") == ["lab.web"]
        assert snapshot("lab.web") == before
        assert json.loads(podnet("list", "-o", "json").out) == {"labs": []}
        assert podnet("down", "lab").code == 0
        assert snapshot("lab.web") == before
    finally:
        run("", "ip", "netns", "del", "lab.web")


IN_THE_WAY = [
    ("a bridge of that name", "ip link add podnet0 type bridge", "ip link del podnet0", "podnet0"),
    ("an overlapping address", "ip link add x type bridge; ip addr add 10.244.0.9/16 dev x", "ip link del x",
     "10.244.0.9/16"),
    ("an overlapping route", "ip route add blackhole 10.244.1.0/25", "ip route del blackhole 10.244.1.0/25",
     "10.244.1.0/25"),
    ("an overlapping underlay", "ip link add x type bridge; ip addr add 198.18.0.1/16 dev x", "ip link del x",
     "198.18.0.1/16"),
    ("a table of that name", "nft add table inet podnet-lab", "nft delete table inet podnet-lab", "podnet-lab"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "make", "remove", "named"), IN_THE_WAY, ids=[row[0] for row in IN_THE_WAY])
def test_what_stands_in_a_host_nodes_way_is_refused(
    what: str, make: str, remove: str, named: str, tmp_path: Path
) -> None:
    run("", "sh", "-ec", make)
    try:
        before = snapshot("")
        done = podnet("up", write(tmp_path, _host_node()))
        assert done.code == 4, (what, done.text)
        assert named in done.err
        assert namespaces() == set()
        assert differences({"": before}, {"": snapshot("")}) == []
        assert podnet("list", "-o", "json").json == {"labs": []}
    finally:
        run("", "sh", "-ec", remove)
    succeeds("up", tmp_path / "lab.yaml")
    clean()
    proved()
