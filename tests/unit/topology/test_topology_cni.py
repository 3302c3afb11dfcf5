"""``networking.cni``: what is wrong with it is told where it stands, and what it means on each node."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from podnet.errors import TopologyError
from podnet.kernel.objects import Attached, Bridge, Netns, Veth
from podnet.lab.targets import lab_of
from podnet.topology.cninetwork import config_of, plugin_types
from podnet.topology.compile import compile_topology
from podnet.topology.load import load
from podnet.topology.place import place

LIST = {
    "cniVersion": "1.0.0",
    "name": "net",
    "plugins": [
        {"type": "bridge", "mtu": "${mtu}", "ipam": {"type": "host-local", "ranges": [[{"subnet": "${podCIDR}"}]]}},
        {"type": "portmap", "note": "${node} ${podGateway} ${podCIDRv4} $podCIDR"},
    ],
}
TWO = "name: lab\nnetworking: {cni: net.conflist}\nnodes: [{name: n1}, {name: n2}]\n"
ONE = "name: lab\nnetworking: {cni: net.conflist}\nnodes: [{name: n1}]\n"


def written(folder: Path, topology: str = TWO, value: object = LIST) -> Path:
    (folder / "net.conflist").write_text(value if isinstance(value, str) else json.dumps(value))
    (folder / "lab.yaml").write_text(topology)
    return folder / "lab.yaml"


def without_words(folder: Path, topology: str) -> Path:
    return written(folder, topology, json.dumps(LIST).replace("${podCIDR}", "10.0.0.0/24").replace("${", "("))


WRONG = [
    ("no such file", TWO.replace("net.", "other."), LIST, (2, 19), 'other.conflist" cannot be read: No such file'),
    ("a folder", TWO.replace("net.conflist", "."), LIST, (2, 19), "cannot be read: Is a directory"),
    ("a device", TWO.replace("net.conflist", "/dev/zero"), LIST, (2, 19), "cannot be read: it is no regular file"),
    ("not JSON", TWO, "{", (2, 19), "it is no CNI configuration list"),
    ("not text", TWO, "\udcff", (2, 19), "cannot be read: 'utf-8' codec"),
    ("no plugins", TWO, {"cniVersion": "1.0.0", "name": "net"}, (2, 19), "it is no CNI configuration list"),
    ("too large", TWO, " " * (1 << 20) + "{}", (2, 19), "cannot be read: it is larger than 1 MiB"),
    ("unknown word", TWO, {**LIST, "x": "${podCidr}"}, (2, 19), "holds ${podCidr}, which stands for nothing"),
    ("one range for all nodes", TWO, {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}, (2, 19),
     "says the same on every node"),
    ("the machine itself", ONE.replace("name: n1", "name: n1, host: true"), LIST, (3, 26), "is the machine itself"),
    ("a pod's address", f"{ONE}pods: [{{name: p, node: n1, addresses: [10.244.0.9]}}]\n", LIST, (4, 28),
     "`addresses` of"),
    ("a pod's route", f"{ONE}pods: [{{name: p, node: n1, routes: [{{dst: 192.0.2.0/24, type: blackhole}}]}}]\n", LIST,
     (4, 28), "`routes` of"),
    ("empty", TWO.replace("net.conflist", "''"), LIST, (2, 19), ""),
    ("not a text", TWO.replace("net.conflist", "7"), LIST, (2, 19), ""),
    ("no list of folders", TWO.replace("cni:", "cniPath: /opt, cni:"), LIST, (2, 23), ""),
    ("a colon", TWO.replace("cni:", "cniPath: ['a:b'], cni:"), LIST, (2, 23), "cannot have a colon"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("topology", "value", "place", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_what_is_wrong_is_told_once_at_its_place(
    topology: str, value: object, place: tuple[int, int], message: str, tmp_path: Path
) -> None:
    (tmp_path / "net.conflist").write_bytes(
        value.encode(errors="surrogateescape") if isinstance(value, str) else json.dumps(value).encode()
    )
    (tmp_path / "lab.yaml").write_text(topology)
    with pytest.raises(TopologyError) as caught:
        load(tmp_path / "lab.yaml")
    (told,) = caught.value.problems
    assert told.startswith(f"{tmp_path}/lab.yaml:{place[0]}:{place[1]}: "), told
    assert message in told


def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "net.conflist").unlink()
    os.mkfifo(tmp_path / "net.conflist")
    with pytest.raises(TopologyError, match="it is no regular file"):
        load(path)


@pytest.mark.parametrize("topology", [ONE, TWO.replace("cni:", "fabric: none, cni:")], ids=["one node", "no fabric"])
def test_without_words_where_nodes_do_not_meet(topology: str, tmp_path: Path) -> None:
    assert load(without_words(tmp_path, topology)).networking.cni is not None


def test_folders_are_relative_to_the_file(tmp_path: Path) -> None:
    cni = load(written(tmp_path, TWO.replace("cni:", "cniPath: [bin, /opt/x], cni:"))).networking.cni
    assert cni is not None
    assert cni.file == str(tmp_path / "net.conflist")
    assert cni.path == (str(tmp_path / "bin"), "/opt/x")
    default = load(written(tmp_path)).networking.cni
    assert default is not None
    assert default.path[1:] == ("/usr/lib/cni", "/opt/cni/bin")
    assert Path(default.path[0], "podnet-python").exists()


def test_words_are_filled_in_for_each_node(tmp_path: Path) -> None:
    topology = load(written(tmp_path, TWO.replace("cni:", "ipFamily: dual, cni:")))
    placement = place(topology)
    assert topology.networking.cni is not None
    name, text = config_of(topology.networking.cni, placement.nodes[1], 1400, "/state")
    value = json.loads(text)
    assert name == "net"
    bridge, portmap = value["plugins"]
    assert bridge == {
        "type": "bridge", "mtu": 1400,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]], "dataDir": "/state"},
    }  # fmt: skip
    assert portmap["note"] == "n2 10.244.1.1 10.244.1.0/24 $podCIDR"
    assert plugin_types(text) == ["bridge", "host-local", "portmap"]


@pytest.mark.parametrize(
    ("ipam", "state"),
    [
        ({"type": "podnet"}, "/state"),
        ({"type": "host-local", "dataDir": "/mine"}, "/mine"),
        ({"type": "static"}, None),
    ],
)
def test_what_a_list_leaves_open_stays_below_the_lab(ipam: dict[str, str], state: str | None, tmp_path: Path) -> None:
    value = {**LIST, "plugins": [{"type": "bridge", "ipam": ipam, "x": "${node}"}]}
    topology = load(written(tmp_path, value=value))
    assert topology.networking.cni is not None
    _, text = config_of(topology.networking.cni, place(topology).nodes[0], 1500, "/state")
    assert json.loads(text)["plugins"][0]["ipam"].get("dataDir") == state


def test_pods_are_attachments_and_no_links(tmp_path: Path) -> None:
    topology = load(written(tmp_path, f"{TWO}pods: [{{name: p, node: n1, replicas: 2}}, {{name: q, node: n2}}]\n"))
    placement = place(topology)
    state = compile_topology(placement, lambda node: f"/state/{node}")
    attached = [each for each in state.values() if isinstance(each, Attached)]
    assert [(a.netns, a.node, a.ifname, a.network) for a in attached] == [
        ("lab.p-0", "lab.n1", "eth0", "net"), ("lab.p-1", "lab.n1", "eth0", "net"), ("lab.q", "lab.n2", "eth0", "net"),
    ]  # fmt: skip
    assert [json.loads(a.config)["plugins"][0]["ipam"]["dataDir"] for a in attached] == [
        "/state/lab.n1", "/state/lab.n1", "/state/lab.n2",
    ]  # fmt: skip
    assert {each.netns for each in state.values() if isinstance(each, Veth | Bridge)} == {
        "lab.n1", "lab.n2", "lab.underlay",
    }  # fmt: skip
    assert not any(isinstance(each, Bridge) for each in state.values() if each.netns != "lab.underlay")
    assert Netns("lab.q").key in state
    lab = lab_of(placement)
    assert [t.interfaces for t in lab.of_kind("pod")] == [(), (), ()]
    assert [[i.name for i in t.interfaces] for t in lab.of_kind("node")] == [["eth0"], ["eth0"]]
