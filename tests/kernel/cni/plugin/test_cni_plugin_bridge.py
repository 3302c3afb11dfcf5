"""The bridge mode against the reference plugin's requirements (2.1, 3.1), seen with ``ip``, ``nft`` and ``ping``."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest

pytestmark = pytest.mark.kernel

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


def test_a5_a6_3_1_3_the_result_says_what_was_made(host: Any, conf: dict[str, Any]) -> None:
    result = host.add(conf | {"mtu": 1400})
    bridge, outer, inner = result["interfaces"]
    assert (bridge["name"], inner["name"], inner["sandbox"]) == ("br0", "eth0", "/run/netns/c1")
    assert re.fullmatch(r"veth[0-9a-f]{8,11}", outer["name"])
    assert not {"sandbox"} & (bridge.keys() | outer.keys())
    for each, netns in ((bridge, ""), (outer, ""), (inner, "c1")):
        seen = host.link(each["name"], netns)
        assert (each["mac"], each["mtu"]) == (seen["address"], seen["mtu"]) == (each["mac"], 1400)
        assert seen["operstate"] == "UP"
    assert result["ips"] == [
        {"interface": 2, "address": "10.1.2.2/29", "gateway": "10.1.2.1"},
        {"interface": 2, "address": "fd00:1::2/64", "gateway": "fd00:1::1"},
    ]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}, {"dst": "::/0", "gw": "fd00:1::1"}]


@pytest.mark.parametrize("version", VERSIONS)
def test_a12_3_1_2_add_and_del_in_every_version(host: Any, conf: dict[str, Any], version: str) -> None:
    result = host.add(conf | {"cniVersion": version})
    assert result["cniVersion"] == version
    shape = "ip4" if version < "0.3" else "ips"
    assert shape in result
    if shape == "ips":
        assert ("version" in result["ips"][0]) == (version < "1.0")
        assert ("mtu" in result["interfaces"][2]) == (version >= "1.1")
    host.delete(conf | {"cniVersion": version})
    assert [each["ifname"] for each in host.ip("link", netns="c1")] == ["lo"]
    assert sorted(each["ifname"] for each in host.ip("link")) == ["br0", "lo"]


def test_3_1_5_3_1_7_addresses_and_routes_are_there_and_packets_pass(host: Any, conf: dict[str, Any]) -> None:
    conf["ipam"]["routes"] = [{"dst": "10.9.0.0/16"}, {"dst": "10.8.0.0/16", "gw": "10.1.2.6", "mtu": 1300}]
    host.add(conf)
    host.add(conf, "c2")
    assert host.addresses("br0") == ["10.1.2.1/29", "fd00:1::1/64"]
    assert host.addresses("eth0", "c1") == ["10.1.2.2/29", "fd00:1::2/64"]
    expected = {
        ("default", "10.1.2.1"),
        ("default", "fd00:1::1"),
        ("10.9.0.0/16", "10.1.2.1"),
        ("10.8.0.0/16", "10.1.2.6"),
    }
    assert host.routes("c1") == expected
    for target in ("10.1.2.3", "10.1.2.1", "fd00:1::3", "fd00:1::1"):
        host.tool("ip", "netns", "exec", "c1", "ping", "-c", "1", "-W", "2", target)
    assert host.tool("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding").split() == ["1", "1"]
    assert host.tool("sysctl", "-n", "net.ipv6.conf.br0.accept_ra").strip() == "0"
    assert host.tool("ip", "netns", "exec", "c1", "sysctl", "-n", "net.ipv4.conf.eth0.arp_notify").strip() == "1"


def test_3_1_6_the_bridge_keeps_its_mac_and_its_index(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf)
    first = host.link("br0")
    host.add(conf, "c2", CNI_ARGS="MAC=00:00:00:00:00:01")
    assert (host.link("br0")["address"], host.link("br0")["ifindex"]) == (first["address"], first["ifindex"])
    host.delete(conf)
    host.delete(conf, "c2")
    assert host.link("br0")["address"] == first["address"]


def test_3_1_9_without_ipam_it_is_a_plain_layer_2_network(host: Any, conf: dict[str, Any]) -> None:
    flat = conf | {"ipam": {}, "isDefaultGateway": False, "ipMasq": False}
    result = host.add(flat)
    assert "ips" not in result
    assert (host.link("eth0", "c1")["operstate"], host.addresses("eth0", "c1")) == ("UP", [])
    assert host.call("CHECK", flat | {"prevResult": result}) == (0, None)
    before = host.snapshot()
    code, error = host.call("ADD", flat | {"cniVersion": "0.2.0"}, ifname="eth1")
    assert (code, error["msg"]) == (1, "cannot convert: no valid IP addresses")
    assert host.snapshot() == before


@pytest.mark.parametrize(
    ("there", "force", "found"),
    [
        ("10.1.9.1/24", False, None),
        ("10.1.9.1/24", True, ["10.1.2.1/29", "fd00:1::1/64"]),
        ("10.1.2.1/29", False, ["10.1.2.1/29", "fd00:1::1/64"]),
        ("fd00:1::9/48", False, None),
        ("fd00:1::9/48", True, ["10.1.2.1/29", "fd00:1::1/64"]),
        ("fd00:2::9/64", False, ["10.1.2.1/29", "fd00:1::1/64", "fd00:2::9/64"]),
    ],
)
def test_3_1_12_an_address_that_the_bridge_has(
    host: Any, conf: dict[str, Any], there: str, force: bool, found: list[str] | None
) -> None:
    host.tool("ip", "link", "add", "br0", "type", "bridge")
    host.tool("ip", "address", "add", there, "dev", "br0", "nodad") if ":" in there else host.tool(
        "ip", "address", "add", there, "dev", "br0"
    )
    code, answer = host.call("ADD", conf | {"forceAddress": force})
    if found is None:
        assert (code, '"br0" already has an IP address different from' in answer["msg"]) == (1, True)
        assert host.addresses("br0") == [there]
    else:
        assert sorted(host.addresses("br0")) == sorted(found), answer


def test_3_1_6_a_bridge_made_by_hand_keeps_its_mac_without_an_address_too(host: Any, conf: dict[str, Any]) -> None:
    """The kernel gives it the lowest of its ports' MACs, until one was set."""
    host.tool("ip", "link", "add", "br0", "type", "bridge")
    host.tool("ip", "link", "add", "port0", "address", "fe:00:00:00:00:01", "type", "veth", "peer", "name", "port1")
    host.tool("ip", "link", "set", "port0", "master", "br0")
    before = host.link("br0")["address"]
    assert before == "fe:00:00:00:00:01"
    layer2 = conf | {"isDefaultGateway": False, "ipMasq": False, "ipam": {}}
    result = host.add(layer2)
    assert (result["interfaces"][0]["mac"], host.link("br0")["address"]) == (before, before)
    assert host.call("CHECK", layer2 | {"prevResult": result}) == (0, None)


