"""Labs whose pods CNI plugins attach: called as a container runtime calls them, and proved by the same probes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_cli import PODNET, Topology, changed, clean, drift, planned, podnet, proved, succeeds, target, two_nodes, write
from lab_kernel import addresses, eventually, ip, link, namespaces_of, run

pytestmark = pytest.mark.kernel

REFERENCE = Path("/usr/lib/cni")
OWN = Path(__file__).parents[3] / "cni"

# A plugin that says so when it is called, waits for a word, and goes on as the reference bridge plugin.
SLOW = """#!/bin/sh
if [ "$CNI_COMMAND" = ADD ]; then
  case $WHEN in before) ;; *) exec 3>&1; /usr/lib/cni/bridge >&3 || exit 1 ;; esac
  echo $$ >>{said}
  read word <{word}
  [ "$WHEN" = before ] || exit 0
fi
exec /usr/lib/cni/bridge
"""


@pytest.fixture(autouse=True)
def nothing_beside_the_labs_own_folder() -> Iterator[None]:
    """Plugins keep nothing where the machine's would."""

    def kept() -> list[str]:
        # Other tests' plugins keep there what they like meanwhile.
        mine = [path for path in Path("/var/lib/cni").rglob("*") if path.name == "net" or "lab." in path.name]
        calls = Path("/var/lib/cni/podnet/calls.jsonl")
        lines = calls.read_text().splitlines() if calls.exists() else []
        return sorted([*map(str, mine), *(line for line in lines if '"lab.web"' in line)])

    before = kept()
    yield
    assert kept() == before


def conflist(folder: Path, kind: str = "bridge", ipam: str = "host-local", **more: Any) -> Topology:
    """Two nodes whose pods this plugin attaches."""
    plugin = {
        "type": kind,
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {"type": ipam, "ranges": [[{"subnet": "${podCIDR}"}]], "routes": [{"dst": "0.0.0.0/0"}]},
    } | more.pop("plugin", {})
    value = {"cniVersion": "1.0.0", "name": "net", "plugins": [plugin, *more.pop("chained", [])]} | more
    (folder / "net.conflist").write_text(json.dumps(value))
    return two_nodes(cni="net.conflist")


KINDS = {"reference": ("bridge", "host-local"), "own": ("podnet-python", "podnet")}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
class TestAnyPlugin:
    def test_pods_are_what_the_plugin_made_them(self, kind: tuple[str, str], tmp_path: Path) -> None:
        succeeds("up", write(tmp_path, conflist(tmp_path, *kind)))
        assert [addresses(f"lab.{pod}", "eth0") for pod in ("web", "api", "db")] == [
            ["10.244.0.2/24"], ["10.244.0.3/24"], ["10.244.1.2/24"],
        ]  # fmt: skip
        assert addresses("lab.node1", "cni0") == ["10.244.0.1/24"]
        shown = target("lab", "web")["interfaces"]
        assert [(i["name"], i["addresses"], i["mac"]) for i in shown] == [
            ("eth0", ["10.244.0.2/24"], link("lab.web", "eth0")["address"])
        ]
        assert [i["addresses"] for i in target("lab", "node1")["interfaces"]] == [["198.18.0.2/24"], ["10.244.0.1/24"]]
        assert "10.244.1.2 db" in Path("/run/podnet/labs/lab/hosts").read_text().splitlines()

    @pytest.mark.parametrize(
        "damage",
        [
            lambda: run("lab.web", "ip", "link", "del", "eth0"),
            lambda: run("lab.web", "ip", "addr", "flush", "dev", "eth0"),
            lambda: run("", "ip", "netns", "del", "lab.web"),
        ],
        ids=["link", "address", "namespace"],
    )
    def test_what_breaks_is_told_and_attached_again(
        self, kind: tuple[str, str], damage: Callable[[], object], tmp_path: Path
    ) -> None:
        path = write(tmp_path, conflist(tmp_path, *kind))
        succeeds("up", path)
        others = link("lab.db", "eth0")["ifindex"]
        damage()
        assert "recreate attachment of eth0 in lab.web to CNI network net" in drift()
        succeeds("up", path)
        clean()
        proved()
        assert link("lab.db", "eth0")["ifindex"] == others
        assert "nothing to change" in succeeds("up", path).out

    def test_a_lost_node_takes_its_attachments_along(self, kind: tuple[str, str], tmp_path: Path) -> None:
        path = write(tmp_path, conflist(tmp_path, *kind))
        succeeds("up", path)
        run("", "ip", "netns", "del", "lab.node1")
        attachments = {f"recreate attachment of eth0 in lab.{pod} to CNI network net" for pod in ("web", "api")}
        assert {each for each in drift() if "attachment" in each} == attachments
        succeeds("up", path)
        clean()
        proved()


def test_a_pod_more_or_less_touches_that_pod_alone(tmp_path: Path) -> None:
    topology = conflist(tmp_path)
    path = write(tmp_path, topology)
    succeeds("up", path)
    before = link("lab.web", "eth0")["ifindex"]
    write(tmp_path, changed(topology, lambda t: t["pods"].append({"name": "new", "node": "node2"})))
    assert planned(path) == {
        "create namespace lab.new",
        "create link lo in lab.new",
        "create attachment of eth0 in lab.new to CNI network net",
    }
    succeeds("up", path)
    assert addresses("lab.new", "eth0") == ["10.244.1.3/24"]
    write(tmp_path, topology)
    assert planned(path) == {"delete namespace lab.new", "delete attachment of eth0 in lab.new to CNI network net"}
    succeeds("up", path)
    clean()
    assert not Path("/run/podnet/labs/lab/cni/lab.node2/state/net/10.244.1.3").exists()  # given back by DEL
    assert link("lab.web", "eth0")["ifindex"] == before


