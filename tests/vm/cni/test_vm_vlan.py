"""VLAN keys of the bridge mode (2.1, 3.1.10), under a kernel that filters VLANs: ``bridge -j vlan``, and frames."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
import wire
from failing import FailingMachine

pytestmark = [pytest.mark.kernel, pytest.mark.vm]

REFERENCE = Path("/usr/lib/cni/bridge")
Vlans = dict[int, set[str]]


@pytest.fixture
def flat(conf: dict[str, Any]) -> dict[str, Any]:
    """A network without addresses."""
    return conf | {"ipam": {}, "isDefaultGateway": False, "ipMasq": False}


def vlans(host: Any, port: str) -> Vlans:
    """The VLANs of a port with their flags."""
    found: Vlans = {}
    for row in json.loads(host.tool("bridge", "-j", "vlan", "show", "dev", port)):
        for each in row["vlans"]:
            for number in range(each["vlan"], each.get("vlanEnd", each["vlan"]) + 1):
                found[number] = set(each.get("flags", []))
    return found


def links(host: Any) -> dict[str, str]:
    """The bridges and veths of the host, with their kinds."""
    found = {each["ifname"]: each.get("linkinfo", {}).get("info_kind", "") for each in host.ip("link")}
    return {name: kind for name, kind in found.items() if kind in ("bridge", "veth")}


def filtering(host: Any, bridge: str = "br0") -> int:
    return int(host.link(bridge)["linkinfo"]["info_data"]["vlan_filtering"])


ACCESS = {"PVID", "Egress Untagged"}
TRUNK: Vlans = {101: set(), **{number: set() for number in range(200, 211)}}
RANGES = [{"id": 101}, {"minID": 200, "maxID": 210}]


PORTS: list[tuple[dict[str, Any], Vlans]] = [
    ({}, {1: ACCESS}),
    ({"preserveDefaultVlan": True}, {1: ACCESS}),
    ({"vlan": 100}, {100: ACCESS}),
    ({"vlan": 100, "preserveDefaultVlan": True}, {1: {"Egress Untagged"}, 100: ACCESS}),
    ({"vlanTrunk": RANGES}, TRUNK | {1: ACCESS}),
    ({"vlan": 100, "vlanTrunk": RANGES}, TRUNK | {100: ACCESS}),
    ({"vlan": 205, "vlanTrunk": RANGES}, TRUNK | {205: ACCESS}),
    ({"vlan": 100, "vlanTrunk": RANGES, "preserveDefaultVlan": True}, TRUNK | {1: {"Egress Untagged"}, 100: ACCESS}),
]


def test_3_1_10_the_vlans_of_a_port(host: Any, flat: dict[str, Any]) -> None:
    # In one test: a host of its own takes eight seconds here.
    for number, (keys, expected) in enumerate(PORTS):
        network = flat | keys | {"bridge": f"br{number}"}
        result = host.add(network)
        assert vlans(host, result["interfaces"][1]["name"]) == expected, keys
        assert filtering(host, f"br{number}") == int(bool(keys.keys() & {"vlan", "vlanTrunk"})), keys
        assert host.call("CHECK", network | {"prevResult": result}) == (0, None), keys
        host.delete(network)
        assert "eth0" not in [each["ifname"] for each in host.ip("link", netns="c1")], keys


def test_frames_stay_in_their_vlan_and_trunks_carry_tags(host: Any, flat: dict[str, Any]) -> None:
    keys = [{"vlan": 201}, {"vlan": 100}, {"vlanTrunk": RANGES}]
    macs = [host.add(flat | each, f"c{n}")["interfaces"][2]["mac"] for n, each in enumerate(keys, 1)]
    broadcast = "ff:ff:ff:ff:ff:ff"
    with wire.Port("c1") as access, wire.Port("c2") as other, wire.Port("c3") as trunk:
        tag = struct.pack(">HH", 0x8100, 201)
        plain = wire.frame(macs[2], broadcast, b"tagged")
        trunk.send(wire.frame(macs[2], broadcast, b"native"))  # VLAN 1, in which neither of the others is
        trunk.send(plain[:12] + tag + plain[12:])
        assert access.tagged_until(b"tagged") == [(b"tagged", 0)], "of VLAN 201 alone, and without its tag"
        other.send(wire.frame(macs[1], broadcast, b"other"))  # VLAN 100, which is not in the trunk
        access.send(wire.frame(macs[0], broadcast, b"access"))
        assert trunk.tagged_until(b"access") == [(b"access", 201)]


def test_3_1_3_3_1_5_the_gateway_of_a_vlan_is_a_link_of_its_own(host: Any, conf: dict[str, Any]) -> None:
    network = conf | {"vlan": 100}
    result = host.add(network)
    names = [each["name"] for each in result["interfaces"]]
    near = host.link("br0.100")
    assert (names[0], names[2], names[3]) == ("br0", "eth0", "br0.100")
    assert result["interfaces"][3]["mac"] == near["address"]
    assert (host.addresses("br0"), host.addresses("br0.100")) == ([], ["10.1.2.1/29", "fd00:1::1/64"])
    assert (vlans(host, near["link"]), vlans(host, names[1])) == ({100: ACCESS}, {100: ACCESS})
    assert len(links(host)) == 4
    for target in ("10.1.2.1", "fd00:1::1"):
        host.tool("ip", "netns", "exec", "c1", "ping", "-c", "1", "-W", "10", target)
    host.add(network, "c2")
    assert len(links(host)) == 5
    host.tool("ip", "netns", "exec", "c1", "ping", "-c", "1", "-W", "10", "10.1.2.3")
    check = network | {"prevResult": result}
    assert host.call("CHECK", check) == (0, None)
    host.tool("bridge", "vlan", "add", "dev", names[1], "vid", "7")
    details = host.call("CHECK", check)[1]["details"]
    assert f"port {names[1]} is in the VLANs 7, 100 pvid untagged; it should be in 100 pvid untagged" in details
    host.tool("ip", "link", "set", "br0", "type", "bridge", "vlan_filtering", "0")
    assert "bridge br0 filters no VLANs" in host.call("CHECK", check)[1]["details"]


def test_a8_what_was_there_is_as_before_after_an_add_that_fails(host: Any, conf: dict[str, Any]) -> None:
    network = conf | {"vlan": 100}
    # The gateway's address is in the way, after bridge, filtering and the way into the VLAN were made.
    host.tool("ip", "link", "add", "br0", "type", "bridge")
    before = host.snapshot()
    code, error = host.call(
        "ADD", network | {"ingressRate": 8000, "ingressBurst": 8000}, CNI_ARGS="MAC=ff:ff:ff:ff:ff:ff"
    )
    assert (code, "not taken back" in error.get("details", "")) == (1, False), error
    assert (host.snapshot(), filtering(host)) == (before, 0)


def test_2_1_the_reference_plugin_makes_the_same(host: Any, conf: dict[str, Any], tmp_path: Path) -> None:
    if not REFERENCE.exists():
        pytest.skip("the reference plugins are not installed: apt-get install containernetworking-plugins")
    # Version 1.1.1 leaves every port in VLAN 1 too, as later ones do with preserveDefaultVlan.
    network = conf | {"vlan": 100, "preserveDefaultVlan": True, "ipMasq": False, "cniVersion": "0.4.0"}
    network["ipam"] = {"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": str(tmp_path / "ipam")}

    def look(result: dict[str, Any]) -> tuple[Any, ...]:
        port = result["interfaces"][1]["name"]
        kinds = sorted(links(host).values())
        near = host.link("br0.100")
        return (
            kinds, vlans(host, port), filtering(host), host.addresses("br0.100"), vlans(host, near["link"]),
            host.addresses("eth0", "c1"), host.routes("c1"), [each["name"][:4] for each in result["interfaces"]],
        )  # fmt: skip

    ours = look(host.add(network))
    host.delete(network)
    for name in ("br0.100", "br0"):
        host.tool("ip", "link", "delete", name)
    environ = os.environ | {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0",
        "CNI_PATH": str(REFERENCE.parent),
    }  # fmt: skip
    done = subprocess.run(
        [REFERENCE], env=environ, input=json.dumps(network | {"type": "bridge"}), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert look(json.loads(done.stdout)) == ours


def test_a8_an_add_that_fails_at_any_step_leaves_nothing(host: Any, conf: dict[str, Any]) -> None:
    network = conf | {"vlan": 100, "vlanTrunk": RANGES, "ipMasq": False, "portIsolation": True}
    host.tool("ip", "link", "add", "br0", "type", "bridge")
    host.tool("ip", "link", "set", "br0", "up")
    host.tool("bridge", "vlan", "add", "dev", "br0", "vid", "7", "self")

    def state() -> tuple[Any, ...]:
        return links(host), filtering(host), vlans(host, "br0"), host.addresses("br0"), host.ledger("holder")

    before = state()
    host.machine, FailingMachine.late = FailingMachine, True
    for number in range(100):
        FailingMachine.fail_at, FailingMachine.done = number, 0
        code, answer = host.call("ADD", network)
        if code == 0:
            break
        assert "refused by the test" in answer["msg"], answer
        assert "not taken back" not in answer.get("details", ""), answer
        assert state() == before, f"operation {number}: {answer}"
    assert (code, FailingMachine.done <= number, number >= 12) == (0, True, True)
