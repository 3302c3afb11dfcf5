"""VLANs of a bridge's ports: which are wanted, and the messages, checked against pyroute2's decoder."""

from __future__ import annotations

from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from podnet.kernel import vlan
from podnet.kernel.vlan import PortVlan

ACCESS = {"pvid": True, "untagged": True}


def infos(message: vlan.Message) -> list[tuple[int, int]]:
    """(vid, flags) of each piece of a message; the first 16 bytes of its payload are the port's ifinfomsg."""
    data = message[2][16:]
    assert int.from_bytes(data[2:4], "little") & 0x3FFF == 26, "IFLA_AF_SPEC"
    pieces = [data[at : at + 8] for at in range(4, len(data), 8)]
    assert all(each[:4] == b"\x08\0\x02\0" for each in pieces), "IFLA_BRIDGE_VLAN_INFO"
    return [(int.from_bytes(each[6:8], "little"), int.from_bytes(each[4:6], "little")) for each in pieces]


@pytest.mark.parametrize(
    ("number", "trunk", "keep", "expected"),
    [
        (100, (), False, {PortVlan(100, **ACCESS)}),
        (100, (), True, {PortVlan(100, **ACCESS), PortVlan(1, untagged=True)}),
        (1, (), False, {PortVlan(1, **ACCESS)}),
        (1, (), True, {PortVlan(1, **ACCESS)}),
        (0, (5, 6), False, {PortVlan(1, **ACCESS), PortVlan(5), PortVlan(6)}),
        (0, (1, 5), False, {PortVlan(1, **ACCESS), PortVlan(5)}),
        (5, (5, 6), False, {PortVlan(5, **ACCESS), PortVlan(6)}),
        (5, (1, 6), True, {PortVlan(5, **ACCESS), PortVlan(1), PortVlan(6)}),
    ],
)
def test_3_1_10_the_vlans_of_a_port(number: int, trunk: tuple[int, ...], keep: bool, expected: set[PortVlan]) -> None:
    assert vlan.wanted(number, trunk, keep_default=keep) == expected


@pytest.mark.parametrize(
    ("vlans", "pieces"),
    [
        ([PortVlan(100, **ACCESS)], [(100, 6)]),
        ([PortVlan(1, untagged=True)], [(1, 4)]),
        ([PortVlan(n) for n in range(200, 211)], [(200, 8), (210, 16)]),
        ([PortVlan(7), PortVlan(5), PortVlan(6)], [(5, 8), (7, 16)]),
        ([PortVlan(5), PortVlan(6, **ACCESS), PortVlan(7)], [(5, 0), (6, 6), (7, 0)]),
        ([PortVlan(5), PortVlan(7)], [(5, 0), (7, 0)]),
    ],
)
def test_ports_are_put_into_vlans_in_runs(vlans: list[PortVlan], pieces: list[tuple[int, int]]) -> None:
    message = vlan.add_vlans(9, vlans)
    assert (message[0], message[2][0], int.from_bytes(message[2][4:8], "little")) == (19, 7, 9)  # SETLINK, AF_BRIDGE
    assert infos(message) == pieces


def test_what_is_taken_out_needs_its_number_only() -> None:
    message = vlan.delete_vlans(9, [PortVlan(1, **ACCESS)])
    assert (message[0], infos(message)) == (17, [(1, 0)])


@pytest.mark.parametrize("on", [False, True])
def test_filtering_is_a_flag_of_the_bridge(on: bool) -> None:
    kind, flags, payload = vlan.set_filtering("br0", on=on)
    assert (kind, flags) == (16, 0)
    found: Any = ifinfmsg((len(payload) + 16).to_bytes(4, "little") + kind.to_bytes(2, "little") + bytes(10) + payload)
    found.decode()
    data = dict(dict(found.get_attr("IFLA_LINKINFO")["attrs"])["IFLA_INFO_DATA"]["attrs"])
    assert (found.get_attr("IFLA_IFNAME"), data) == ("br0", {"IFLA_BR_VLAN_FILTERING": int(on)})


@pytest.mark.parametrize(
    "vlans",
    [
        frozenset({PortVlan(1, **ACCESS)}),
        frozenset({PortVlan(n) for n in range(2, 4095)} | {PortVlan(1, **ACCESS)}),
        frozenset({PortVlan(5, untagged=True), PortVlan(6, untagged=True), PortVlan(9)}),
    ],
)
def test_what_is_written_is_read_back(vlans: frozenset[PortVlan]) -> None:
    payload = vlan.add_vlans(9, vlans)[2]

    class Socket:
        def dump(self, kind: int, request: bytes) -> Any:
            assert (kind, request[0]) == (18, 7)
            yield 16, payload, 0, len(payload)

    assert vlan.vlans(Socket()) == {9: vlans}  # type: ignore[arg-type]