def test_an_edited_configuration_attaches_anew(tmp_path: Path) -> None:
    topology = conflist(tmp_path)
    path = write(tmp_path, topology)
    succeeds("up", path)
    conflist(tmp_path, plugin={"mtu": 1400})
    assert {each for each in planned(path) if "recreate" not in each} == set()
    succeeds("up", path)
    assert [link(f"lab.{pod}", "eth0")["mtu"] for pod in ("web", "db")] == [1400, 1400]
    clean()
    proved()


def test_plugins_are_chained_and_run_in_the_node(tmp_path: Path) -> None:
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}, "mtu": 1300}
    succeeds("up", write(tmp_path, conflist(tmp_path, chained=[tuning])))
    assert run("lab.web", "cat", "/proc/sys/net/ipv4/conf/eth0/arp_filter").strip() == "1"
    assert link("lab.web", "eth0")["mtu"] == 1300
    assert [row["ifname"] for row in ip("lab.node1", "link", "show", "type", "bridge")] == ["cni0"]
    assert [row["ifname"] for row in ip("", "link", "show", "type", "bridge")] == []
    clean()
    proved()


def test_routed_pods_without_a_bridge(tmp_path: Path) -> None:
    topology = conflist(tmp_path, "ptp")
    succeeds("up", write(tmp_path, topology))
    clean()
    proved()


def test_a_container_finds_the_interface_of_its_pod(tmp_path: Path) -> None:
    topology = conflist(tmp_path)
    topology["pods"][0]["containers"] = [{"name": "main", "command": ["ip", "-4", "-br", "address", "show", "eth0"]}]
    succeeds("up", write(tmp_path, topology))
    eventually(lambda: "10.244.0.2/24" in podnet("logs", "web").out)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("then", ["up", "down"])
def test_killed_while_a_plugin_works(when: str, then: str, tmp_path: Path) -> None:
    """Before the plugin did anything, or after all of it and before podnet knows."""
    plugins = tmp_path / "bin"
    plugins.mkdir()
    said, word = tmp_path / "said", tmp_path / "word"
    os.mkfifo(word)
    (plugins / "slow").write_text(SLOW.format(said=said, word=word))
    (plugins / "slow").chmod(0o755)
    topology = conflist(tmp_path, "slow")
    topology["networking"]["cniPath"] = ["bin", str(REFERENCE)]
    path = write(tmp_path, topology)
    with subprocess.Popen([*PODNET, "up", str(path)], env=os.environ | {"WHEN": when}, stdin=subprocess.DEVNULL) as up:
        plugin = eventually(lambda: said.exists() and said.read_text().strip())
        up.send_signal(signal.SIGKILL)
    with word.open("w") as file:  # the plugin outlives its caller, and ends
        file.write("go on\n")
    eventually(lambda: not Path(f"/proc/{plugin}").exists())
    (plugins / "slow").write_text("#!/bin/sh\nexec /usr/lib/cni/bridge\n")
    if then == "up":
        assert podnet("status", "--check").code == 1
        succeeds("up", path)
        clean()
        proved()
    succeeds("down", "lab")
    assert namespaces_of("lab") == []


def test_a_plugin_that_refuses_is_told_and_the_next_up_completes(tmp_path: Path) -> None:
    topology = conflist(tmp_path, plugin={"vlan": 5000})
    path = write(tmp_path, topology)
    done = podnet("up", path)
    assert done.code == 4
    assert "cannot add attachment of eth0 in lab.web to CNI network net: plugin bridge failed (ADD): " in done.err
    assert "'podnet up' completes it" in done.err
    conflist(tmp_path)
    succeeds("up", path)
    clean()
    proved()


def test_down_goes_on_without_a_plugin(tmp_path: Path) -> None:
    plugins = tmp_path / "bin"
    plugins.mkdir()
    for name in ("bridge", "host-local"):
        (plugins / name).symlink_to(REFERENCE / name)
    topology = conflist(tmp_path)
    topology["networking"]["cniPath"] = [str(plugins)]
    path = write(tmp_path, topology)
    succeeds("up", path)
    (plugins / "bridge").unlink()
    assert podnet("status", "--check").code == 1
    done = succeeds("down", "lab")
    assert done.out == "lab lab: down\n"
    assert "attachment of eth0 in lab.web to CNI network net: " in done.err
    assert namespaces_of("lab") == []


def test_addresses_that_other_nodes_send_elsewhere_are_refused(tmp_path: Path) -> None:
    topology = conflist(tmp_path, plugin={"bridge": "br-${node}"})
    text = (tmp_path / "net.conflist").read_text()
    (tmp_path / "net.conflist").write_text(text.replace("${podCIDR}", "10.99.0.0/24"))
    done = podnet("up", write(tmp_path, topology))
    assert done.code == 4, done.text
    assert "pod web got 10.99.0.2/24, and node1 has the pod CIDR 10.244.0.0/24" in done.err
    assert "Write ${podCIDR}" in done.err


def test_a_plugin_that_is_not_there_stops_before_anything_is_touched(tmp_path: Path) -> None:
    for more in ({"kind": "nosuch"}, {"ipam": "nosuch"}):
        done = podnet("up", write(tmp_path, conflist(tmp_path, **more)))
        assert done.code == 3, done.text
        assert "nosuch" in done.err
        assert "networking.cniPath" in done.err
        assert namespaces_of("lab") == []


def test_another_way_to_attach_is_refused_while_the_lab_runs(tmp_path: Path) -> None:
    path = write(tmp_path, conflist(tmp_path))
    succeeds("up", path)
    write(tmp_path, two_nodes())
    done = podnet("up", path)
    assert done.code == 4, done.text
    assert "take the lab down first" in done.err
    clean()
