"""diff(): what changes, how, and why; a table of situations."""

from __future__ import annotations

import pytest
from small_labs import GROUP, neighbour, pair, state

from podnet.kernel.diff import Change, diff
from podnet.kernel.objects import (
    Address,
    Bridge,
    KernelObject,
    Loopback,
    Netns,
    NftTable,
    Process,
    Route,
    Sysctl,
    Veth,
    replace,
)

BRIDGE = Bridge("n", "br0", "02:00:00:00:00:10", group=GROUP)
NEAR, FAR = pair(
    Veth("n", "v0", "p", "eth0", "02:00:00:00:00:01", master="br0", hairpin=True, group=GROUP), mac="02:00:00:00:00:02"
)
GATEWAY = Address("n", "br0", "10.0.0.1/24")
POD, POD6 = Address("p", "eth0", "10.0.0.2/24"), Address("p", "eth0", "fd00::2/64")
DEFAULT, DEFAULT6 = Route("p", "0.0.0.0/0", "10.0.0.1", "eth0"), Route("p", "::/0", "fd00::1", "eth0")
NEIGHBOUR = neighbour("p", "eth0", "10.0.0.1", BRIDGE.mac)
FORWARD = Sysctl("n", "net/ipv4/ip_forward", "1")
RP_FILTER = Sysctl("n", "net/ipv4/conf/v0/rp_filter", "1")
TABLE = NftTable("n", "inet", "podnet", "chain post { }")
CONTAINER = Process("p", "p/main", ("sleep", "9"))
LAB = (Netns("n"), Netns("p"), Loopback("n"), Loopback("p"), BRIDGE, NEAR, FAR, GATEWAY, POD, POD6, DEFAULT, DEFAULT6,
       NEIGHBOUR, FORWARD, RP_FILTER, TABLE, CONTAINER)  # fmt: skip
ON_FAR = (POD, POD6, DEFAULT, DEFAULT6, NEIGHBOUR)


def without(*gone: KernelObject) -> tuple[KernelObject, ...]:
    return tuple(each for each in LAB if each not in gone)


def but(**fields: object) -> dict[str, object]:
    return fields


def instead(each: KernelObject, **fields: object) -> tuple[KernelObject, ...]:
    return tuple(replace(one, **fields) if one == each else one for one in LAB)  # type: ignore[arg-type]


def changed(wanted: tuple[KernelObject, ...], found: tuple[KernelObject, ...]) -> dict[str, set[KernelObject]]:
    """The objects by action."""
    by_action: dict[str, set[KernelObject]] = {}
    for change in diff(state(*wanted), state(*found), GROUP):
        by_action.setdefault(change.action, set()).add(change.object)
    return by_action


def only(wanted: tuple[KernelObject, ...], found: tuple[KernelObject, ...]) -> Change:
    (change,) = diff(state(*wanted), state(*found), GROUP)
    return change


def test_nothing_to_do() -> None:
    assert diff(state(*LAB), state(*LAB), GROUP) == []


# (object, what it is found with, what the plan says)
UPDATES = [
    (BRIDGE, but(mac="02:ff:00:00:00:00"), "mac is 02:ff:00:00:00:00, should be 02:00:00:00:00:10"),
    (BRIDGE, but(mtu=1400, up=False), "mtu is 1400, should be 1500, is down, should be up"),
    (BRIDGE, but(altname="x"), "altname is x, should be none"),
    (BRIDGE, but(group=0), f"group is 0, should be {GROUP}"),
    (FAR, but(master="br9"), "is a port of br9, should be of none"),
    (NEAR, but(master=""), "master is none, should be br0"),
    (NEAR, but(hairpin=False), "hairpin is off, should be on"),
    (NEAR, but(addrgen=True), "addrgen is on, should be off"),
    (Loopback("n"), but(up=False), "is down, should be up"),
    (DEFAULT, but(via="10.0.0.9"), "via is 10.0.0.9, should be 10.0.0.1"),
    (DEFAULT, but(protocol=4), "protocol is 4, should be 112"),
    (
        NEIGHBOUR,
        but(entries=(("10.0.0.1", "02:ff:00:00:00:00"), ("10.0.0.7", BRIDGE.mac))),
        f"lacks 10.0.0.1 lladdr {BRIDGE.mac}, has 10.0.0.7 besides",
    ),
    (FORWARD, but(value="0"), "value is 0, should be 1"),
    (TABLE, but(ruleset=""), "its rules differ"),
    (CONTAINER, but(argv=("sleep", "8")), "argv is [sleep 8], should be [sleep 9]"),
]


