"""The reference plugins that hand out addresses, called by podnet: ``static``, and ``dhcp`` with daemon and server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from own_machine import OwnMachine, until

pytestmark = pytest.mark.kernel

DAEMON = "/run/cni/dhcp.sock"
# One address: who comes next gets it only if it was given back.
SERVER = """
start 10.55.0.10
end 10.55.0.10
interface eth0
lease_file /run/leases
pidfile /run/udhcpd.pid
option subnet 255.255.255.0
option router 10.55.0.1
option lease 3600
"""


def call(machine: OwnMachine, verb: str, conf: dict[str, Any], container: str = "c1") -> tuple[int, Any]:
    """One call of the plugin, as a runtime makes it."""
    variables = {"COMMAND": verb, "CONTAINERID": container, "NETNS": f"/run/netns/{container}", "IFNAME": "eth0",
                 "PATH": "/run/cni/bin"}  # fmt: skip
    given = [f"CNI_{key}={value}" for key, value in variables.items()]
    file = machine.path("/run") / "stdin"
    file.write_text(json.dumps(conf))
    done = machine.run("env", *given, "sh", "-c", "/run/cni/bin/podnet </run/stdin", check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def conf(mode: str, **ipam: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "net", "type": "podnet", "mode": mode, "bridge": "br0", "isGateway": True,
            "ipMasq": True, "ipam": ipam}  # fmt: skip


def routes(machine: OwnMachine, netns: str) -> set[tuple[str, str]]:
    rows = machine.json("ip", "-j", "route", netns=netns)
    return {(row["dst"], row.get("gateway", "")) for row in rows}


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
def test_static(machine: OwnMachine, mode: str) -> None:
    addresses = [{"address": "10.66.0.7/24", "gateway": "10.66.0.1"}, {"address": "fd66::7/64", "gateway": "fd66::1"}]
    network = conf(mode, type="static", addresses=addresses, routes=[{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16"}])
    machine.run("ip", "netns", "add", "c1")
    before = machine.state()
    code, result = call(machine, "ADD", network)
    assert code == 0, result
    assert [each["address"] for each in result["ips"]] == ["10.66.0.7/24", "fd66::7/64"]
    assert machine.address("eth0", "/run/netns/c1") == ["10.66.0.7/24", "fd66::7/64"]
    assert {("default", "10.66.0.1"), ("10.9.0.0/16", "10.66.0.1")} <= routes(machine, "/run/netns/c1")
    for address in ("10.66.0.1", "fd66::1"):
        machine.run("ping", "-c", "1", "-W", "20", address, netns="/run/netns/c1")
    for address in ("10.66.0.7", "fd66::7"):
        machine.run("ping", "-c", "1", "-W", "20", address)
    assert call(machine, "CHECK", network | {"prevResult": result}) == (0, None)
    for _ in range(2):
        assert call(machine, "DEL", network | {"prevResult": result}) == (0, None)
    after = machine.state()
    assert set(after["links"]) - set(before["links"]) <= {"br0"}  # which all of the network share
    for topic in ("namespaces", "mounts", "processes", "results", "reservations", "queueing"):
        assert after[topic] == before[topic]
    assert "10.66.0.7" not in machine.out("nft", "list", "ruleset")


@pytest.fixture
def served(machine: OwnMachine, tmp_path: Path) -> OwnMachine:
    """A machine with a DHCP server on the bridge, and the plugin's daemon."""
    for name in ("server", "c1", "c2"):
        machine.run("ip", "netns", "add", name)
    for line in ("link add br0 type bridge", "link set br0 up", "link add sv0 type veth peer name eth0 netns server",
                 "link set sv0 master br0 up", "-n server link set eth0 up",
                 "-n server address add 10.55.0.1/24 dev eth0"):  # fmt: skip
        machine.run("ip", *line.split())
    (machine.path("/run") / "udhcpd.conf").write_text(SERVER)
    (machine.path("/run") / "leases").touch()
    machine.start("busybox", "udhcpd", "-f", "/run/udhcpd.conf", netns="/run/netns/server", log=tmp_path / "udhcpd.log")
    machine.start("/usr/lib/cni/dhcp", "daemon", "-socketpath", DAEMON, log=tmp_path / "dhcp.log")
    until(lambda: machine.files(DAEMON), "the daemon listens")
    return machine


