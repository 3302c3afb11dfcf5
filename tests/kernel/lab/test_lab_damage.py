"""Whatever is damaged by hand, ``status`` names exactly that, ``up`` repairs it, and nothing else is touched."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from lab_cli import clean, drift, podnet, proved, succeeds, told, two_nodes, write
from lab_kernel import addresses, differences, eventually, ip, snapshots

pytestmark = pytest.mark.kernel

WEB = "veth veth* (lab.web.eth0) in lab.node1"
NFT = "nftables table inet podnet in lab.node1"


def _made(*objects: str) -> set[str]:
    return {f"create {each}" for each in objects}


def _attached(pod: str, node: str, address: str) -> set[str]:
    """What goes with a pod's veth."""
    gateway = address.rpartition(".")[0] + ".1"
    return _made(
        f"veth eth0 in lab.{pod}",
        f"veth veth* (lab.{pod}.eth0) in lab.{node}",
        f"address {address}/24 on eth0 in lab.{pod}",
        f"route 0.0.0.0/0 via {gateway} dev eth0 in lab.{pod}",
    )


def _plugged(target: str, address: str, *routes: str) -> set[str]:
    """What goes with the cable from a node or client to the underlay."""
    return _made(
        f"veth eth0 in lab.{target}",
        f"veth port* (lab.{target}.eth0) in lab.underlay",
        f"address {address}/24 on eth0 in lab.{target}",
        *(f"route {route} dev eth0 in lab.{target}" for route in routes),
    )


TO_NODE1 = "10.244.0.0/24 via 198.18.0.2"
TO_NODE2 = "10.244.1.0/24 via 198.18.0.3"

