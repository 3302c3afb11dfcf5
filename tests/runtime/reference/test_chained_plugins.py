"""Our plugin before and after the reference plugins, and after itself: one chain, the same packets, nothing left."""

from __future__ import annotations

import socket
import subprocess
from typing import Any

import pytest

from podnet.cni.runtime.chain import ChainError
from podnet.kernel import netns

pytestmark = pytest.mark.kernel

PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
CAPABLE = {"capabilities": {"portMappings": True}}
A, B, C = "beside-a", "beside-b", "beside-c"


def answers(pod: str, address: str, port: int = 80, at: int = 8080) -> bool:
    """Whether a server in a pod is reached at a port of the node."""
    with (
        netns.open_socket(pod, socket.AF_INET, socket.SOCK_STREAM) as server,
        netns.open_socket("beside-node", socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", port))
        server.listen()
        server.settimeout(5)
        client.settimeout(5)
        try:
            client.connect((address, at))
            connection, _ = server.accept()
        except (TimeoutError, ConnectionRefusedError):
            return False
        connection.close()
        return True


def main(machine: Any, which: str, mode: str) -> dict[str, Any]:
    """The plugin that makes the attachment: the reference one, or ours as its drop-in."""
    ranges = [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd88::/64"}]]
    conf = {"isGateway": True, "ipMasq": True, "ipam": machine.ipam(ranges=ranges)}
    if mode == "bridge":
        conf["bridge"] = "br0"
    return conf | ({"type": mode} if which == "reference" else {"type": "podnet", "mode": mode})


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
@pytest.mark.parametrize(("first", "later"), [("podnet", "reference"), ("reference", "podnet"), ("podnet", "podnet")])
def test_a_chain_of_both(machine: Any, first: str, later: str, mode: str) -> None:
    machine.ports = PORTS
    kind = {"reference": {}, "podnet": {"type": "podnet"}}[later]
    chain = [
        main(machine, first, mode),
        {"type": "portmap", "mode": "portmap"} | kind | CAPABLE,
        {"type": "firewall", "mode": "firewall", "ingressPolicy": "same-bridge"} | kind,
        {"type": "tuning", "dataDir": str(machine.folder / "tuning"), "sysctl": {"net.core.somaxconn": "77"}},
    ]
    network = machine.network(*chain)
    result = machine.add(network, machine.container(A))
    names = [each["name"] for each in result["interfaces"]]
    assert (names[0], names[-1]) == ("br0" if mode == "bridge" else names[0], "eth0")
    assert result["ips"][0]["address"] == "10.88.0.2/24"
    assert answers(A, "10.88.0.1")
    assert answers(A, "127.0.0.1")
    if later == "podnet":
        machine.check(network, machine.container(A))
    else:  # it looks for the chains of one family among those of the other; ours has been checked by then
        with pytest.raises(ChainError, match=r"plugin portmap failed \(CHECK\): could not check ipv6 dnat"):
            machine.check(network, machine.container(A))
    machine.add(network, machine.container(B, ports=[]))
    for pod in (A, B):
        for _ in range(2):
            machine.delete(network, machine.container(pod))
    assert (machine.links(A), machine.links() - {"br0"}) == ({"lo"}, {"lo"})
    assert not any(word in machine.rules() for word in ("8080", "10.88.0.2", "10.88.0.3"))


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_h2_a_chained_part_passes_the_result_on(machine: Any, version: str) -> None:
    base = {"cniVersion": version, "name": "net"}
    code, result = machine.exec("ADD", "bridge", base | main(machine, "reference", "bridge"))
    assert code == 0
    conf = base | {"type": "podnet", "mode": "portmap", "runtimeConfig": {"portMappings": PORTS}}
    assert machine.exec("ADD", "podnet", conf | {"prevResult": result}) == (0, result)
    assert machine.exec("ADD", "podnet", conf | {"mode": "firewall", "prevResult": result}) == (0, result)
    assert machine.exec("ADD", "podnet", conf | {"runtimeConfig": {}, "prevResult": result}, B) == (0, result)
    for mode in ("portmap", "firewall"):
        code, error = machine.exec("ADD", "podnet", conf | {"mode": mode})
        assert (code, error["code"], error["msg"]) == (1, 7, "must be called as chained plugin")
        assert machine.exec("DEL", "podnet", conf | {"mode": mode}, netns="") == (0, None)
    assert "10.88.0.2" not in machine.rules().replace("ip saddr 10.88.0.2", "")  # that one is bridge's masquerading


def test_d3_g1_chained_parts_go_without_namespace_by_del_and_by_gc(machine: Any) -> None:
    base = {"cniVersion": "1.1.0", "name": "net", "type": "podnet"}
    previous: dict[str, dict[str, Any]] = {}
    for number, pod in enumerate((A, B)):
        code, previous[pod] = machine.exec(
            "ADD", "bridge", {"cniVersion": "1.0.0", "name": "net"} | main(machine, "reference", "bridge"), pod
        )
        assert code == 0
        ports = [{"hostPort": 8080 + number, "containerPort": 80}]
        for mode in ("portmap", "firewall"):
            conf = base | {"mode": mode, "prevResult": previous[pod], "runtimeConfig": {"portMappings": ports}}
            assert machine.exec("ADD", "podnet", conf, pod)[0] == 0
            assert machine.exec("CHECK", "podnet", conf, pod) == (0, None)
    subprocess.run(["ip", "netns", "delete", A], check=True)
    assert machine.exec("DEL", "podnet", base | {"mode": "portmap"}, A, netns="") == (0, None)
    rules = machine.rules()
    assert ("tcp . 8080" in rules, "tcp . 8081" in rules, "10.88.0.2 : jump" in rules) == (False, True, True)
    for mode in ("portmap", "firewall"):
        gc = base | {"mode": mode, "cni.dev/valid-attachments": [{"containerID": B, "ifname": "eth0"}]}
        assert machine.exec("GC", "podnet", gc) == (0, None)
    rules = machine.rules()
    assert ("tcp . 8081" in rules, "10.88.0.2 : jump" in rules, "10.88.0.3 : jump" in rules) == (True, False, True)
    for mode in ("portmap", "firewall"):
        gc = base | {"mode": mode, "cni.dev/valid-attachments": []}
        assert machine.exec("GC", "podnet", gc) == (0, None)
    assert "podnet_" not in machine.rules()


def test_our_port_conflict_is_refused_in_a_chain_and_the_chain_undone(machine: Any) -> None:
    network = machine.network(main(machine, "reference", "bridge"), {"type": "podnet", "mode": "portmap"} | CAPABLE)
    machine.ports = PORTS
    machine.add(network, machine.container(A))
    with pytest.raises(ChainError, match=f"host port 8080/tcp of every address is taken by container {A}"):
        machine.add(network, machine.container(B))
    machine.delete(network, machine.container(B))
    assert answers(A, "10.88.0.1")


def test_the_reference_bandwidth_after_ours(machine: Any) -> None:
    limits = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000}
    network = machine.network(main(machine, "podnet", "bridge"), {"type": "bandwidth"} | limits)
    result = machine.add(network, machine.container(A))
    assert result["interfaces"][-1]["name"].startswith("bwp")
    machine.check(network, machine.container(A))
    assert "tbf" in machine.tool("tc", "qdisc", "show", "dev", result["interfaces"][1]["name"])
    machine.delete(network, machine.container(A))
    assert machine.links() == {"lo", "br0"}