def test_dhcp(served: OwnMachine) -> None:
    """The address comes over the pod's own interface, and goes back that way."""
    network = conf("bridge", type="dhcp", daemonSocketPath=DAEMON) | {"isGateway": False, "ipMasq": False}
    before = served.state()
    for container in ("c1", "c2"):
        code, result = call(served, "ADD", network, container)
        assert code == 0, result
        assert [(each["address"], each["gateway"]) for each in result["ips"]] == [("10.55.0.10/24", "10.55.0.1")]
        netns = f"/run/netns/{container}"
        assert served.address("eth0", netns) == ["10.55.0.10/24"]
        assert ("default", "10.55.0.1") in routes(served, netns)
        served.run("ping", "-c", "1", "-W", "20", "10.55.0.1", netns=netns)
        checked = call(served, "CHECK", network | {"prevResult": result}, container)
        assert checked == (0, None), checked[1]["details"]
        assert call(served, "DEL", network, container) == (0, None)
        assert served.changes(before) == []


def test_dhcp_without_an_answer_leaves_nothing(served: OwnMachine) -> None:
    """Nobody answers on this bridge: the delegate's error arrives, and the link is gone again."""
    served.run("ip", "link", "set", "sv0", "down")
    network = conf("bridge", type="dhcp", daemonSocketPath="/run/cni/nobody.sock") | {
        "isGateway": False,
        "ipMasq": False,
    }
    before = served.state()
    code, error = call(served, "ADD", network)
    assert (code, "nobody.sock" in error["msg"]) == (1, True), error
    assert served.changes(before) == []


def test_the_command_reads_and_collects_what_it_delegated(machine: OwnMachine) -> None:
    """``podnet cni``: the whole chain, ours in front, the reference plugins behind, by their conflist."""
    plugins = [
        conf("bridge", type="static", addresses=[{"address": "10.66.0.7/24"}]),
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000},
        {"type": "firewall", "backend": "iptables"},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.log_martians": "1"}},
    ]
    (machine.path("/run/cni/net.d") / "net.conflist").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": plugins})
    )
    machine.run("ip", "netns", "add", "c1")

    def podnet(*arguments: str) -> str:
        command = (sys.executable, "-m", "podnet", "cni", arguments[0], "--path", "/run/cni/bin", *arguments[1:])
        return machine.out(*command)

    ports = json.dumps({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})
    added = podnet("add", "--conf", "/run/cni/net.d", "--netns", "c1", "--capability-args", ports, "-o", "json")
    assert json.loads(added)["ips"][0]["address"] == "10.66.0.7/24"
    host = json.loads(added)["interfaces"][1]["name"]
    assert "tbf" in machine.out("tc", "qdisc", "show", "dev", host)
    assert "8080" in machine.out("nft", "list", "ruleset")
    assert machine.out("cat", "/proc/sys/net/ipv4/conf/eth0/log_martians", netns="/run/netns/c1") == "1\n"
    assert "detached: none" in podnet("gc", "--conf", "/run/cni/net.d")
    machine.run("ip", "netns", "delete", "c1")
    assert "detached: podnet-" in podnet("gc", "--conf", "/run/cni/net.d")
    assert host not in machine.out("ip", "link")
    rules = machine.out("nft", "list", "ruleset")
    assert ("8080" in rules, "10.66.0.7" in rules) == (False, False)
    assert machine.reservations() == []
    assert machine.files("/var/lib/cni/results") == []
