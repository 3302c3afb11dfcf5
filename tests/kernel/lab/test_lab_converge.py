"""An edited file: ``plan`` names what differs, ``up`` does that and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab_cli import Topology, changed, clean, named, planned, podnet, proved, succeeds, target, told, two_nodes, write
from lab_kernel import addresses, differences, pairs_with_one_index, snapshots

pytestmark = pytest.mark.kernel


def _base() -> Topology:
    topology = two_nodes()
    topology["nodes"][0]["routes"] = [{"dst": "203.0.113.0/24", "via": "198.18.0.3"}]
    topology["clients"] = [{"name": "laptop", "subnet": "underlay"}]
    return topology


def _pod(name: str, node: str, address: str, *, port: bool = True) -> set[str]:
    gateway = address.rpartition(".")[0] + ".1"
    made = {
        f"create veth eth0 in lab.{name}",
        f"create address {address}/24 on eth0 in lab.{name}",
        f"create route 0.0.0.0/0 via {gateway} dev eth0 in lab.{name}",
        f"create veth veth* (lab.{name}.eth0) in lab.{node}",
    }
    return made | ({f"create namespace lab.{name}", f"create link lo in lab.{name}"} if port else set())


def _links(action: str) -> set[str]:
    """The links that carry pods' packets inside nodes."""
    pods = {"web": "node1", "api": "node1", "db": "node2"}
    return {
        *(f"{action} bridge podnet0 in lab.{node}" for node in ("node1", "node2")),
        *(f"{action} veth eth0 in lab.{pod}" for pod in pods),
        *(f"{action} veth veth* (lab.{pod}.eth0) in lab.{node}" for pod, node in pods.items()),
    }


NFT = {f"nftables table inet podnet in lab.{node}" for node in ("node1", "node2")}
PORTS = {"web": "node1", "api": "node1", "db": "node2"}


@dataclass(frozen=True)
class Edit:
    """One edit: what it is to change, and the namespaces of the lab in which anything may look other then.

    ``only`` says that what was in those is all still there (``adds``), or nothing new (``removes``).
    """

    what: str
    edit: Callable[[Topology], object]
    planned: set[str]
    touched: set[str]
    only: str = ""