@pytest.mark.parametrize(("each", "fields", "reason"), UPDATES, ids=[f"{r[0].kind}-{','.join(r[1])}" for r in UPDATES])
def test_update(each: KernelObject, fields: dict[str, object], reason: str) -> None:
    change = only(LAB, instead(each, **fields))
    assert (change.action, change.object, set(change.fields)) == ("update", each, set(fields))
    assert str(change) == f"update {each}: {reason}"


@pytest.mark.parametrize("each", [GATEWAY, POD6, DEFAULT, NEIGHBOUR, TABLE, CONTAINER, RP_FILTER], ids=str)
def test_create(each: KernelObject) -> None:
    change = only(LAB, without(each))
    assert (change.action, change.new, change.old, change.reason) == ("create", each, None, "is missing")


@pytest.mark.parametrize("each", [POD6, DEFAULT, DEFAULT6, NEIGHBOUR, TABLE, CONTAINER], ids=str)
def test_delete(each: KernelObject) -> None:
    change = only(without(each), LAB)
    assert (change.action, change.new, change.old) == ("delete", None, each)
    assert change.reason == "not in the topology"


FOREIGN = (
    Bridge("n", "docker0", "02:42:00:00:00:01"),
    Veth("n", "x0", "?", "?", "02:42:00:00:00:02", group=GROUP + 1),
    Address("n", "br0", "10.50.0.1/24", protocol=0),
    Address("n", "docker0", "172.17.0.1/16", protocol=0),
    Route("n", "10.60.0.0/16", dev="br0", protocol=4),
    NftTable("n", "ip", "filter", ""),
)


def test_what_has_no_mark_is_never_deleted() -> None:
    assert diff(state(*LAB), state(*LAB, *FOREIGN), GROUP) == []


@pytest.mark.parametrize("each", [Address("", "eth0", "10.0.0.9/24"), Route("", "10.9.0.0/16", dev="eth0")], ids=str)
def test_what_has_the_mark_on_a_link_that_has_none_is_deleted(each: KernelObject) -> None:
    """The link stays, so nothing takes it along."""
    eth0 = Veth("", "eth0", "?", "?", "02:42:00:00:00:02")
    assert changed((), (eth0, each)) == {"delete": {each}}
    assert changed((), (Loopback(""), replace(each, dev="lo"))) == {"delete": {replace(each, dev="lo")}}