@pytest.mark.parametrize(
    ("extra", "args", "mac"),
    [
        ({}, "MAC=02:00:00:00:00:01", "02:00:00:00:00:01"),
        ({"args": {"cni": {"mac": "02:00:00:00:00:02"}}}, "MAC=02:00:00:00:00:01", "02:00:00:00:00:02"),
        (
            {"args": {"cni": {"mac": "02:00:00:00:00:02"}}, "runtimeConfig": {"mac": "02:00:00:00:00:03"}},
            "MAC=02:00:00:00:00:01",
            "02:00:00:00:00:03",
        ),
    ],
)
def test_3_1_14_which_mac_counts(host: Any, conf: dict[str, Any], extra: dict[str, Any], args: str, mac: str) -> None:
    result = host.add(conf | extra, CNI_ARGS=args)
    assert (result["interfaces"][2]["mac"], host.link("eth0", "c1")["address"]) == (mac, mac)


def test_3_1_16_masquerade_comes_and_goes_with_the_address(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf)
    host.add(conf, "c2")
    assert host.elements() == {"10.1.2.2", "fd00:1::2", "10.1.2.3", "fd00:1::3"}
    host.delete(conf)
    assert host.elements() == {"10.1.2.3", "fd00:1::3"}


def test_3_1_16_what_leaves_the_subnet_bears_the_hosts_address(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf)
    host.tool("ip", "link", "add", "out", "type", "veth", "peer", "name", "eth0", "netns", "c3")
    host.tool("ip", "address", "add", "192.0.2.1/24", "dev", "out")
    host.tool("ip", "link", "set", "out", "up")
    host.tool("ip", "-n", "c3", "address", "add", "192.0.2.2/24", "dev", "eth0")
    host.tool("ip", "-n", "c3", "link", "set", "eth0", "up")
    # c3 has no route to the pods: only what comes from 192.0.2.1 is answered.
    host.tool("ip", "netns", "exec", "c1", "ping", "-c", "1", "-W", "2", "192.0.2.2")