# What somebody does ({web} and {node1} are the far ends of these targets' cables), and all that it is to change.
DAMAGE: dict[str, list[tuple[str, str, set[str]]]] = {
    "routes": [
    ("fabric route deleted", "ip -n lab.node1 route del 10.244.1.0/24",
     {f"create route {TO_NODE2} dev eth0 in lab.node1"}),
    ("extra route deleted", "ip -n lab.node1 route del blackhole 203.0.113.0/24",
     {"create route blackhole 203.0.113.0/24 in lab.node1"}),
    ("default route deleted", "ip -n lab.web route del default",
     {"create route 0.0.0.0/0 via 10.244.0.1 dev eth0 in lab.web"}),
    ("fabric route with a wrong gateway", "ip -n lab.node1 route replace 10.244.1.0/24 via 198.18.0.4 proto 112",
     {f"update route {TO_NODE2} dev eth0 in lab.node1"}),
    ("default route with a wrong gateway", "ip -n lab.web route replace default via 10.244.0.3 proto 112",
     {"update route 0.0.0.0/0 via 10.244.0.1 dev eth0 in lab.web"}),
    ("default route with another mtu", "ip -n lab.web route change default via 10.244.0.1 mtu 1000 proto 112",
     {"update route 0.0.0.0/0 via 10.244.0.1 dev eth0 in lab.web"}),
    ("blackhole became unicast", "ip -n lab.node1 route replace unicast 203.0.113.0/24 via 198.18.0.3 proto 112",
     {"update route blackhole 203.0.113.0/24 in lab.node1"}),
    ("marked route left over", "ip -n lab.web route add 192.0.2.0/24 via 10.244.0.1 proto 112",
     {"delete route 192.0.2.0/24 via 10.244.0.1 dev eth0 in lab.web"}),
    ],
    "addresses": [
    ("pod address deleted", "ip -n lab.web addr del 10.244.0.2/24 dev eth0",
     _made("address 10.244.0.2/24 on eth0 in lab.web", "route 0.0.0.0/0 via 10.244.0.1 dev eth0 in lab.web")),
    ("gateway address deleted", "ip -n lab.node1 addr del 10.244.0.1/24 dev podnet0",
     _made("address 10.244.0.1/24 on podnet0 in lab.node1")),
    ("node address deleted", "ip -n lab.node1 addr del 198.18.0.2/24 dev eth0",
     _made("address 198.18.0.2/24 on eth0 in lab.node1", f"route {TO_NODE2} dev eth0 in lab.node1")),
    ],
    "links": [
    ("pod's end of the veth deleted", "ip -n lab.web link del eth0", _attached("web", "node1", "10.244.0.2")),
    ("host end of the veth deleted", "ip -n lab.node1 link del {web}", _attached("web", "node1", "10.244.0.2")),
    ("bridge deleted", "ip -n lab.node1 link del podnet0",
     {*_made("bridge podnet0 in lab.node1", "address 10.244.0.1/24 on podnet0 in lab.node1"),
      f"update {WEB}", "update veth veth* (lab.api.eth0) in lab.node1"}),
    ("underlay bridge deleted", "ip -n lab.underlay link del underlay",
     {"create bridge underlay in lab.underlay",
      *(f"update veth port* (lab.{each}.eth0) in lab.underlay" for each in ("node1", "node2", "laptop"))}),
    ("cable to the underlay deleted", "ip -n lab.underlay link del {node1}", _plugged("node1", "198.18.0.2", TO_NODE2)),
    ("pod's end set down", "ip -n lab.web link set eth0 down",
     {"update veth eth0 in lab.web", "create route 0.0.0.0/0 via 10.244.0.1 dev eth0 in lab.web"}),
    ("host end set down", "ip -n lab.node1 link set {web} down", {f"update {WEB}"}),
    ("bridge set down", "ip -n lab.node1 link set podnet0 down", {"update bridge podnet0 in lab.node1"}),
    ("node's uplink set down", "ip -n lab.node1 link set eth0 down",
     {"update veth eth0 in lab.node1", f"create route {TO_NODE2} dev eth0 in lab.node1"}),
    ("lo set down", "ip -n lab.web link set lo down", {"update link lo in lab.web"}),
    ("pod's mtu", "ip -n lab.web link set eth0 mtu 1400", {"update veth eth0 in lab.web"}),
    ("bridge's mtu", "ip -n lab.node1 link set podnet0 mtu 1300", {"update bridge podnet0 in lab.node1"}),
    ("pod's mac", "ip -n lab.web link set eth0 address 02:00:00:00:00:01", {"update veth eth0 in lab.web"}),
    ("bridge's mac", "ip -n lab.node1 link set podnet0 address 02:00:00:00:00:01",
     {"update bridge podnet0 in lab.node1"}),
    ("hairpin off", "bridge -n lab.node1 link set dev {web} hairpin off", {f"update {WEB}"}),
    ("port out of the bridge", "ip -n lab.node1 link set {web} nomaster", {f"update {WEB}"}),
    ("port out of the underlay", "ip -n lab.underlay link set {node1} nomaster",
     {"update veth port* (lab.node1.eth0) in lab.underlay"}),
    ("altname removed", "ip -n lab.node1 link property del dev {web} altname podnet.lab.web.eth0",
     {f"update {WEB}"}),
    ("mark removed", "ip -n lab.web link set eth0 group 5", {"update veth eth0 in lab.web"}),
    ("pod's end renamed", "ip -n lab.web link set eth0 down; ip -n lab.web link set eth0 name eth9",
     {"delete veth eth9 in lab.web", f"recreate {WEB}", *_attached("web", "node1", "10.244.0.2")} - {f"create {WEB}"}),
    ("pod's end moved away", "ip -n lab.web link set eth0 netns lab.api name moved",
     {"delete veth moved in lab.api", f"recreate {WEB}", *_attached("web", "node1", "10.244.0.2")}
     - {f"create {WEB}"}),
    ],
    "sysctls and NAT": [
    ("forwarding off", "ip netns exec lab.node1 sysctl -qw net.ipv4.ip_forward=0",
     {"update sysctl net.ipv4.ip_forward=1 in lab.node1"}),
    ("pod's sysctl", "ip netns exec lab.web sysctl -qw net.ipv4.tcp_syncookies=1",
     {"update sysctl net.ipv4.tcp_syncookies=0 in lab.web"}),
    ("nft table deleted", "ip netns exec lab.node1 nft delete table inet podnet", {f"create {NFT}"}),
    ("nft rule deleted", "ip netns exec lab.node1 nft flush chain inet podnet postrouting", {f"update {NFT}"}),
    ("nft rule added", "ip netns exec lab.node1 nft add rule inet podnet postrouting drop", {f"update {NFT}"}),
    ("nft chain added",
     "ip netns exec lab.node1 nft 'add chain inet podnet f {{ type filter hook forward priority 0; policy drop; }}'",
     {f"update {NFT}"}),
    ("nft element deleted", "ip netns exec lab.node1 nft 'delete element inet podnet cluster4 {{ 198.18.0.3 }}'",
     {f"update {NFT}"}),
    ],
    "namespaces": [
    ("pod's namespace deleted", "ip netns del lab.api",
     {*_made("namespace lab.api", "link lo in lab.api"), *_attached("api", "node1", "10.244.0.3")}),
    ("pod's name unmounted", "umount /run/netns/lab.api",
     {*_made("namespace lab.api", "link lo in lab.api"), *_attached("api", "node1", "10.244.0.3")}),
    ("client's namespace deleted", "ip netns del lab.laptop",
     {*_made("namespace lab.laptop", "link lo in lab.laptop"), *_plugged("laptop", "198.18.0.4")}),
    ("node's namespace deleted", "ip netns del lab.node2",
     {*_made("namespace lab.node2", "link lo in lab.node2", "sysctl net.ipv4.ip_forward=1 in lab.node2",
             "bridge podnet0 in lab.node2", "address 10.244.1.1/24 on podnet0 in lab.node2",
             "nftables table inet podnet in lab.node2"),
      *_plugged("node2", "198.18.0.3", TO_NODE1), *_attached("db", "node2", "10.244.1.2")}),
    ("underlay's namespace deleted", "ip netns del lab.underlay",
     {*_made("namespace lab.underlay", "link lo in lab.underlay", "bridge underlay in lab.underlay"),
      *_plugged("node1", "198.18.0.2", TO_NODE2), *_plugged("node2", "198.18.0.3", TO_NODE1),
      *_plugged("laptop", "198.18.0.4")}),
    ],
    "several at once": [
    ("three things at once",
     "ip netns exec lab.node1 sysctl -qw net.ipv4.ip_forward=0; ip -n lab.web route del default; ip -n lab.node2 link set podnet0 mtu 1300",  # noqa: E501
     {"update sysctl net.ipv4.ip_forward=1 in lab.node1", "update bridge podnet0 in lab.node2",
      "create route 0.0.0.0/0 via 10.244.0.1 dev eth0 in lab.web"}),
    ],
}  # fmt: skip