# (what it shows, wanted, found, the objects by action)
TAKEN_ALONG = [
    ("a deleted namespace takes its content; its processes and pairs with others are named",
     (Netns("n"), Loopback("n"), BRIDGE, GATEWAY, FORWARD, TABLE), LAB,
     {"delete": {Netns("p"), NEAR, CONTAINER}}),
    ("all namespaces: nothing else but the processes", (), LAB, {"delete": {Netns("n"), Netns("p"), CONTAINER}}),
    ("a deleted bridge takes its addresses and frees its ports",
     tuple(each for each in instead(NEAR, master="", hairpin=False) if each not in {BRIDGE, GATEWAY}), LAB,
     {"delete": {BRIDGE}}),
    ("of a deleted pair the port is deleted", without(NEAR, FAR, RP_FILTER, *ON_FAR), LAB, {"delete": {NEAR}}),
    ("of a deleted pair without a bridge one end is deleted",
     without(NEAR, FAR, RP_FILTER, *ON_FAR), instead(NEAR, master="", hairpin=False),
     {"delete": {replace(NEAR, master="", hairpin=False)}}),
    ("of a deleted pair with one mark the marked end is deleted",
     without(NEAR, FAR, RP_FILTER, *ON_FAR), instead(NEAR, group=0), {"delete": {FAR}}),
    ("a pair is made anew as a whole: another peer",
     LAB, tuple(replace(each, peer="net1") if each == NEAR else replace(each, name="net1") if each == FAR else
                replace(each, dev="net1") if each in ON_FAR else each for each in LAB),  # type: ignore[call-arg]
     {"recreate": {NEAR}, "create": {FAR, RP_FILTER, *ON_FAR}, "delete": {replace(FAR, name="net1")}}),
    ("a link of another kind is made anew",
     LAB, tuple(Veth("n", "br0", "?", "?", "02:00:00:00:00:77") if each == BRIDGE else each for each in LAB),
     {"recreate": {BRIDGE}, "create": {GATEWAY}, "update": {NEAR}}),
    ("an end that is missing takes the other along", LAB, without(FAR, *ON_FAR),
     {"recreate": {NEAR}, "create": {FAR, RP_FILTER, *ON_FAR}}),
    ("a pair that is missing", LAB, without(NEAR, FAR, RP_FILTER, *ON_FAR),
     {"create": {NEAR, FAR, RP_FILTER, *ON_FAR}}),
    ("a bridge that is missing", LAB,
     tuple(each for each in instead(NEAR, master="", hairpin=False) if each not in {BRIDGE, GATEWAY}),
     {"create": {BRIDGE, GATEWAY}, "update": {NEAR}}),
    ("a namespace that is missing: its process still runs, in the wrong place", LAB,
     without(Netns("p"), Loopback("p"), NEAR, FAR, RP_FILTER, *ON_FAR),
     {"create": {Netns("p"), Loopback("p"), NEAR, FAR, RP_FILTER, *ON_FAR}, "recreate": {CONTAINER}}),
    ("another address: what IPv4 loses with the last one is made anew",
     tuple(replace(each, address="10.0.0.3/24") if each == POD else each for each in LAB), LAB,
     {"delete": {POD}, "create": {replace(POD, address="10.0.0.3/24")}, "recreate": {DEFAULT, NEIGHBOUR}}),
    ("an address that goes while another network's stays takes nothing along",
     (*without(POD), replace(POD, address="10.9.0.1/24")), (*LAB, replace(POD, address="10.9.0.1/24")),
     {"delete": {POD}}),
    ("the first address of a network takes the later ones along",
     (*without(POD), replace(POD, address="10.0.0.3/24")), (*LAB, replace(POD, address="10.0.0.3/24")),
     {"delete": {POD}, "recreate": {replace(POD, address="10.0.0.3/24"), DEFAULT, NEIGHBOUR}}),
    ("routes lose a source that goes", (*without(POD6), Route("p", "fd01::/64", dev="eth0")),
     (*LAB, Route("p", "fd01::/64", dev="eth0", src="fd00::2")),
     {"delete": {POD6}, "recreate": {Route("p", "fd01::/64", dev="eth0")}}),
    ("an IPv6 address takes nothing along", without(POD6), LAB, {"delete": {POD6}}),
    ("an address with another's mark is made anew", LAB, instead(POD, protocol=0),
     {"recreate": {POD, DEFAULT, NEIGHBOUR}}),
    ("another MAC: the neighbours are written anew", LAB, instead(FAR, mac="02:00:00:00:00:77"),
     {"update": {FAR}, "recreate": {NEIGHBOUR}}),
    ("set down: IPv6 and neighbours are made anew", instead(FAR, up=False), LAB,
     {"update": {replace(FAR, up=False)}, "recreate": {POD6, DEFAULT, DEFAULT6, NEIGHBOUR}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "found", "by_action"), [r[1:] for r in TAKEN_ALONG], ids=[r[0] for r in TAKEN_ALONG]
)
def test_what_goes_along(
    wanted: tuple[KernelObject, ...], found: tuple[KernelObject, ...], by_action: dict[str, set[KernelObject]]
) -> None:
    assert changed(wanted, found) == by_action


def test_something_with_our_key_and_anothers_mark_becomes_ours() -> None:
    assert only(LAB, instead(BRIDGE, group=7)).action == "update"
    assert only(LAB, instead(DEFAULT, protocol=4)).action == "update"


def test_a_bridge_that_is_made_anew_gets_its_ports_back() -> None:
    other = Veth("n", "br0", "?", "?", "02:00:00:00:00:77")
    changes = diff(state(*LAB), state(*(other if each == BRIDGE else each for each in LAB)), GROUP)
    port = next(change for change in changes if change.object == NEAR)
    assert (port.action, set(port.fields)) == ("update", {"master", "hairpin"})
    assert next(str(c) for c in changes if c.object == BRIDGE).endswith("is a veth, should be a bridge")


def test_reasons_of_what_is_made_anew() -> None:
    found = instead(POD, protocol=0)
    reasons = {str(change.object): change.reason for change in diff(state(*LAB), state(*found), GROUP)}
    assert reasons == {
        str(POD): "protocol is 0, should be 112",
        str(DEFAULT): "goes with the addresses of eth0",
        str(NEIGHBOUR): "goes with the addresses of eth0",
    }
    (near,) = [c for c in diff(state(*LAB), state(*without(FAR, *ON_FAR)), GROUP) if c.object == NEAR]
    assert near.reason == "its other end is missing"