EDITS = [
    Edit("nothing", lambda t: None, set(), set()),
    Edit("the order of the pods", lambda t: t["pods"].reverse(), set(), set()),
    Edit("add a pod", lambda t: t["pods"].append({"name": "new", "node": "node1"}),
         _pod("new", "node1", "10.244.0.4"), {"node1"}, "adds"),
    Edit("add a pod before the others", lambda t: t["pods"].insert(0, {"name": "new", "node": "node2"}),
         _pod("new", "node2", "10.244.1.3"), {"node2"}, "adds"),
    Edit("remove a pod", lambda t: t["pods"].remove(named(t, "pods", "web")),
         {"delete namespace lab.web", "delete veth veth* (lab.web.eth0) in lab.node1"}, {"node1"}, "removes"),
    Edit("rename a pod", lambda t: named(t, "pods", "api").update(name="api2"),
         {"delete namespace lab.api", "delete veth veth* (lab.api.eth0) in lab.node1",
          *_pod("api2", "node1", "10.244.0.3")}, {"node1"}),
    Edit("move a pod", lambda t: named(t, "pods", "api").update(node="node2"),
         {"recreate veth eth0 in lab.api", "delete veth veth* (lab.api.eth0) in lab.node1",
          *_pod("api", "node2", "10.244.1.3", port=False)} - {"create veth eth0 in lab.api"},
         {"node1", "node2", "api"}),
    Edit("fix a pod's address", lambda t: named(t, "pods", "api").update(addresses=["10.244.0.77"]),
         {"delete address 10.244.0.3/24 on eth0 in lab.api", "create address 10.244.0.77/24 on eth0 in lab.api",
          "recreate route 0.0.0.0/0 via 10.244.0.1 dev eth0 in lab.api", "update veth eth0 in lab.api",
          "update veth veth* (lab.api.eth0) in lab.node1"},
         {"api", "node1"}),
    Edit("add a node",
         lambda t: (t["nodes"].append({"name": "node3"}), t["pods"].append({"name": "far", "node": "node3"})),
         {*(f"update {each}" for each in NFT), *_pod("far", "node3", "10.244.2.2"),
          "create namespace lab.node3", "create link lo in lab.node3", "create veth eth0 in lab.node3",
          "create veth port* (lab.node3.eth0) in lab.underlay", "create address 198.18.0.5/24 on eth0 in lab.node3",
          "create bridge podnet0 in lab.node3", "create address 10.244.2.1/24 on podnet0 in lab.node3",
          "create sysctl net.ipv4.ip_forward=1 in lab.node3", "create nftables table inet podnet in lab.node3",
          "create route 10.244.0.0/24 via 198.18.0.2 dev eth0 in lab.node3",
          "create route 10.244.1.0/24 via 198.18.0.3 dev eth0 in lab.node3",
          "create route 10.244.2.0/24 via 198.18.0.5 dev eth0 in lab.node1",
          "create route 10.244.2.0/24 via 198.18.0.5 dev eth0 in lab.node2"},
         {"node1", "node2", "underlay"}),
    Edit("remove a node with its pod",
         lambda t: (t["nodes"].remove(named(t, "nodes", "node2")), t["pods"].remove(named(t, "pods", "db"))),
         {"delete namespace lab.node2", "delete namespace lab.db", "delete veth port* (lab.node2.eth0) in lab.underlay",
          "update nftables table inet podnet in lab.node1",
          "delete route 10.244.1.0/24 via 198.18.0.3 dev eth0 in lab.node1"},
         {"node1", "underlay"}),
    Edit("add a client", lambda t: t["clients"].append({"name": "desk", "subnet": "underlay"}),
         {"create namespace lab.desk", "create link lo in lab.desk", "create veth eth0 in lab.desk",
          "create veth port* (lab.desk.eth0) in lab.underlay", "create address 198.18.0.5/24 on eth0 in lab.desk"},
         {"underlay"}, "adds"),
    Edit("remove a client", lambda t: t["clients"].clear(),
         {"delete namespace lab.laptop", "delete veth port* (lab.laptop.eth0) in lab.underlay"},
         {"underlay"}, "removes"),
    Edit("add a route", lambda t: t["nodes"][0]["routes"].append({"dst": "192.0.2.0/24", "type": "blackhole"}),
         {"create route blackhole 192.0.2.0/24 in lab.node1"}, {"node1"}, "adds"),
    Edit("remove a route", lambda t: t["nodes"][0]["routes"].clear(),
         {"delete route 203.0.113.0/24 via 198.18.0.3 dev eth0 in lab.node1"}, {"node1"}, "removes"),
    Edit("change a route", lambda t: t["nodes"][0]["routes"][0].update(via="198.18.0.4"),
         {"update route 203.0.113.0/24 via 198.18.0.4 dev eth0 in lab.node1"}, {"node1"}),
    Edit("change a route's metric", lambda t: t["nodes"][0]["routes"][0].update(metric=7),
         {"create route 203.0.113.0/24 via 198.18.0.3 dev eth0 in lab.node1",
          "delete route 203.0.113.0/24 via 198.18.0.3 dev eth0 in lab.node1"}, {"node1"}),
    Edit("change the mtu", lambda t: t["networking"].update(mtu=1400),
         _links("update"), {"node1", "node2", "web", "api", "db"}),
    Edit("no masquerade", lambda t: t["networking"].update(masquerade=False),
         {f"delete {each}" for each in NFT}, {"node1", "node2"}, "removes"),
    Edit("another bridge name", lambda t: t["networking"].update(bridge="cni0"),
         {*(f"{action} bridge {name} in lab.{node}" for node in ("node1", "node2")
            for action, name in (("delete", "podnet0"), ("create", "cni0"))),
          "create address 10.244.0.1/24 on cni0 in lab.node1", "create address 10.244.1.1/24 on cni0 in lab.node2",
          *(f"update veth veth* (lab.{pod}.eth0) in lab.{node}" for pod, node in PORTS.items())},
         {"node1", "node2"}),
    Edit("add a sysctl", lambda t: t["pods"][0].update(sysctls={"net.ipv4.tcp_syncookies": "0"}),
         {"update sysctl net.ipv4.tcp_syncookies=0 in lab.web"}, {"web"}),
]  # fmt: skip


