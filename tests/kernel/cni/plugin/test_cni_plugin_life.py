"""DEL, CHECK, GC, STATUS, and an ADD that fails at any step (requirements 1.3 to 1.7)."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from failing import FailingMachine

from podnet.cni.plugin import parts
from podnet.cni.plugin.call import Call
from podnet.cni.plugin.machine import Machine
from podnet.cni.plugin.part import Data, Part
from podnet.cni.spec.result import Result
from podnet.errors import KernelError
from podnet.ipam.ledger import Owner

pytestmark = pytest.mark.kernel


@pytest.fixture(params=["bridge", "ptp"])
def network(request: pytest.FixtureRequest, conf: dict[str, Any]) -> dict[str, Any]:
    return conf | {"mode": request.param}


def drop_bridge(host: Any) -> None:
    if any(each["ifname"] == "br0" for each in host.ip("link")):
        host.tool("ip", "link", "delete", "br0")


# -- DEL ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("netns", ["", "/run/netns/absent", "/run/netns/c1"])
def test_d2_d3_d4_del_with_or_without_namespace_any_number_of_times(
    host: Any, network: dict[str, Any], netns: str
) -> None:
    host.delete(network)  # never added
    host.add(network)
    for _ in range(3):
        host.delete(network, CNI_NETNS=netns)
        assert [each["ifname"] for each in host.ip("link", netns="c1")] == ["lo"]
        assert not any(each["ifname"].startswith("veth") for each in host.ip("link"))
        assert (host.elements(), host.ledger("lease"), host.ledger("holder")) == (set(), [], [])


def test_d3_del_after_the_namespace_is_gone(host: Any, network: dict[str, Any]) -> None:
    host.add(network)
    host.tool("ip", "netns", "delete", "c1")
    host.delete(network, CNI_NETNS="")
    assert (host.elements(), host.ledger("lease"), host.ledger("holder")) == (set(), [], [])


def test_d6_del_takes_nothing_of_another_network(host: Any, conf: dict[str, Any]) -> None:
    other = conf | {"name": "other", "bridge": "br1", "ipam": {"type": "host-local", "subnet": "10.5.0.0/24"}}
    host.add(conf)
    host.add(other | {"isDefaultGateway": False, "isGateway": True}, ifname="eth1")
    host.delete(other)
    host.delete(conf)
    assert host.elements() == {"10.5.0.2"}
    assert host.addresses("eth1", "c1") == ["10.5.0.2/24"]


def test_d7_del_with_a_configuration_that_has_changed(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf)
    host.delete(conf | {"ipMasq": False, "bridge": "br9", "vlan": 5, "mtu": -1, "cniVersion": "0.3.1"})
    assert (host.elements(), host.ledger("lease")) == (set(), [])


def test_names_with_dots_do_not_meet(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf | {"name": "a.b"}, CNI_CONTAINERID="c", CNI_NETNS="/run/netns/c1")
    host.add(conf | {"name": "a"}, "c2", CNI_CONTAINERID="b.c", CNI_ARGS="IP=10.1.2.5")
    host.delete(conf | {"name": "a.b"}, CNI_CONTAINERID="c", CNI_NETNS="")
    assert host.addresses("eth0", "c2")[0] == "10.1.2.5/29"


def test_a_container_id_longer_than_any_name(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf, CNI_CONTAINERID="f" * 300, CNI_NETNS="/run/netns/c1")
    host.delete(conf, CNI_CONTAINERID="f" * 300, CNI_NETNS="")
    assert [each["ifname"] for each in host.ip("link", netns="c1")] == ["lo"]


# -- CHECK ----------------------------------------------------------------------------------------------------


def test_k6_check_right_after_add_is_quiet(host: Any, network: dict[str, Any]) -> None:
    for version in ("0.4.0", "1.0.0", "1.1.0"):
        at = network | {"cniVersion": version, "hairpinMode": True, "portIsolation": True, "mtu": 1300}
        assert host.call("CHECK", at | {"prevResult": host.add(at)}) == (0, None)
        host.delete(at)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("ip -n c1 link set eth0 mtu 1300", "mtu is 1300, should be 1500"),
        ("ip -n c1 link set eth0 address 02:00:00:00:00:99", "mac is 02:00:00:00:00:99"),
        ("ip -n c1 link set eth0 down", "veth eth0 in /run/netns/c1 is down, should be up"),
        ("ip -n c1 link delete eth0", "veth eth0 in /run/netns/c1 is missing"),
        ("ip -n c1 address delete 10.1.2.2/29 dev eth0", "address 10.1.2.2/29 on eth0 in /run/netns/c1 is missing"),
        ("ip -n c1 route delete default", "route 0.0.0.0/0 via 10.1.2.1 dev eth0 in /run/netns/c1 is missing"),
        ("ip -n c1 -6 route delete default", "route ::/0 via fd00:1::1 dev eth0 in /run/netns/c1 is missing"),
        ("ip link set HOST nomaster", "master is none, should be br0"),
        ("bridge link set dev HOST hairpin off", "hairpin is off, should be on"),
        ("bridge link set dev HOST isolated off", "is not isolated"),
        ("ip link set br0 down", "bridge br0 in the machine is down, should be up"),
        ("ip address delete 10.1.2.1/29 dev br0", "address 10.1.2.1/29 on br0 in the machine is missing"),
        ("nft flush ruleset", "masquerade of 10.1.2.2 is missing"),
        ("sysctl -qw net.ipv4.ip_forward=0", "sysctl net.ipv4.ip_forward=1 in the machine value is 0, should be 1"),
        ("rm STATE", "the reservation of 10.1.2.2 is missing"),
    ],
)
def test_k2_k3_check_names_the_difference(host: Any, conf: dict[str, Any], damage: str, words: str) -> None:
    conf |= {"hairpinMode": True, "portIsolation": True}
    result = host.add(conf)
    command = damage.replace("HOST", result["interfaces"][1]["name"]).replace(
        "STATE", str(host.state / "podnet.sqlite")
    )
    host.tool(*command.split())
    code, error = host.call("CHECK", conf | {"prevResult": result})
    assert (code, error["code"]) == (1, 999)
    assert words in error["details"]


def test_k1_k5_what_check_wants_and_what_it_lets_pass(host: Any, conf: dict[str, Any]) -> None:
    result = host.add(conf)
    assert host.call("CHECK", conf)[1]["msg"] == "Required prevResult missing"
    host.tool("ip", "link", "set", "br0", "promisc", "on")  # as a sniffer does
    host.tool("ip", "-n", "c1", "route", "add", "10.99.0.0/16", "via", "10.1.2.1")
    host.tool("ip", "-n", "c1", "link", "set", "eth0", "address", "02:00:00:00:00:99")  # as tuning does, and says so
    host.tool("ip", "-n", "c1", "-6", "route", "replace", "default", "via", "fd00:1::1", "dev", "eth0")
    result["interfaces"][2]["mac"] = "02:00:00:00:00:99"
    assert host.call("CHECK", conf | {"prevResult": result}) == (0, None)


# -- GC and STATUS --------------------------------------------------------------------------------------------


def test_g1_g6_gc_takes_what_is_not_valid_of_this_network_only(host: Any, network: dict[str, Any]) -> None:
    other = network | {"name": "other", "bridge": "br1", "ipam": {"type": "host-local", "subnet": "10.5.0.0/24"}}
    host.add(network)
    host.add(network, "c2")
    host.add(other, "c3")
    host.tool("ip", "netns", "delete", "c1")
    gc = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
    for _ in range(2):
        assert host.call("GC", network | gc) == (0, None)
        assert host.elements() == {"10.1.2.3", "fd00:1::3", "10.5.0.2"}
        assert [row[1] for row in host.ledger("holder")] == ["c2", "c3"]
    assert host.call("GC", network | {"cni.dev/attachments": []}) == (0, None)
    assert host.elements() == {"10.5.0.2"}
    assert [each["ifname"] for each in host.ip("link", netns="c2")] == ["lo"]
    assert host.tool("nft", "list", "tables").count("table inet podnet_cni_") == 1


def test_g3_gc_without_the_list_removes_nothing(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf)
    before = host.snapshot()
    assert host.call("GC", conf)[1]["code"] == 7
    assert host.snapshot() == before


def test_s1_s2_status_says_when_no_address_is_left(host: Any, conf: dict[str, Any]) -> None:
    conf["ipam"] = {"type": "host-local", "subnet": "10.1.2.0/30"}
    assert host.call("STATUS", conf) == (0, None)
    host.add(conf)
    code, error = host.call("STATUS", conf)
    assert (code, error["code"], "10.1.2.1-10.1.2.2" in error["details"]) == (1, 50, True)
    host.tool("ip", "netns", "delete", "c1")
    until = time.monotonic() + 60
    while any(each["ifname"].startswith("veth") for each in host.ip("link")):
        assert time.monotonic() < until, "the kernel takes the namespace apart in the background"
        time.sleep(0.02)
    assert host.call("STATUS", conf) == (0, None)
    assert host.add(conf, "c2")["ips"][0]["address"] == "10.1.2.2/30", "the dead attachment's address is given again"
    assert host.elements() == {"10.1.2.2"}
    host.delete(conf, CNI_NETNS="")
    assert host.elements() == {"10.1.2.2"}, "the address is another's by now"


# -- ADD that fails -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("bridge", ["missing", "there"])
def test_a8_an_add_that_fails_at_any_step_leaves_nothing(
    host: Any, network: dict[str, Any], late: bool, bridge: str
) -> None:
    network |= {"portIsolation": True, "forceAddress": True, "macspoofchk": True}
    network |= {"ingressRate": 8000, "ingressBurst": 16000, "egressRate": 8000, "egressBurst": 16000}
    if bridge == "missing":
        network["runtimeConfig"] = {"portMappings": [{"hostPort": 53, "containerPort": 5353, "protocol": "udp"}]}
    else:
        network["firewall"] = {"ingressPolicy": "isolated"}
        host.tool("iptables", "-P", "FORWARD", "DROP")
        host.tool("ip", "link", "add", "br0", "type", "bridge")
        host.tool("ip", "address", "add", "10.77.0.1/24", "dev", "br0")
    before = host.snapshot()
    host.machine, FailingMachine.late = FailingMachine, late
    failures = 0
    for number in range(200):
        FailingMachine.fail_at, FailingMachine.done = number, 0
        code, answer = host.call("ADD", network)
        if code == 0:
            if FailingMachine.done <= number:
                break
            # The first try of the masquerade may fail: the second makes the table.
            host.machine = Machine
            host.delete(network)
            assert host.call("GC", network | {"cni.dev/valid-attachments": []}) == (0, None)
            if bridge == "missing":
                drop_bridge(host)
            else:
                host.tool("ip", "address", "flush", "dev", "br0")
                host.tool("ip", "address", "add", "10.77.0.1/24", "dev", "br0")
            host.machine = FailingMachine
        else:
            failures += 1
            assert "refused by the test" in answer["msg"], answer
        assert host.snapshot() == before, f"operation {number}: {answer}"
    assert failures >= 10
    assert code == 0


# -- delegation -----------------------------------------------------------------------------------------------


@pytest.fixture
def delegate(tmp_path: Path) -> Path:
    """An IPAM plugin that writes down how it was called, and does what a file says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "addresses"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$CNI_COMMAND" >> {tmp_path}/calls\n'
        f"cat > {tmp_path}/stdin\n"
        f"test -f {tmp_path}/fail-$CNI_COMMAND && {{ cat {tmp_path}/fail-$CNI_COMMAND; exit 1; }}\n"
        f'test "$CNI_COMMAND" != ADD || cat {tmp_path}/answer\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    answer = {"cniVersion": "1.1.0", "ips": [{"address": "10.6.0.7/24"}], "routes": [{"dst": "0.0.0.0/0"}]}
    (tmp_path / "answer").write_text(json.dumps(answer))
    return tmp_path