def _lab(folder: Path, **networking: str) -> Path:
    topology = two_nodes(**networking)
    topology["clients"] = [{"name": "laptop", "subnet": "underlay"}]
    topology["nodes"][0]["routes"] = [{"dst": "203.0.113.0/24", "type": "blackhole"}]
    topology["pods"][0]["sysctls"] = {"net.ipv4.tcp_syncookies": "0"}
    topology["expect"] = [{"from": "pods", "to": "laptop", "icmp": True, "source": "node"}]
    return write(folder, topology)


def far_end(netns: str, altname: str) -> str:
    links = ip(netns, "link")
    return next(str(each["ifname"]) for each in links if any(n.endswith(altname) for n in each.get("altnames", ())))


def _damage(command: str) -> None:
    ends = {"web": far_end("lab.node1", "lab.web.eth0"), "node1": far_end("lab.underlay", "lab.node1.eth0")}
    subprocess.run(["sh", "-ec", command.format(**ends)], check=True, stdin=subprocess.DEVNULL)


def _without_interface_numbers(found: dict[str, dict[str, list[str]]]) -> dict[str, dict[str, list[str]]]:
    """What is made anew has another number, so only the topics are compared in which none is shown.

    The kernel lists IPv6 multicast routes in the order of those numbers.
    """
    topics = ("routes", "routes6", "rules", "rules6", "neighbours", "nft")
    return {name: {topic: sorted(each[topic]) for topic in topics} for name, each in found.items()}