def test_2_1_flags_of_port_and_bridge(host: Any, conf: dict[str, Any]) -> None:
    name = host.add(conf | {"hairpinMode": True, "portIsolation": True})["interfaces"][1]["name"]
    port = host.link(name)["linkinfo"]["info_slave_data"]
    assert (port["hairpin"], port["isolated"], host.link("br0")["promiscuity"]) == (True, True, 0)
    name = host.add(conf | {"promiscMode": True}, "c2")["interfaces"][1]["name"]
    port = host.link(name)["linkinfo"]["info_slave_data"]
    assert (port["hairpin"], port["isolated"], host.link("br0")["promiscuity"]) == (False, False, 1)


def test_3_1_19_a_container_interface_that_stays_down(host: Any, conf: dict[str, Any]) -> None:
    flat = conf | {"ipam": {}, "disableContainerInterface": True, "ipMasq": False}
    result = host.add(flat)
    link = host.link("eth0", "c1")
    assert ("UP" in link["flags"], link["addr_info"]) == (False, [])
    assert host.call("CHECK", flat | {"prevResult": result}) == (0, None)


def test_2_1_duplicate_detection_is_waited_for(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf | {"enabledad": True})
    found = {each["local"]: each for each in host.link("eth0", "c1")["addr_info"]}
    assert not {"tentative", "dadfailed", "nodad"} & found["fd00:1::2"].keys()
    assert host.routes("c1") == {("default", "10.1.2.1"), ("default", "fd00:1::1")}


def test_2_1_a_duplicate_address_is_refused_and_leaves_nothing(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf, "c2", CNI_ARGS="IP=fd00:1::2,10.1.2.3")
    before = host.snapshot()
    # The other one's reservation is lost, its address is not.
    code, error = host.call("ADD", conf | {"name": "other", "enabledad": True, "ipMasq": False})
    assert (code, "duplicate address fd00:1::2" in error["msg"]) == (1, True), error
    assert host.snapshot() == before


def test_2_1_dns_of_the_network_counts_before_ipams(host: Any, conf: dict[str, Any], tmp_path: Any) -> None:
    (tmp_path / "resolv.conf").write_text(
        "nameserver 192.0.2.1\ndomain a.test\nsearch b.test c.test\noptions ndots:2\n# x\n"
    )
    conf["ipam"]["resolvConf"] = str(tmp_path / "resolv.conf")
    expected = {
        "nameservers": ["192.0.2.1"],
        "domain": "a.test",
        "search": ["b.test", "c.test"],
        "options": ["ndots:2"],
    }
    assert host.add(conf)["dns"] == expected
    assert host.add(conf | {"dns": {"nameservers": ["192.0.2.9"]}}, "c2")["dns"] == {"nameservers": ["192.0.2.9"]}
    assert "dns" not in host.add(conf | {"dns": {"nameservers": []}}, "c3")


def test_containers_keys_from_the_runtime_reach_the_addresses(host: Any, conf: dict[str, Any]) -> None:
    ranges = {"runtimeConfig": {"ipRanges": [[{"subnet": "10.7.0.0/24"}]], "ips": ["10.7.0.9/24"]}}
    result = host.add(conf | {"isDefaultGateway": False} | ranges)
    assert [each["address"] for each in result["ips"]] == ["10.7.0.9/24", "10.1.2.2/29", "fd00:1::2/64"]


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        ({"vlan": 4095}, 7, "invalid VLAN ID 4095 (must be between 0 and 4094)"),
        ({"vlan": 100, "bridge": "a-long-bridge"}, 7, "its gateway of VLAN 100 would be 'a-long-bridge.100'"),
        ({"ingressRate": 8000}, 7, "if rate is set, burst must also be set"),
        ({"mode": "nonsense"}, 2, 'mode "nonsense"'),
        ({"ipMasqBackend": "x"}, 7, 'unknown ipmasq backend "x"'),
        (
            {"hairpinMode": True, "promiscMode": True},
            7,
            "cannot set hairpin mode and promiscuous mode at the same time",
        ),
        ({"disableContainerInterface": True}, 7, "cannot use IPAM when DisableContainerInterface flag is set"),
        ({"bridge": "../etc"}, 7, "is no name for an interface"),
        ({"bridge": "lo", "ipMasq": False}, 999, '"lo" already exists but is not a bridge'),
        ({"mtu": 12}, 7, "mtu: 12"),
        ({"ipam": {"type": "host-local"}}, 7, "no IP ranges specified"),
        ({"ipam": {"type": "host-local", "subnet": "10.0.0.1/24"}}, 7, "Network has host bits set."),
        ({"ipam": {"type": "absent"}}, 7, 'failed to find plugin "absent" in path [/nowhere]'),
    ],
)
def test_2_1_what_is_refused_leaves_nothing(
    host: Any, conf: dict[str, Any], extra: dict[str, Any], code: int, message: str
) -> None:
    before = host.snapshot()
    exit_code, error = host.call("ADD", conf | extra)
    assert (exit_code, error["code"]) == (1, code), error
    assert message in error["msg"]
    assert host.snapshot() == before


