"""A running lab whose nodes come, go and move, or whose fabric is another one; and what the kernel lacks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from fabric_labs import topology
from lab_cli import changed, clean, named, planned, podnet, proved, succeeds, write
from lab_kernel import ip, run

pytestmark = pytest.mark.kernel


def entries(node: str) -> dict[str, str]:
    """A node's forwarding entries as bridge(8) shows them: MAC to underlay address."""
    rows = json.loads(run(f"lab.{node}", "bridge", "-j", "fdb", "show", "dev", "podnet-vxlan"))
    return {row["mac"]: row["dst"] for row in rows}


def test_a_new_node_adds_its_entries_to_the_others_and_takes_them_along_again(tmp_path: Path) -> None:
    three = topology("vxlan", "ipv4", "one subnet")
    two = changed(three, lambda t: (t["nodes"].pop(), t["pods"].pop()))
    succeeds("up", write(tmp_path, two))
    before = entries("node1")
    others = {line for line in planned(write(tmp_path, three)) if line.endswith(("in lab.node1", "in lab.node2"))}
    assert others == {
        f"{action} {what} in lab.node{number}"
        for number in (1, 2)
        for action, what in (
            ("create", "vxlan peer 198.18.1.4 of podnet-vxlan"),
            ("update", "permanent IPv4 neighbours of podnet-vxlan"),
            ("create", "route 10.244.2.0/24 via 10.244.2.1 dev podnet-vxlan"),
            ("update", "nftables table inet podnet"),  # which addresses are the cluster's own
        )
    }
    succeeds("up", write(tmp_path, three))
    clean()
    proved()
    assert sorted(set(entries("node1").items()) - set(before.items())) == [("0a:5b:0a:f4:02:01", "198.18.1.4")]

    succeeds("up", write(tmp_path, two))
    clean()
    proved()
    assert entries("node1") == before
    assert "10.244.2.1" not in run("lab.node1", "ip", "neigh", "show", "dev", "podnet-vxlan")


@pytest.mark.parametrize("family", ["ipv4", "dual"])
def test_a_node_that_gets_another_address(family: str, tmp_path: Path) -> None:
    lab = topology("vxlan", family, "two subnets")
    succeeds("up", write(tmp_path, lab))
    moved = changed(lab, lambda t: named(t, "nodes", "node2").update(addresses=["198.18.1.99"]))
    succeeds("up", write(tmp_path, moved))
    clean()
    proved()
    [link] = ip("lab.node2", "-d", "link", "show", "dev", "podnet-vxlan")
    assert link["linkinfo"]["info_data"]["local"] == "198.18.1.99"
    assert entries("node1")["0a:5b:0a:f4:01:01"] == entries("node3")["0a:5b:0a:f4:01:01"] == "198.18.1.99"


@pytest.mark.parametrize("family", ["ipv4", "ipv6", "dual"])
def test_from_one_fabric_to_another_and_back(family: str, tmp_path: Path) -> None:
    for fabric in ("host-gw", "vxlan", "bgp", "host-gw"):
        succeeds("up", write(tmp_path, topology(fabric, family, "two subnets")))
        clean()
        proved()
    assert "podnet-vxlan" not in run("lab.node1", "ip", "link")
    assert list(Path("/run/podnet/labs/lab").glob("bird/*")) == []
    argv = ["ps", "-eo", "comm"]
    assert "bird" not in subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


DAMAGE = [
    ("a forwarding entry is gone", "bridge fdb del 0a:5b:0a:f4:01:01 dev podnet-vxlan dst 198.18.1.3"),
    ("a forwarding entry leads elsewhere",
     "bridge fdb replace 0a:5b:0a:f4:01:01 dev podnet-vxlan dst 198.18.1.77 self permanent"),
    ("a forwarding entry too many", "bridge fdb append 02:00:00:00:00:99 dev podnet-vxlan dst 198.18.1.3 self"),
    ("a neighbour is gone", "ip neigh del 10.244.1.1 dev podnet-vxlan"),
    ("the device is gone", "ip link del podnet-vxlan"),
    ("the device is down", "ip link set podnet-vxlan down"),
    ("another device in its place",
     "ip link del podnet-vxlan; ip link add podnet-vxlan type vxlan id 9 local 198.18.1.2 dstport 8472"),
    ("its MAC", "ip link set podnet-vxlan address 02:00:00:00:00:98"),
]  # fmt: skip


@pytest.mark.parametrize("command", [row[1] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_damage_is_seen_and_repaired(command: str, tmp_path: Path) -> None:
    file = write(tmp_path, topology("vxlan", "ipv4", "one subnet"))
    succeeds("up", file)
    run("lab.node1", "sh", "-c", command)
    assert podnet("status", "lab", "--check").code == 1
    succeeds("up", file)
    clean()
    proved()


@pytest.mark.parametrize(
    ("fabric", "witness"), [("wireguard", "type wireguard"), ("ipip", "type ipip local 192.0.2.1")], ids=lambda w: w
)
def test_a_fabric_that_this_kernel_lacks_is_refused_before_anything_is_touched(
    fabric: str, witness: str, tmp_path: Path
) -> None:
    argv = ["unshare", "--net", "ip", "link", "add", "trial", *witness.split()]
    has = subprocess.run(argv, capture_output=True, check=False).returncode == 0
    done = podnet("up", write(tmp_path, topology(fabric, "ipv4", "one subnet")))
    if has:
        assert done.code == 0
        return
    assert done.code == 3
    assert f"{fabric}, for fabric: {fabric}" in done.err
    assert podnet("list", "-o", "json").json == {"labs": []}