def test_h5_h6_s3_g5_k7_every_verb_goes_to_the_ipam_plugin(host: Any, conf: dict[str, Any], delegate: Path) -> None:
    path = {"CNI_PATH": str(delegate / "bin")}
    conf["ipam"] = {"type": "addresses", "other": [1]}
    result = host.add(conf, **path)
    assert result["ips"] == [{"interface": 2, "address": "10.6.0.7/24", "gateway": "10.6.0.1"}]
    assert json.loads((delegate / "stdin").read_text()) == conf
    assert host.call("CHECK", conf | {"prevResult": result}, **path) == (0, None)
    assert host.call("STATUS", conf, **path) == (0, None)
    assert host.elements() == {"10.6.0.7"}
    host.delete(conf, **path)
    assert host.elements() == set()
    assert host.call("GC", conf | {"cni.dev/valid-attachments": []}, **path) == (0, None)
    assert (delegate / "calls").read_text().split() == ["ADD", "CHECK", "STATUS", "DEL", "GC"]


def test_a7_e2_a_failed_delegate_is_told_to_clean_and_its_code_arrives(
    host: Any, conf: dict[str, Any], delegate: Path
) -> None:
    conf["ipam"] = {"type": "addresses"}
    (delegate / "fail-ADD").write_text('{"code": 11, "msg": "later"}')
    before = host.snapshot()
    code, error = host.call("ADD", conf, CNI_PATH=str(delegate / "bin"))
    assert (code, error["code"], error["msg"]) == (1, 11, "later")
    assert (delegate / "calls").read_text().split() == ["ADD", "DEL"]
    assert host.snapshot() == before