@pytest.mark.parametrize("topic", DAMAGE)
def test_damage_is_named_and_repaired(topic: str, tmp_path: Path) -> None:
    path = _lab(tmp_path)
    succeeds("up", path)
    failed = [problem for row in DAMAGE[topic] for problem in _damaged_and_repaired(path, *row)]
    assert failed == []
    proved()


def _damaged_and_repaired(path: Path, what: str, command: str, expected: set[str]) -> list[str]:
    """Damage the lab, let podnet name it and repair it; returns what was not as it must be, one line each."""
    before = snapshots("lab")
    _damage(command)
    # The kernel takes a deleted namespace apart in the background: its cables' other ends go moments later.
    deadline = time.monotonic() + 30
    while True:
        shown = podnet("status", "--check", "-o", "json")
        named = told(shown.json["drift"])
        if named == expected or "netns" not in command or time.monotonic() > deadline:
            break
    problems = [f"named besides: {each}" for each in sorted(named - expected)]
    problems += [f"not named: {each}" for each in sorted(expected - named)]
    if shown.code != 1 or shown.json["state"] != "drifted":
        problems.append(f"status says {shown.json['state']}, exit code {shown.code}")
    done = podnet("up", path)
    if done.code != 0 or f"({len(expected)} change" not in done.out:
        problems.append(f"up: {done.text}")
    after = podnet("status", "--check", "-o", "json")
    if after.code != 0:
        problems.append(f"not repaired: {told(after.json['drift'])}")
    made_anew = any(each.startswith(("create namespace", "create veth", "recreate", "create br")) for each in expected)
    without_numbers = _without_interface_numbers if made_anew else dict
    # The kernel's link watcher tells of a carrier that came back up to a second later, and IPv6 waits for it.
    deadline = time.monotonic() + 30
    while left := differences(without_numbers(before), without_numbers(snapshots("lab"))):
        if time.monotonic() > deadline:
            break
    problems += left
    return [f"{what}: {problem}" for problem in problems]


DUAL_DAMAGE: list[tuple[str, str, set[str]]] = [
    ("IPv6 default route deleted", "ip -n lab.web -6 route del default",
     {"create route ::/0 via fd00:10:244::1 dev eth0 in lab.web"}),
    ("IPv6 fabric route deleted", "ip -n lab.node1 -6 route del fd00:10:244:1::/64",
     {"create route fd00:10:244:1::/64 via fd00:198:18::3 dev eth0 in lab.node1"}),
    ("IPv6 pod address deleted", "ip -n lab.web addr del fd00:10:244::2/64 dev eth0",
     _made("address fd00:10:244::2/64 on eth0 in lab.web")),
    ("IPv6 gateway address deleted", "ip -n lab.node1 addr del fd00:10:244::1/64 dev podnet0",
     _made("address fd00:10:244::1/64 on podnet0 in lab.node1")),
    ("IPv6 forwarding off", "ip netns exec lab.node1 sysctl -qw net.ipv6.conf.all.forwarding=0",
     {"update sysctl net.ipv6.conf.all.forwarding=1 in lab.node1"}),
    ("pod's end set down", "ip -n lab.web link set eth0 down",
     {"update veth eth0 in lab.web", "create route 0.0.0.0/0 via 10.244.0.1 dev eth0 in lab.web",
      "create address fd00:10:244::2/64 on eth0 in lab.web",
      "create route ::/0 via fd00:10:244::1 dev eth0 in lab.web"}),
    ("mtu below what IPv6 needs", "ip -n lab.web link set eth0 mtu 1000",
     {"update veth eth0 in lab.web", "create address fd00:10:244::2/64 on eth0 in lab.web",
      "create route ::/0 via fd00:10:244::1 dev eth0 in lab.web"}),
]  # fmt: skip


