"""Host ports: who reaches them, under which address the container sees whom, conflicts, and what DEL, CHECK, GC do."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import Any, ClassVar

import pytest
from plugin_traffic import ask, serving

from podnet.cni.plugin.machine import Machine
from podnet.kernel.conntrack import udp_flows
from podnet.kernel.netns import open_socket

pytestmark = pytest.mark.kernel

OUTSIDE = {4: "192.0.2.1", 6: "fd99::1"}  # the host's addresses towards the client outside
BRIDGE = {4: "10.1.2.1", 6: "fd00:1::1"}


def mapping(**keys: Any) -> dict[str, Any]:
    return {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"} | keys]}}


MODES = ("bridge", "ptp")


@pytest.mark.parametrize("mode", MODES)
def test_a_host_port_is_reached_from_everywhere(outside: Any, conf: dict[str, Any], mode: str) -> None:
    host, conf = outside, conf | {"mode": mode}
    conf["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]  # without, ptp's containers have no default route
    host.add(conf | mapping())
    host.add(conf, "c2")
    with serving("c1"):
        for family in (4, 6):
            near, out = BRIDGE[family], OUTSIDE[family]
            # (who, to which address of the host): whom the container sees
            assert ask("c3", out) == out[:-1] + "2", "from outside, the client's own address"
            assert ask("", out) == out, "from the host itself"
            assert ask("", near) == near
            assert ask("c1", out) == near, "from the container itself: masqueraded"
            assert ask("c1", near) == near
            assert ask("c2", out) == near, "from its neighbour: masqueraded"
            assert ask("c2", near) == near
        assert ask("", "127.0.0.1") == BRIDGE[4]
        assert ask("", "::1") == "", "refused: the kernel lets no answer come back to ::1"
        host.delete(conf, "c2")
        far = conf | {"name": "far", "bridge": "br9", "ipMasq": False}
        far["ipam"] = conf["ipam"] | {"ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]]}
        host.add(far, "c2")
        seen = [ask("c2", OUTSIDE[family]) for family in (4, 6)]
        assert seen == ["10.9.0.2", "fd09::2"], "from another network, which is not masqueraded"
    host.delete(conf, CNI_NETNS="")
    with serving("c1"):
        assert ask("c3", OUTSIDE[4]) == ""


@pytest.mark.parametrize(
    ("keys", "reached", "refused"),
    [
        ({"hostIP": "192.0.2.1"}, ["192.0.2.1"], ["127.0.0.1", "fd99::1"]),
        ({"hostIP": "0.0.0.0"}, ["192.0.2.1", "127.0.0.1"], ["fd99::1"]),
        ({"hostIP": "::"}, ["fd99::1"], ["192.0.2.1"]),
        ({"hostIP": "fd99::1"}, ["fd99::1"], ["192.0.2.1", "fd00:1::1"]),
        ({"hostIP": "127.0.0.1"}, ["127.0.0.1"], ["192.0.2.1"]),
    ],
)
def test_a_host_address_limits_the_mapping(
    outside: Any, conf: dict[str, Any], keys: dict[str, Any], reached: list[str], refused: list[str]
) -> None:
    outside.add(conf | mapping(**keys))
    with serving("c1"):
        assert all(ask("", each) for each in reached)
        assert not any(ask("", each) for each in refused)


def test_p7_keys_as_containerd_sends_them(outside: Any, conf: dict[str, Any]) -> None:
    sent = {"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""}
    outside.add(conf | {"RuntimeConfig": {"PortMappings": [sent]}})
    with serving("c1"):
        assert ask("c3", OUTSIDE[4]) == "192.0.2.2"


@pytest.mark.parametrize(
    ("portmap", "seen_outside", "seen_local"),
    [
        ({}, "192.0.2.2", True),
        ({"snat": False}, "192.0.2.2", False),
        ({"masqAll": True}, "10.1.2.1", True),
        ({"conditionsV4": ["ip", "saddr", "192.0.2.0/28"], "conditionsV6": []}, "192.0.2.2", False),
        ({"conditionsV4": ["ip saddr != 192.0.2.0/28"]}, "", True),
        ({"markMasqBit": 3, "backend": "iptables"}, "192.0.2.2", True),
        ({"externalSetMarkChain": "KUBE-MARK-MASQ"}, "192.0.2.2", True),
    ],
)
def test_keys_of_the_reference_portmap(
    outside: Any, conf: dict[str, Any], portmap: dict[str, Any], seen_outside: str, seen_local: bool
) -> None:
    conf |= {"portmap": portmap} | mapping()
    result = outside.add(conf)
    with serving("c1"):
        assert ask("c3", OUTSIDE[4], patience=1 if not seen_outside else 5) == seen_outside
        assert bool(ask("", "127.0.0.1", patience=5 if seen_local else 1)) is seen_local
        assert ask("c3", OUTSIDE[6]) in ("fd99::2", "fd00:1::1")
    assert outside.call("CHECK", conf | {"prevResult": result}) == (0, None)
    outside.delete(conf)
    assert "8080" not in outside.tool("nft", "list", "ruleset")


@pytest.mark.parametrize(
    ("portmap", "mappings", "code", "words"),
    [
        ({"backend": "ebpf"}, {}, 7, 'unrecognized backend "ebpf"'),
        ({"markMasqBit": 32}, {}, 7, "MasqMarkBit must be between 0 and 31"),
        ({"markMasqBit": 1, "externalSetMarkChain": "X"}, {}, 7, "Cannot specify externalSetMarkChain and markMasqBit"),
        ({"backend": "nftables", "externalSetMarkChain": "X"}, {}, 7, "iptables-specific options [X]"),
        ({"conditionsV4": ["-s", "192.0.2.0/24"]}, {}, 2, "portmap.conditionsV4: ['-s', '192.0.2.0/24'] are iptables"),
        ({"conditionsV4": ["accept; drop"]}, {}, 7, "is more than matches"),
        ({"conditionsV6": ["bogus match"]}, {}, 7, "portmap.conditionsV6: nft does not understand 'bogus match'"),
        ({"snat": "no"}, {}, 6, "portmap.snat must be a boolean"),
        ({}, {"hostPort": 0}, 7, "Invalid host port number: 0"),
        ({}, {"hostPort": 65536}, 7, "Invalid host port number: 65536"),
        ({}, {"containerPort": 0}, 7, "Invalid container port number: 0"),
        ({}, {"protocol": "icmp"}, 7, 'protocol: "icmp" is none of tcp, udp, sctp'),
        ({}, {"hostIP": "here"}, 7, "hostIP"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    host: Any, conf: dict[str, Any], portmap: dict[str, Any], mappings: dict[str, Any], code: int, words: str
) -> None:
    before = host.snapshot()
    exit_code, error = host.call("ADD", conf | {"portmap": portmap} | mapping(**mappings))
    assert (exit_code, error["code"], words in error["msg"]) == (1, code, True), error
    assert host.snapshot() == before
    if portmap:
        for chain in ({"portmap": portmap}, {"mode": "portmap"} | portmap):
            assert host.call("STATUS", conf | chain)[1]["code"] == code, "ADD could not be served"


def test_one_host_port_does_not_lead_to_two_ports(host: Any, conf: dict[str, Any]) -> None:
    two = [{"hostPort": 8080, "containerPort": port} for port in (80, 81)]
    code, error = host.call("ADD", conf | {"runtimeConfig": {"portMappings": two}})
    assert (code, error["code"], error["msg"]) == (1, 7, "host port 8080/tcp of 0.0.0.0 is to lead to two ports")
    same = [{"hostPort": 8080, "containerPort": 80}] * 2
    host.add(conf | {"runtimeConfig": {"portMappings": same}})


# -- conflicts ------------------------------------------------------------------------------------------------


def other(conf: dict[str, Any]) -> dict[str, Any]:
    return conf | {"name": "other", "bridge": "br1", "ipam": {"type": "host-local", "subnet": "10.5.0.0/24"}}


def test_a_taken_host_port_is_refused_with_the_owners_name(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf | mapping())
    before = host.snapshot()
    for keys in ({}, {"hostIP": "192.0.2.1"}, {"containerPort": 8443}):
        code, error = host.call("ADD", other(conf) | mapping(**keys), "c2")
        assert (code, error["code"]) == (1, 100)
        assert error["msg"].endswith("is taken by container c1 (eth0, network net)"), error
        assert "host port 8080/tcp of " in error["msg"]
        assert host.snapshot() == before
    host.add(other(conf) | mapping(protocol="udp"), "c2")
    host.add(other(conf) | mapping(hostPort=8081), "c2", "eth1")
    host.delete(conf)
    host.add(conf | mapping(hostIP="fd00:1::1"), "c1")
    host.add(other(conf) | mapping(), "c3")


def test_a_host_port_of_a_dead_container_is_free(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf | mapping())
    # As the end of a namespace does, in the background and at times much later.
    host.tool("ip", "-n", "c1", "link", "delete", "eth0")
    host.tool("ip", "netns", "delete", "c1")
    host.add(other(conf) | mapping(), "c2")
    ruleset = host.tool("nft", "list", "ruleset")
    assert ("10.5.0.2 . 80" in ruleset, "10.1.2.2 . 80" in ruleset) == (True, False)
    host.delete(conf, CNI_NETNS="")
    assert "10.5.0.2 . 80" in host.tool("nft", "list", "ruleset"), "the port is another's by now"


def test_a_host_port_of_another_boot_is_free(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf | mapping())
    with closing(sqlite3.connect(host.state / "podnet.sqlite")) as db, db:
        db.execute("UPDATE part SET boot_id = 'before'")
    host.tool("nft", "flush", "ruleset")
    host.add(other(conf) | mapping(), "c2")
    assert "10.5.0.2 . 80" in host.tool("nft", "list", "ruleset")


def test_of_many_at_once_one_gets_the_port(host: Any, conf: dict[str, Any]) -> None:
    script = (
        "import json, sys\n"
        "from podnet.cni.plugin.main import run\n"
        "name, conf, state = sys.argv[1:]\n"
        "environ = {'CNI_COMMAND': 'ADD', 'CNI_CONTAINERID': name, 'CNI_NETNS': '/run/netns/' + name,"
        " 'CNI_IFNAME': 'eth0', 'CNI_PATH': '/nowhere'}\n"
        "code, output = run(environ, conf.encode, state=state)\n"
        "print(output.decode())\n"
    )
    names = ("c1", "c2", "c3")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, name, json.dumps(conf | mapping()), str(host.state)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    answers = [json.loads(each.communicate()[0]) for each in processes]
    assert sorted(each.get("code", 0) for each in answers) == [0, 100, 100], answers
    winner = next(each for each in answers if "code" not in each)["ips"][0]["address"].partition("/")[0]
    ports = json.loads(host.tool("nft", "-j", "list", "map", "inet", "podnet_hostports", "ports4"))["nftables"]
    assert [each["elem"][0][1]["concat"] for each in (row["map"] for row in ports if "map" in row)] == [[winner, 80]]


# -- DEL, CHECK, GC -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_d3_del_without_namespace_or_configuration_takes_the_mappings(
    host: Any, conf: dict[str, Any], mode: str
) -> None:
    conf |= {"mode": mode}
    host.add(conf | mapping())
    host.add(conf | mapping(hostPort=9090), "c2")
    host.tool("ip", "netns", "delete", "c1")
    for _ in range(2):
        host.delete(conf, CNI_NETNS="")
        ruleset = host.tool("nft", "list", "ruleset")
        assert ("8080" in ruleset, "tcp . 9090" in ruleset) == (False, True)
        assert [row[4] for row in host.ledger("port")] == ["net"] * 2


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("nft delete element inet podnet_hostports ports4 { tcp . 8080 }", "portmap of tcp . 8080 is missing"),
        (
            "nft delete element inet podnet_hostports masquerade4 { 10.1.2.2 . tcp . 80 }",
            "portmap of 10.1.2.2 . tcp . 80 is missing",
        ),
        (
            "nft flush chain inet podnet_hostports prerouting",
            "the rules of chain inet podnet_hostports prerouting differ",
        ),
        ("nft flush chain inet podnet_hostports to_10_1_2_0__29", "chain inet podnet_hostports to_10_1_2_0__29 differ"),
        ("nft delete table inet podnet_hostports", "portmap of tcp . 8080 is missing"),
        ("sysctl -qw net.ipv4.conf.br0.route_localnet=0", "route_localnet=1 in the machine is not set"),
    ],
)
def test_k3_check_names_a_missing_mapping(host: Any, conf: dict[str, Any], damage: str, words: str) -> None:
    result = host.add(conf | mapping())
    check = conf | mapping() | {"prevResult": result}
    assert host.call("CHECK", check) == (0, None)
    host.tool(*damage.split())
    code, error = host.call("CHECK", check)
    assert (code, error["code"], words in error["details"]) == (1, 999, True), error


def test_k3_check_sees_that_a_port_leads_elsewhere(host: Any, conf: dict[str, Any]) -> None:
    result = host.add(conf | mapping())
    table = "inet podnet_hostports ports4"
    host.tool("nft", f"delete element {table} {{ tcp . 8080 }}; add element {table} {{ tcp . 8080 : 10.1.2.2 . 8000 }}")
    assert (
        host.call("CHECK", conf | mapping() | {"prevResult": result})[1]["details"]
        == "portmap of tcp . 8080 is missing"
    )


def test_g1_gc_takes_the_mappings_of_what_is_not_valid(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf | mapping())
    host.add(conf | mapping(hostPort=9090), "c2")
    host.add(other(conf) | mapping(hostPort=7070), "c3")
    valid = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
    assert host.call("GC", conf | valid) == (0, None)
    ruleset = host.tool("nft", "list", "ruleset")
    assert [f"tcp . {port} : " in ruleset for port in (8080, 9090, 7070)] == [False, True, True]
    assert host.call("GC", conf | {"cni.dev/valid-attachments": []}) == (0, None)
    assert "tcp . 7070 : " in host.tool("nft", "list", "ruleset")
    assert host.call("GC", other(conf) | {"cni.dev/valid-attachments": []}) == (0, None)
    assert "podnet_hostports" not in host.tool("nft", "list", "tables")


LOCALNET = "/proc/sys/net/ipv4/conf/br0/route_localnet"


@pytest.mark.parametrize(
    ("before", "meanwhile", "after"),
    [("0", "", "0"), ("1", "", "1"), ("0", "0", "0"), ("1", "0", "0")],
    ids=["ours", "set-before", "changed-since", "set-before-and-changed-since"],
)
def test_route_localnet_is_as_before_when_the_last_mapping_goes(
    host: Any, conf: dict[str, Any], before: str, meanwhile: str, after: str
) -> None:
    host.tool("ip", "link", "add", "br0", "type", "bridge")
    host.tool("sysctl", "-qw", f"net.ipv4.conf.br0.route_localnet={before}")
    for number in (1, 2, 3):
        host.add(conf | mapping(hostPort=8080 + number), f"c{number}")
        assert host.tool("cat", LOCALNET) == "1\n"
    host.delete(conf, CNI_NETNS="")
    assert host.tool("cat", LOCALNET) == "1\n", "two pods have mappings"
    if meanwhile:
        host.tool("sysctl", "-qw", f"net.ipv4.conf.br0.route_localnet={meanwhile}")
    assert host.call("GC", conf | {"cni.dev/valid-attachments": [{"containerID": "c3", "ifname": "eth0"}]})[0] == 0
    assert host.tool("cat", LOCALNET) == f"{meanwhile or 1}\n"
    host.delete(conf, "c3")
    assert host.tool("cat", LOCALNET) == f"{after}\n"
    assert host.call("GC", conf | {"cni.dev/valid-attachments": []}) == (0, None)
    assert host.tool("cat", LOCALNET) == f"{after}\n"


def test_pods_do_not_reach_the_hosts_loopback(host: Any, conf: dict[str, Any]) -> None:
    """Routing 127.0.0.0/8 must not open what listens on the host's loopback alone (CVE-2020-8558)."""
    host.add(conf | mapping())
    host.tool("ip", "-n", "c1", "route", "add", "127.0.0.1", "via", "10.1.2.1", "table", "100")
    host.tool("ip", "-n", "c1", "rule", "add", "pref", "0", "to", "127.0.0.1", "lookup", "100")
    host.tool("ip", "-n", "c1", "rule", "add", "pref", "1", "lookup", "local")
    host.tool("ip", "-n", "c1", "rule", "delete", "pref", "0", "lookup", "local")
    subprocess.run(["ip", "netns", "exec", "c1", "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"], check=True)
    listener = socket.create_server(("127.0.0.1", 7777))
    try:
        assert ask("c1", "127.0.0.1", 7777, patience=1) == ""
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        host.tool("nft", "flush", "chain", "inet", "podnet_hostports", "martians")
        with open_socket("/run/netns/c1", socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            sock.connect(("127.0.0.1", 7777))  # so the rule it was
    finally:
        listener.close()


# -- UDP flows ------------------------------------------------------------------------------------------------


def udp_socket(netns: str, family: int = 4, port: int = 0) -> socket.socket:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    sock = open_socket(f"/run/netns/{netns}" if netns else "", kind, socket.SOCK_DGRAM)
    sock.settimeout(5)
    if port:
        sock.bind(("0.0.0.0" if family == 4 else "::", port))
    return sock


def reaches(client: socket.socket, address: str, servers: dict[str, socket.socket]) -> str:
    """Which server gets what the client sends to the host's port."""
    for each in servers.values():
        each.setblocking(False)
    client.sendto(b"x", (address, 8080))
    until = time.monotonic() + 5
    while time.monotonic() < until:
        for name, each in servers.items():
            try:
                each.recv(10)
            except BlockingIOError:
                continue
            return name
        time.sleep(0.01)
    return ""


@pytest.mark.parametrize("family", [4, 6])
def test_udp_flows_follow_the_mapping(outside: Any, conf: dict[str, Any], family: int) -> None:
    """A client that goes on sending from one port gets to the container that has the host port now."""
    host, address = outside, OUTSIDE[family]
    udp = conf | mapping(protocol="udp")
    with udp_socket("c3", family) as client, udp_socket("", family, 8080) as own:
        assert reaches(client, address, {"host": own}) == "host"
        host.add(udp)
        with udp_socket("c1", family, 80) as one:
            assert reaches(client, address, {"host": own, "one": one}) == "one", "a flow from before the mapping"
            host.delete(udp)
            assert udp_flows("", family, 8080) == [], "flows to the container that had the port"
            assert reaches(client, address, {"host": own}) == "host"
        host.add(udp, "c2")
        with udp_socket("c2", family, 80) as two:
            assert reaches(client, address, {"host": own, "two": two}) == "two"


def test_udp_flows_of_others_to_the_same_port_are_left(outside: Any, conf: dict[str, Any]) -> None:
    host = outside
    host.add(conf, "c2")
    with udp_socket("c3", 4, 8080) as far, udp_socket("c2") as client:
        client.sendto(b"x", ("192.0.2.2", 8080))
        assert far.recv(10) == b"x"
        assert [each.destination for each in udp_flows("", 4, 8080)] == ["192.0.2.2"]
        host.add(conf | mapping(protocol="udp"))
        host.delete(conf)
        assert [each.destination for each in udp_flows("", 4, 8080)] == ["192.0.2.2"]


# -- rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_a_mapping_is_an_element(host: Any, conf: dict[str, Any], protocol: str) -> None:
    host.add(conf | mapping(protocol=protocol))
    found = json.loads(host.tool("nft", "-j", "list", "map", "inet", "podnet_hostports", "ports4"))["nftables"]
    (elements,) = (row["map"]["elem"] for row in found if "map" in row)
    assert elements == [[{"concat": [protocol, 8080]}, {"concat": ["10.1.2.2", 80]}]]


class CountingMachine(Machine):
    commands: ClassVar[list[str]] = []

    def nft(self, commands: str) -> str:
        self.commands.append(commands)
        return super().nft(commands)

    def nft_addition(self, commands: str) -> None:
        self.nft(commands)


def test_all_rules_of_an_add_are_one_transaction(host: Any, conf: dict[str, Any]) -> None:
    conf["firewall"] = {"ingressPolicy": "isolated"}
    host.add(conf | mapping())
    host.machine = CountingMachine
    host.add(conf | mapping(hostPort=9090), "c2")
    (commands,) = CountingMachine.commands
    assert all(line.startswith("add element ") for line in commands.splitlines())
    assert {line.split()[3] for line in commands.splitlines()} >= {"podnet_hostports", "podnet_firewall"}