def test_a8_the_delegate_is_told_when_we_fail_after_it(host: Any, conf: dict[str, Any], delegate: Path) -> None:
    conf["ipam"] = {"type": "addresses"}
    host.tool("ip", "link", "add", "br9", "type", "bridge")
    host.tool("ip", "address", "add", "10.77.0.1/24", "dev", "br9")
    code, _ = host.call("ADD", conf | {"bridge": "br9"}, CNI_PATH=str(delegate / "bin"))
    assert (code, (delegate / "calls").read_text().split()) == (1, ["ADD", "DEL"])
    (delegate / "answer").write_text('{"cniVersion": "1.1.0"}')
    assert host.call("ADD", conf, CNI_PATH=str(delegate / "bin"))[1]["msg"] == "IPAM plugin returned missing IP config"
    assert (delegate / "calls").read_text().split() == ["ADD", "DEL"] * 2


def test_d5_the_delegates_error_comes_after_all_else_was_cleaned(
    host: Any, conf: dict[str, Any], delegate: Path
) -> None:
    conf["ipam"] = {"type": "addresses"}
    host.add(conf, CNI_PATH=str(delegate / "bin"))
    (delegate / "fail-DEL").write_text('{"code": 123, "msg": "no"}')
    assert host.call("DEL", conf, CNI_PATH=str(delegate / "bin"))[1]["code"] == 123
    assert (host.elements(), host.ledger("holder")) == (set(), [])
    assert not any(each["ifname"].startswith("veth") for each in host.ip("link"))


# -- parts ----------------------------------------------------------------------------------------------------


class Stuck(Part):
    """A part that cannot be taken away at first."""

    name, broken = "stuck", True

    def wanted(self, call: Call) -> bool:
        return True

    def data(self, call: Call, result: Result) -> Data:
        return {"of": call.environment.container_id}

    def unmake(self, machine: Machine, owner: Owner, data: Data) -> None:
        assert data == {"of": owner.container_id}
        if self.broken:
            raise KernelError("it does not go", 16)


def test_d1_what_cannot_be_removed_is_told_and_stays_written_down_for_the_next_del(
    host: Any, conf: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PARTS", (*parts.PARTS, Stuck()))
    host.add(conf)
    code, error = host.call("DEL", conf, CNI_NETNS="")
    assert (code, error["msg"]) == (1, "it does not go")
    assert host.elements() == set(), "all else is gone"
    assert [row[3] for row in host.ledger("part")] == ["stuck"]
    monkeypatch.setattr(Stuck, "broken", False)
    host.delete(conf, CNI_NETNS="")
    assert (host.ledger("part"), host.ledger("holder"), host.ledger("lease")) == ([], [], [])