def test_damage_in_a_dual_stack_lab(tmp_path: Path) -> None:
    path = _lab(tmp_path, ipFamily="dual")
    succeeds("up", path)
    failed = [problem for row in DUAL_DAMAGE for problem in _damaged_and_repaired(path, *row)]
    assert failed == []
    proved()


def test_a_killed_container_is_named_and_started_again(tmp_path: Path) -> None:
    topology = two_nodes()
    topology["pods"][0]["containers"] = [{"name": "main", "command": ["sleep", "1000"]}]
    path = write(tmp_path, topology)
    succeeds("up", path)
    before = snapshots("lab")
    shown = succeeds("status", "-o", "json").json["pods"][0]["containers"][0]
    subprocess.run(["kill", "-9", str(shown["pid"])], check=True)
    eventually(lambda: podnet("status", "--check").code == 1)
    found = podnet("status", "-o", "json").json
    assert [(each["object"], each["reason"]) for each in found["drift"]] == [
        ("container web/main in lab.web", "has ended with signal 9")
    ]
    assert found["pods"][0]["containers"][0] | {"state": "exited", "signal": 9} == found["pods"][0]["containers"][0]
    succeeds("up", path)
    clean()
    assert differences(before, snapshots("lab")) == []


def test_a_container_whose_pod_lost_its_namespace_starts_again_in_the_new_one(tmp_path: Path) -> None:
    topology = two_nodes()
    topology["pods"][0]["containers"] = [{"name": "main", "command": ["sleep", "1000"]}]
    path = write(tmp_path, topology)
    succeeds("up", path)
    first = succeeds("status", "-o", "json").json["pods"][0]["containers"][0]["pid"]
    subprocess.run(["ip", "netns", "del", "lab.web"], check=True)
    expected = {*_made("namespace lab.web", "link lo in lab.web"), *_attached("web", "node1", "10.244.0.2")}
    # The container still holds the namespace that lost its name, so the old cable is still there.
    assert drift() == expected - {f"create {WEB}"} | {f"recreate {WEB}", "recreate container web/main in lab.web"}
    succeeds("up", path)
    clean()
    second = succeeds("status", "-o", "json").json["pods"][0]["containers"][0]["pid"]
    assert second != first
    assert not Path(f"/proc/{first}").exists()
    assert Path(f"/proc/{second}/ns/net").stat().st_ino == Path("/run/netns/lab.web").stat().st_ino
    proved()


def test_a_permanent_neighbour_is_named_and_repaired(tmp_path: Path) -> None:
    """Enough pods on one bridge that the neighbour table could overflow: their entries are written."""
    topology = two_nodes()
    topology["pods"][0]["replicas"] = 30
    path = write(tmp_path, topology)
    succeeds("up", path)
    pod = succeeds("status", "-o", "json").json["pods"][0]["netns"]
    own = addresses(pod, "eth0")[0].partition("/")[0]
    permanent = [row for row in ip(pod, "neigh", "show", "nud", "permanent") if row["dst"] != own]
    assert len(permanent) == 31  # the gateway and 30 other pods
    before = snapshots("lab")
    gone, wrong = permanent[:2]
    subprocess.run(["ip", "-n", pod, "neigh", "del", gone["dst"], "dev", "eth0"], check=True)
    wrong_mac = ["lladdr", "02:00:00:00:00:09", "nud", "permanent", "protocol", "112"]
    subprocess.run(["ip", "-n", pod, "neigh", "replace", wrong["dst"], "dev", "eth0", *wrong_mac], check=True)
    found = succeeds("status", "-o", "json").json["drift"]
    assert told(found) == {f"update permanent IPv4 neighbours of eth0 in {pod}"}
    assert gone["dst"] in found[0]["reason"]
    assert wrong["dst"] in found[0]["reason"]
    succeeds("up", path)
    clean()
    assert differences(before, snapshots("lab")) == []