@pytest.mark.parametrize(
    ("keys", "asked"),
    [({"vlan": 100}, "vlan: 100"), ({"vlanTrunk": [{"id": 5}]}, "vlanTrunk: [5]")],
)
@pytest.mark.parametrize("there", [False, True])
def test_2_1_vlan_keys_say_what_the_kernel_lacks_and_leave_nothing(
    host: Any, conf: dict[str, Any], keys: dict[str, Any], asked: str, there: bool
) -> None:
    if _filters_vlans():
        pytest.skip("this kernel filters VLANs: tests/vm has these cases")
    if there:
        host.tool("ip", "link", "add", "br0", "type", "bridge")
    before = host.snapshot()
    code, error = host.call("ADD", conf | keys)
    assert (code, error["code"]) == (1, 2)
    assert error["msg"] == f"{asked} needs a bridge that filters VLANs, which this kernel cannot make"
    assert "CONFIG_BRIDGE_VLAN_FILTERING" in error["details"]
    assert "not taken back" not in error["details"]
    assert host.snapshot() == before


def _filters_vlans() -> bool:
    argv = ["ip", "link", "add", "probe", "type", "bridge", "vlan_filtering", "1"]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        return False
    subprocess.run(["ip", "link", "delete", "probe"], check=True)
    return True


def test_a2_an_interface_of_that_name_is_left_as_it_is(host: Any, conf: dict[str, Any]) -> None:
    host.tool("ip", "-n", "c1", "link", "add", "eth0", "type", "dummy") if _has_dummy() else host.tool(
        "ip", "-n", "c1", "link", "add", "eth0", "type", "bridge"
    )
    before = host.snapshot()
    code, error = host.call("ADD", conf)
    assert (code, "already exists" in error["msg"]) == (1, True)
    host.delete(conf)
    assert host.snapshot() == before


def _has_dummy() -> bool:
    done = subprocess.run(["ip", "link", "add", "probe", "type", "dummy"], capture_output=True, check=False)
    if done.returncode == 0:
        subprocess.run(["ip", "link", "delete", "probe"], check=True)
    return done.returncode == 0


def test_a11_the_same_attachment_twice_and_another_interface(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf)
    before = host.snapshot()
    assert host.call("ADD", conf)[0] == 1
    assert host.snapshot() == before
    assert (
        host.add(conf | {"isDefaultGateway": False, "isGateway": True}, ifname="eth1")["ips"][0]["address"]
        == "10.1.2.3/29"
    )
    host.delete(conf, ifname="eth1")
    assert host.snapshot() == before, "DEL of eth1 must not touch eth0"


def test_a10_two_networks_with_a_default_route_each(host: Any, conf: dict[str, Any]) -> None:
    subnets = {"type": "host-local", "ranges": [[{"subnet": "10.5.0.0/24"}], [{"subnet": "fd00:5::/64"}]]}
    other = conf | {"name": "other", "bridge": "br1", "ipam": subnets}
    first, second = host.add(conf), host.add(other, ifname="eth1")
    assert host.call("CHECK", conf | {"prevResult": first}) == (0, None)
    assert host.call("CHECK", other | {"prevResult": second}, ifname="eth1") == (0, None)
    host.delete(other, ifname="eth1")
    assert host.call("CHECK", conf | {"prevResult": first}) == (0, None)


def test_code_3_and_8_are_given_before_anything_is_done(host: Any, conf: dict[str, Any], tmp_path: Any) -> None:
    before = host.snapshot()
    (tmp_path / "file").touch()
    for path in ("/run/netns/absent", str(tmp_path / "file"), "relative"):
        assert host.call("ADD", conf, CNI_NETNS=path)[1]["code"] == 3
    assert host.call("ADD", conf, CNI_NETNS="/proc/thread-self/ns/net")[1]["code"] == 8
    assert host.snapshot() == before