def _others(found: dict[str, dict[str, list[str]]], touched: set[str]) -> dict[str, dict[str, list[str]]]:
    return {name: each for name, each in found.items() if name.partition(".")[2] not in touched}


@pytest.mark.parametrize("case", EDITS, ids=lambda case: case.what)
def test_an_edit_changes_what_it_says_and_nothing_else(case: Edit, tmp_path: Path) -> None:
    path = write(tmp_path, _base())
    succeeds("up", path)
    before = snapshots("lab", "")
    write(tmp_path, changed(_base(), case.edit))

    assert planned(path) == case.planned
    assert podnet("plan", path, "--check").code == (1 if case.planned else 0)
    assert differences(before, snapshots("lab", "")) == []  # plan touches nothing

    done = succeeds("up", path, "-o", "json").json
    assert told(done["changes"]) == case.planned
    after = snapshots("lab", "")
    new = after.keys() - before.keys()
    gone = before.keys() - after.keys()
    assert new == {each.rpartition(" ")[2] for each in case.planned if each.startswith("create namespace")}
    assert gone == {each.rpartition(" ")[2] for each in case.planned if each.startswith("delete namespace")}
    kept = {name: each for name, each in after.items() if name not in new}
    was = {name: each for name, each in before.items() if name not in gone}
    assert differences(_others(was, case.touched), _others(kept, case.touched)) == []
    unexpected = {"adds": " was: ", "removes": " now: "}.get(case.only)
    if unexpected:
        assert [line for line in differences(was, kept) if unexpected in line] == []

    clean()
    assert "nothing to change" in succeeds("up", path).out
    proved()


def test_labels_and_expectations_change_without_the_kernel(tmp_path: Path) -> None:
    path = write(tmp_path, _base())
    succeeds("up", path)
    before = snapshots("lab", "")
    expected = succeeds("test", "-o", "json").json["summary"]["expected"]

    def edit(topology: Topology) -> None:
        named(topology, "pods", "web")["labels"] = {"run": "nginx"}
        topology["expect"] = [{"from": "web", "to": "laptop", "icmp": True, "source": "node"}]

    write(tmp_path, changed(_base(), edit))
    assert "nothing to change" in succeeds("up", path).out
    assert differences(before, snapshots("lab", "")) == []
    assert target("lab", "web")["labels"] == {"run": "nginx"}
    assert succeeds("test", "-o", "json").json["summary"]["expected"] == expected + 1


def test_pods_keep_their_addresses_when_others_come_and_go(tmp_path: Path) -> None:
    topology = two_nodes()
    path = write(tmp_path, topology)
    succeeds("up", path)
    # web goes, so its address is free; the one who comes gets the lowest that is free, all others keep theirs.
    topology["pods"] = [each for each in topology["pods"] if each["name"] != "web"]
    write(tmp_path, topology)
    succeeds("up", path)
    topology["pods"] = [{"name": name, "node": "node1"} for name in ("b", "a")] + topology["pods"]
    write(tmp_path, topology)
    succeeds("up", path)
    assert {name: addresses(f"lab.{name}", "eth0") for name in ("api", "db", "b", "a")} == {
        "api": ["10.244.0.3/24"],
        "db": ["10.244.1.2/24"],
        "b": ["10.244.0.2/24"],
        "a": ["10.244.0.4/24"],
    }
    assert pairs_with_one_index("lab") == []
    clean()
    proved()


def test_from_one_family_to_both_and_back(tmp_path: Path) -> None:
    path = write(tmp_path, two_nodes())
    succeeds("up", path)
    before = snapshots("lab", "")
    write(tmp_path, two_nodes(ipFamily="dual"))
    succeeds("up", path)
    clean()
    assert addresses("lab.web", "eth0") == ["10.244.0.2/24", "fd00:10:244::2/64"]
    proved()
    write(tmp_path, two_nodes())
    succeeds("up", path)
    clean()
    proved()
    assert addresses("lab.web", "eth0") == ["10.244.0.2/24"]
    after = snapshots("lab", "")
    for topic in ("links", "routes", "routes6", "nft"):
        was, now = ({name: {topic: each[topic]} for name, each in found.items()} for found in (before, after))
        assert differences(was, now) == []
