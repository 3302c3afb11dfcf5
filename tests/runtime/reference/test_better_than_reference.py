"""The table "Better than the reference" of docs/cni.md: each row's test, run on our plugin and on the reference one."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from podnet.cni.runtime.chain import ChainError
from podnet.kernel import netns

pytestmark = pytest.mark.kernel

DOCS = Path(__file__).parents[3] / "docs" / "cni.md"
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
A, B = "beside-a", "beside-b"
NODE = "beside-node"


@pytest.fixture(params=["podnet", "reference"])
def plugin(request: pytest.FixtureRequest, machine: Any) -> Any:
    """The machine, with the plugin in its place that the test is about."""
    machine.ours = request.param == "podnet"
    return machine


def conf(machine: Any, version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
    kind = "podnet" if machine.ours else "bridge"
    own = {"cniVersion": version, "name": "net", "type": kind, "bridge": "br0", "isGateway": True}
    return own | {"ipMasq": True, "ipam": machine.ipam()} | keys


def call(machine: Any, verb: str, configuration: dict[str, Any], pod: str = A, netns: str = "-") -> Any:
    return machine.exec(verb, configuration["type"], configuration, pod, netns)


def mapped(machine: Any) -> Any:
    """The network with port mappings: one plugin of ours, two of the reference."""
    machine.ports = PORTS
    first = {key: value for key, value in conf(machine).items() if key not in ("cniVersion", "name")}
    capable = {"capabilities": {"portMappings": True}}
    return machine.network(first | capable) if machine.ours else machine.network(first, {"type": "portmap"} | capable)


def reaches(client: str, address: str, pod: str = A, port: int = 8080, patience: float = 3) -> bool:
    """Whether a client in a namespace reaches a server in a pod by a port of the node."""
    with netns.open_socket(pod, socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", 80))
        server.listen()
        server.settimeout(patience)
        with netns.open_socket(client, socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(patience)
            try:
                sock.connect((address, port))
                connection, _ = server.accept()
            except (TimeoutError, ConnectionRefusedError):
                return False
            connection.close()
            return True


def test_del_without_netns(plugin: Any) -> None:
    network = mapped(plugin)
    plugin.add(network, plugin.container(A))
    subprocess.run(["ip", "netns", "delete", A], check=True)
    plugin.delete(network, plugin.container(A, netns=""))
    rules = plugin.rules()
    assert plugin.reserved == []
    assert ("masquerade" in rules and "10.88.0.2" in rules, "8080" in rules) == (not plugin.ours, False)


def test_del_without_runtime_config(plugin: Any) -> None:
    network = mapped(plugin)
    result = plugin.add(network, plugin.container(A))
    for each in network.plugins[::-1]:
        document = {"cniVersion": "1.0.0", "name": "net", **each.raw, "prevResult": result}
        assert plugin.exec("DEL", each.type, document)[0] == 0
    assert ("8080" in plugin.rules()) is not plugin.ours


def test_add_that_fails_leaves_nothing(plugin: Any) -> None:
    routes = [{"dst": "198.51.100.0/24", "gw": "203.0.113.77"}]  # nobody is there: the kernel refuses the route
    code, _ = call(plugin, "ADD", conf(plugin, ipam=plugin.ipam(routes=routes)))
    assert code == 1
    left = sorted({re.sub("^veth.*", "veth", each) for each in plugin.links() | plugin.links(A)})
    assert left == (["lo"] if plugin.ours else ["br0", "eth0", "lo", "veth"])
    assert plugin.reserved == []


def test_gc(plugin: Any) -> None:
    for pod in (A, B):
        assert call(plugin, "ADD", conf(plugin), pod)[0] == 0
    subprocess.run(["ip", "netns", "delete", A], check=True)
    valid = {"cni.dev/valid-attachments": [{"containerID": B, "ifname": "eth0"}]}
    code, error = call(plugin, "GC", conf(plugin, "1.1.0") | valid)
    if plugin.ours:
        assert (code, error) == (0, None)
        assert "10.88.0.2 :" not in plugin.rules()
        assert "10.88.0.3 :" in plugin.rules()
    else:
        assert (code, error["msg"]) == (1, "unknown CNI_COMMAND: GC")
        assert plugin.reserved == ["10.88.0.2", "10.88.0.3"]


def test_status_without_an_address(plugin: Any) -> None:
    tiny = plugin.ipam("10.88.0.0/30")
    assert call(plugin, "ADD", conf(plugin, ipam=tiny))[0] == 0
    code, error = call(plugin, "STATUS", conf(plugin, "1.1.0", ipam=tiny))
    assert (code, error["code"]) == (1, 50 if plugin.ours else 4), error


DAMAGES = {
    "link down": "ip -n POD link set eth0 down",
    "MAC": "ip -n POD link set eth0 address 02:00:00:00:00:99",
    "MTU": "ip -n POD link set eth0 mtu 1300",
    "hairpin": "bridge link set dev HOST hairpin off",
    "port not in the bridge": "ip link set HOST nomaster",
    "address": "ip -n POD address delete 10.88.0.2/24 dev eth0",
    "default route": "ip -n POD route delete default",
    "gateway's address": "ip address delete 10.88.0.1/24 dev br0",
    "masquerade": "nft flush ruleset",
    "port map": "nft flush ruleset",
    "reservation": "RESERVATION",
    "forwarding": "sysctl -qw net.ipv4.ip_forward=0",
}
UNSEEN_BY_THE_REFERENCE = {"MTU", "hairpin", "gateway's address", "masquerade", "forwarding"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_names_the_difference(plugin: Any, damage: str) -> None:
    wanted = conf(plugin, hairpinMode=True)
    if damage == "port map":
        if not plugin.ours:  # its CHECK fails also on what is whole (requirement K2a)
            plugin.add(mapped(plugin), plugin.container(A))
            with pytest.raises(ChainError, match=r"portmap failed \(CHECK\): could not check ipv6 dnat"):
                plugin.check(mapped(plugin), plugin.container(A))
            return
        wanted["runtimeConfig"] = {"portMappings": PORTS}
    code, result = call(plugin, "ADD", wanted)
    assert code == 0, result
    assert call(plugin, "CHECK", wanted | {"prevResult": result})[0] == 0
    if DAMAGES[damage] == "RESERVATION":
        for path in (*plugin.folder.glob("ipam/net/10.*"), *plugin.folder.glob("*/podnet.sqlite*")):
            path.unlink()
    else:
        host = result["interfaces"][1]["name"]
        command = DAMAGES[damage].replace("POD", A).replace("HOST", host).split()
        if "-n" in command:
            subprocess.run(command, check=True)
        else:
            plugin.tool(*command)
    code, error = call(plugin, "CHECK", wanted | {"prevResult": result})
    assert (code == 1) is (plugin.ours or damage not in UNSEEN_BY_THE_REFERENCE), error


def test_check_is_quiet_while_somebody_sniffs(plugin: Any) -> None:
    _, result = call(plugin, "ADD", conf(plugin))
    plugin.tool("ip", "link", "set", "br0", "promisc", "on")
    assert call(plugin, "CHECK", conf(plugin) | {"prevResult": result})[0] == (0 if plugin.ours else 1)


def test_host_port_conflict(plugin: Any) -> None:
    network = mapped(plugin)
    plugin.add(network, plugin.container(A))
    if plugin.ours:
        with pytest.raises(ChainError, match=rf"taken by container {A} \(eth0, network net\)"):
            plugin.add(network, plugin.container(B))
    else:
        plugin.add(network, plugin.container(B))


def test_bridge_mac(plugin: Any) -> None:
    plain = {"cniVersion": "1.0.0", "name": "net", "type": "podnet" if plugin.ours else "bridge", "bridge": "br0"}
    macs = []
    for verb, pod in (("ADD", A), ("ADD", B), ("DEL", A)):
        assert call(plugin, verb, plain, pod)[0] == 0
        macs.append(next(each["address"] for each in plugin.ip("link") if each["ifname"] == "br0"))
    assert (len(set(macs)) == 1) is plugin.ours, macs


def test_mtu_and_route_attributes(plugin: Any) -> None:
    routes = [{"dst": "198.51.100.0/24", "gw": "10.88.0.1", "mtu": 1280, "priority": 77, "table": 500}]
    wanted = conf(plugin, "1.1.0" if plugin.ours else "1.0.0", mtu=1400, ipam=plugin.ipam(routes=routes))
    code, result = call(plugin, "ADD", wanted)
    assert code == 0, result
    told = [each.get("mtu") for each in result["interfaces"][1:]]
    assert told == ([1400, 1400] if plugin.ours else [None, None])
    found = [each for each in plugin.ip("route", "show", "table", "all", pod=A) if each["dst"] == "198.51.100.0/24"]
    seen = [(each.get("table"), each.get("metric"), [m.get("mtu") for m in each.get("metrics", [])]) for each in found]
    assert seen == [("500", 77, [1280]) if plugin.ours else ("main", None, [])]


def test_addresses_of_crashed_attachments(plugin: Any) -> None:
    tiny = conf(plugin, ipam=plugin.ipam("10.88.0.0/30"))
    assert call(plugin, "ADD", tiny)[0] == 0
    # As the end of a namespace does, in the background and at times much later.
    subprocess.run(["ip", "-n", A, "link", "delete", "eth0"], check=True)
    subprocess.run(["ip", "netns", "delete", A], check=True)
    code, answer = call(plugin, "ADD", tiny, B)
    if plugin.ours:
        assert (code, answer["ips"][0]["address"]) == (0, "10.88.0.2/30")
    else:
        assert "no IP addresses available in range set" in answer["msg"]


def test_no_duplicate_address(plugin: Any) -> None:
    """Both keep this: eight at once."""
    names = [f"beside-{number}" for number in range(8)]
    answers: dict[str, Any] = {}
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        threads = [
            threading.Thread(target=lambda name=name: answers.update({name: call(plugin, "ADD", conf(plugin), name)}))
            for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=True)
    assert len({answer["ips"][0]["address"] for code, answer in answers.values() if code == 0}) == len(names)


def test_a_pod_reaches_its_own_host_port(plugin: Any) -> None:
    """Where bridges hand their packets to netfilter, as here, without hairpinMode."""
    plugin.tool("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
    plugin.add(mapped(plugin), plugin.container(A))
    assert reaches(NODE, "10.88.0.1")
    assert reaches(A, "10.88.0.1") is plugin.ours


def test_pods_do_not_reach_the_hosts_loopback(plugin: Any) -> None:
    plugin.add(mapped(plugin), plugin.container(A))
    inside = ["ip", "netns", "exec", A]
    for command in (
        "ip route add 127.0.0.1 via 10.88.0.1 table 100",
        "ip rule add pref 0 to 127.0.0.1 lookup 100",
        "ip rule add pref 1 lookup local",
        "ip rule delete pref 0 lookup local",
        "sysctl -qw net.ipv4.conf.all.route_localnet=1",
    ):
        subprocess.run([*inside, *command.split()], check=True)
    with netns.open_socket(NODE, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 7777))
        listener.listen()
        with netns.open_socket(A, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(2)
            try:
                client.connect(("127.0.0.1", 7777))
                reached = True
            except TimeoutError:
                reached = False
    assert reached is not plugin.ours


def test_every_row_of_the_table_has_its_test_here_or_where_it_says() -> None:
    rows = re.findall(r"^\| .*\| `(?:(tests/\S+\.py)::)?(test_\w+)` \|$", DOCS.read_text(), re.MULTILINE)
    assert len(rows) >= 14
    for file, name in rows:
        text = (DOCS.parents[1] / file).read_text() if file else Path(__file__).read_text()
        assert f"def {name}(" in text, name
