"""The keys that shape an attachment (2.1, 2.5, 3.1.11, 3.5.4, 3.5.5), and what of them cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podnet.cni.plugin import bandwidth, settings, vlans
from podnet.cni.spec.config import Bandwidth, NetworkConfig, decode_named, parse
from podnet.cni.spec.errors import CNIError
from podnet.errors import KernelError
from podnet.kernel import vlan
from podnet.kernel.vlan import PortVlan

RATES = {"ingressRate": 8, "ingressBurst": 16, "egressRate": 24, "egressBurst": 32}


def config(keys: dict[str, Any]) -> NetworkConfig:
    data = json.dumps({"cniVersion": "1.1.0", "name": "net", "type": "podnet"} | keys).encode()
    return parse(decode_named(data), "ADD", {}, data)


@pytest.mark.parametrize(
    ("trunk", "found"),
    [
        (None, ()),
        ([], ()),
        ([{}], ()),
        ([{"id": 101}], (101,)),
        ([{"minID": 200, "maxID": 203}], (200, 201, 202, 203)),
        ([{"minID": 5, "maxID": 5}, {"id": 3}], (3, 5)),
        ([{"id": 101, "minID": 1, "maxID": 2}], (1, 2, 101)),
        ([{"id": 7}, {"id": 7}, {"minID": 6, "maxID": 8}], (6, 7, 8)),
        ([{"ID": 4094, "minid": 4093, "MAXID": 4094}], (4093, 4094)),
    ],
)
def test_3_1_11_trunks(trunk: Any, found: tuple[int, ...]) -> None:
    assert settings.parse(config({"vlanTrunk": trunk})).trunk == found


@pytest.mark.parametrize(
    ("trunk", "message"),
    [
        ({"id": 0}, "incorrect trunk id parameter"),
        ({"id": 4095}, "incorrect trunk id parameter"),
        ({"id": -1}, "incorrect trunk id parameter"),
        ({"minID": 0, "maxID": 5}, "incorrect trunk minID parameter"),
        ({"minID": 4095, "maxID": 5}, "incorrect trunk minID parameter"),
        ({"minID": 5, "maxID": 4095}, "incorrect trunk maxID parameter"),
        ({"minID": 5, "maxID": 0}, "incorrect trunk maxID parameter"),
        ({"minID": 6, "maxID": 5}, "minID is greater than maxID in trunk parameter"),
        ({"maxID": 5}, "minID and maxID should be configured simultaneously, minID is missing"),
        ({"minID": 5}, "minID and maxID should be configured simultaneously, maxID is missing"),
    ],
)
def test_3_1_11_trunks_that_cannot_be(trunk: dict[str, int], message: str) -> None:
    with pytest.raises(CNIError) as caught:
        settings.parse(config({"vlanTrunk": [{"id": 9}, trunk]}))
    assert (caught.value.code, caught.value.msg) == (7, message)
    assert "vlanTrunk[1]" in caught.value.details


@pytest.mark.parametrize(("number", "good"), [(-1, False), (0, True), (100, True), (4094, True), (4095, False)])
def test_3_1_11_vlans(number: int, good: bool) -> None:
    if good:
        assert settings.parse(config({"vlan": number})).vlan == number
    else:
        with pytest.raises(CNIError, match=rf"invalid VLAN ID {number} \(must be between 0 and 4094\)"):
            settings.parse(config({"vlan": number}))


def test_the_gateways_link_is_the_bridge_or_its_way_into_the_vlan() -> None:
    assert settings.parse(config({"bridge": "br0"})).gateway_link == "br0"
    assert settings.parse(config({"bridge": "br0", "vlan": 100})).gateway_link == "br0.100"
    with pytest.raises(
        CNIError, match=r"'eleven-char' is too long: its gateway of VLAN 4094 would be 'eleven-char.4094'"
    ):
        settings.parse(config({"bridge": "eleven-char", "vlan": 4094, "isGateway": True}))
    settings.parse(config({"bridge": "eleven-char", "vlan": 4094}))


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, Bandwidth()),
        (RATES, Bandwidth(8, 16, 24, 32)),
        ({"runtimeConfig": {"bandwidth": RATES}}, Bandwidth(8, 16, 24, 32)),
        ({"runtimeConfig": {"bandWidth": {"IngressRate": 8, "IngressBurst": 2**32 - 1}}}, Bandwidth(8, 2**32 - 1)),
        ({"egressRate": 9, "egressBurst": 9, "runtimeConfig": {"bandwidth": RATES}}, Bandwidth(0, 0, 9, 9)),
        ({"ingressRate": 0, "runtimeConfig": {"bandwidth": RATES}}, Bandwidth()),
        ({"ingressRate": None, "runtimeConfig": {"bandwidth": RATES}}, Bandwidth(8, 16, 24, 32)),
        (RATES | {"unshapedSubnets": ["10.1.2.3/8", "FD00::/8"]},
         Bandwidth(8, 16, 24, 32, ("10.1.2.3/8", "fd00::/8"))),
        ({"runtimeConfig": {"bandwidth": RATES | {"shapedSubnets": ["0.0.0.0/0"]}}},
         Bandwidth(8, 16, 24, 32, (), ("0.0.0.0/0",))),
        ({"ingressRate": 8, "ingressBurst": 8 * (2**32 - 1) - 1}, Bandwidth(8, 8 * (2**32 - 1) - 1)),
    ],
)  # fmt: skip
def test_3_5_4_limits(keys: dict[str, Any], found: Bandwidth) -> None:
    assert bandwidth.limits_of(config(keys)) == found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"ingressRate": 8}, "if rate is set, burst must also be set"),
        ({"egressRate": 8, "egressBurst": 0}, "if rate is set, burst must also be set"),
        ({"ingressBurst": 8}, "if burst is set, rate must also be set"),
        ({"egressBurst": 8}, "if burst is set, rate must also be set"),
        ({"ingressRate": 8, "ingressBurst": 8 * (2**32 - 1)}, "burst cannot be more than 4GB"),
        ({"ingressRate": 7, "ingressBurst": 8}, "rate and burst must be 8 bits at least"),
        (RATES | {"shapedSubnets": ["10.0.0.0/8"], "unshapedSubnets": ["10.0.0.0/8"]},
         "unshapedSubnets and shapedSubnets cannot be specified both"),
        (RATES | {"shapedSubnets": ["10.0.0.0"]}, "shapedSubnets: '10.0.0.0' is no IP address with prefix length"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["", "runtimeConfig.bandwidth."])
def test_3_5_5_limits_that_cannot_be(keys: dict[str, Any], message: str, where: str) -> None:
    with pytest.raises(CNIError) as caught:
        bandwidth.limits_of(config({"runtimeConfig": {"bandwidth": keys}} if where else keys))
    assert (caught.value.code, message in caught.value.msg) == (7, True)
    assert where in f"{caught.value.msg} {caught.value.details}" or "both" in message


class FakeMachine:
    """A bridge and a port, as far as VLANs go; ``number`` is refused with, if it is not 0."""

    def __init__(self, there: set[PortVlan], number: int = 0) -> None:
        self.there, self.number, self.sent = there, number, list[tuple[int, int, bytes]]()

    def link(self, _netns: str, name: str) -> Any:
        return type("Link", (), {"number": 9, "name": name, "filters_vlans": not self.number})()

    def vlans(self, _number: int) -> frozenset[PortVlan]:
        return frozenset(self.there)

    def send(self, what: str, messages: list[tuple[int, int, bytes]]) -> None:
        if self.number:
            raise KernelError(f"cannot {what}", self.number)
        self.sent += messages


@pytest.mark.parametrize(
    ("there", "sent"),
    [
        ({PortVlan(1, pvid=True, untagged=True)},
         [vlan.delete_vlans(9, [PortVlan(1)]),
          vlan.add_vlans(9, [PortVlan(5, pvid=True, untagged=True), PortVlan(7)])]),
        ({PortVlan(5, pvid=True, untagged=True)}, [vlan.add_vlans(9, [PortVlan(7)])]),
        ({PortVlan(5, pvid=True, untagged=True), PortVlan(7)}, []),
        ({PortVlan(5), PortVlan(7), PortVlan(8)},
         [vlan.delete_vlans(9, [PortVlan(8)]), vlan.add_vlans(9, [PortVlan(5, pvid=True, untagged=True)])]),
    ],
)  # fmt: skip
def test_a_port_is_put_into_what_it_lacks_and_taken_out_of_the_rest(there: set[PortVlan], sent: list[Any]) -> None:
    machine: Any = FakeMachine(there)
    wanted = settings.Settings(vlan=5, trunk=(7,))
    vlans.set_port(machine, wanted, "veth1", wanted.trunk)
    assert machine.sent == sent


@pytest.mark.parametrize("keys", [{"vlan": 5}, {"trunk": (5, 6)}])
def test_what_a_kernel_without_filtering_lacks_is_said(keys: dict[str, Any]) -> None:
    machine: Any = FakeMachine(set(), 95)
    with pytest.raises(CNIError, match="needs a bridge that filters VLANs, which this kernel cannot make") as caught:
        vlans.filter_on(machine, settings.Settings(**keys))
    assert (caught.value.code, "CONFIG_BRIDGE_VLAN_FILTERING" in caught.value.details) == (2, True)
    with pytest.raises(KernelError, match="cannot let cni0 filter VLANs"):
        vlans.filter_on(FakeMachine(set(), 16), settings.Settings(**keys))  # type: ignore[arg-type]


def test_a_port_that_differs_is_named() -> None:
    wanted = settings.Settings(vlan=5, trunk=(7,))
    machine: Any = FakeMachine({PortVlan(1, pvid=True, untagged=True), PortVlan(7)})
    expected = "port veth1 is in the VLANs 1 pvid untagged, 7; it should be in 5 pvid untagged, 7"
    assert vlans.lacking(machine, wanted, "veth1") == [expected]
    assert vlans.lacking(FakeMachine(set(), 95), wanted, "veth1") == ["bridge cni0 filters no VLANs"]  # type: ignore[arg-type]
