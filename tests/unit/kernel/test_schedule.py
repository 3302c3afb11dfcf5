"""schedule(): from changes to operations in the order that the kernel accepts and that costs least."""

from __future__ import annotations

import pytest
from small_labs import GROUP, fixed_lab, pair, state

from podnet.kernel.diff import Change, diff
from podnet.kernel.objects import (
    BIRD,
    Address,
    BirdConf,
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
from podnet.kernel.schedule import Op, schedule

BRIDGE = Bridge("n", "br0", "02:00:00:00:00:10", group=GROUP)
NEAR, FAR = pair(Veth("n", "v0", "p", "eth0", "02:00:00:00:00:01", master="br0", group=GROUP), mac="02:00:00:00:00:02")


def created(*objects: KernelObject) -> list[Op]:
    return schedule([Change("create", each, None, "is missing") for each in objects])


def up() -> list[Op]:
    return schedule(diff(fixed_lab(), {}, GROUP))


def stage(op: Op) -> int:
    """The stages of ``up``, in the order that they must have."""
    match op.verb, op.object:
        case "delete", _:
            return 0
        case _, Netns():
            return 1
        case _, Sysctl() if "/conf/" not in op.object.name:
            return 2
        case "add", Bridge():
            return 3
        case _, NftTable():
            return 5
        case _, Process():
            return 6
    return 4  # pairs, and inside namespaces


def test_stages_follow_each_other() -> None:
    stages = [stage(op) for op in up()]
    assert stages == sorted(stages)
    assert set(stages) == {1, 2, 3, 4, 5, 6}


def test_a_namespace_is_completed_as_soon_as_its_links_are_there_and_a_bridge_after_its_ports() -> None:
    ops = up()
    made = [number for number, op in enumerate(ops) if op.verb == "add" and isinstance(op.object, Veth)]
    bridged = {op.object.netns for op in ops if op.verb == "add" and isinstance(op.object, Bridge)}
    early = 0
    for netns in {op.object.netns for op in ops}:
        touching = [at for at in made if netns in {ops[at].object.netns, ops[at].peer and ops[at].peer.netns}]
        inside = [at for at, op in enumerate(ops) if op.object.netns == netns and stage(op) == 4 and at not in made]
        if not touching or not inside:
            continue
        assert inside[0] > touching[-1]
        if netns in bridged:
            assert inside[0] > made[-1]
        else:
            # Nothing is in between but the rest of that send, and what others do that are complete as well.
            between = range(touching[-1], inside[0])
            assert {ops[at].object.netns for at in between if at in made} == {ops[touching[-1]].object.netns}
            early += inside[0] < made[-1]
    assert early


def test_deletions_come_before_additions() -> None:
    wanted = fixed_lab()
    found = {key: each for key, each in fixed_lab().items() if not isinstance(each, Process)}
    moved = replace(wanted["address", "n1", "podbr", "10.1.0.1/24"], address="10.5.0.1/24")
    del wanted["address", "n1", "podbr", "10.1.0.1/24"]
    ops = schedule(diff(wanted | state(moved), found, GROUP))
    verbs = [op.verb == "delete" for op in ops]
    assert True in verbs
    assert verbs == sorted(verbs, reverse=True)


def test_inside_a_namespace_all_is_together_and_in_order() -> None:
    inside = [op for op in up() if stage(op) == 4 and not (op.verb == "add" and isinstance(op.object, Veth))]
    visits = [op.object.netns for i, op in enumerate(inside) if i == 0 or inside[i - 1].object.netns != op.object.netns]
    assert len(visits) == len(set(visits)), "a namespace is visited once"
    order = ["sysctl", "loopback", "veth", "bridge", "address", "neighbours", "route"]
    for netns in visits:
        kinds = [order.index(op.object.kind) for op in inside if op.object.netns == netns]
        assert kinds == sorted(kinds)
    # A pod's end is up before the node's bridge is: the namespaces with a bridge are last.
    with_bridge = [netns in {"n1", "n2"} for netns in visits]
    assert with_bridge == sorted(with_bridge)


def test_a_bridge_comes_up_after_all_its_ports() -> None:
    """A bridge that is up floods every new port's multicast to all others."""
    ops = up()
    for position, op in enumerate(ops):
        if op.verb == "set" and isinstance(op.object, Bridge) and "up" in op.fields:
            ports = [
                i
                for i, other in enumerate(ops)
                for end in (other.object, other.peer)
                if isinstance(end, Veth) and (end.netns, end.master) == (op.object.netns, op.object.name)
            ]
            assert ports
            assert max(ports) < position


def test_links_are_made_down_and_set_up_later() -> None:
    ops = created(BRIDGE, NEAR, FAR)
    assert [(op.verb, op.object.name, op.fields) for op in ops if isinstance(op.object, Bridge | Veth)] == [
        ("add", "br0", ()), ("add", "v0", ()), ("set", "eth0", ("up",)), ("set", "v0", ("up",)),
        ("set", "br0", ("up",)),
    ]  # fmt: skip
    assert all(not op.peer.up for op in ops if op.peer)


@pytest.mark.parametrize("order", [(NEAR, FAR), (FAR, NEAR)], ids=["port first", "port last"])
def test_a_pair_is_made_once_from_the_end_that_is_a_port(order: tuple[Veth, Veth]) -> None:
    (op,) = [op for op in created(*order) if op.verb == "add"]
    assert (op.object, op.peer) == (replace(NEAR, up=False), replace(FAR, up=False))


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="its other end eth0 in p is not being made"):
        created(NEAR)


def test_one_end_of_a_pair_is_deleted() -> None:
    changes = [Change("recreate", each, each, "") for each in (NEAR, FAR)]
    assert [op.verb for op in schedule(changes) if isinstance(op.object, Veth)] == ["delete", "add", "set", "set"]


# (what it shows, what is deleted in the order it was found, the order it is deleted in)
DELETIONS: list[tuple[str, list[KernelObject], list[str]]] = [
    ("by kind, processes first and namespaces last",
     [Netns("x"), BRIDGE, NEAR, Address("n", "br0", "10.0.0.1/24"), Route("n", "::/0", dev="br0"),
      NftTable("n", "inet", "podnet", ""), Process("x", "x/main", ("true",))],
     ["process", "nft", "route", "address", "veth", "bridge", "netns"]),
    ("later addresses of a network first: the first one would take them along",
     [Address("n", "br0", "10.0.0.1/24"), Address("n", "br0", "10.0.0.2/24")], ["10.0.0.2/24", "10.0.0.1/24"]),
]  # fmt: skip


@pytest.mark.parametrize(("found", "order"), [row[1:] for row in DELETIONS], ids=[row[0] for row in DELETIONS])
def test_deletions(found: list[KernelObject], order: list[str]) -> None:
    ops = schedule([Change("delete", None, each, "") for each in found])
    assert [getattr(op.object, "address", op.object.kind) if len(found) == 2 else op.object.kind for op in ops] == order


# (what it shows, what is created in any order, what comes before what)
ORDERED: list[tuple[str, KernelObject, KernelObject]] = [
    ("a route that leads to a gateway, before the route over it",
     Route("p", "169.254.1.1/32", dev="eth0"), Route("p", "0.0.0.0/0", "169.254.1.1", "eth0")),
    ("a device's sysctls, before its addresses (disable_ipv6)",
     Sysctl("p", "net/ipv6/conf/eth0/disable_ipv6", "0"), Address("p", "eth0", "fd00::1/64")),
    ("addresses before routes", Address("p", "eth0", "10.0.0.1/24"), Route("p", "10.1.0.0/16", dev="eth0")),
    ("a namespace's sysctls before its links", Sysctl("p", "net/ipv6/conf/default/disable_ipv6", "0"), BRIDGE),
    ("tables before processes", NftTable("p", "inet", "podnet", ""), Process("p", "p/main", ("true",))),
    ("loopback before processes", Loopback("p"), Process("p", "p/main", ("true",))),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), [row[1:] for row in ORDERED], ids=[row[0] for row in ORDERED])
def test_what_comes_first(first: KernelObject, second: KernelObject) -> None:
    for order in ((first, second), (second, first)):
        objects = [op.object.key for op in created(*order)]
        assert objects.index(first.key) < objects.index(second.key)


def test_a_loopback_that_stays_down_needs_no_operation() -> None:
    assert [str(op) for op in created(Netns("p"), Loopback("p", up=False))] == ["add namespace p"]


def test_a_process_whose_command_changed_is_stopped_then_started() -> None:
    old, new = Process("p", "p/main", ("sleep", "1")), Process("p", "p/main", ("sleep", "2"))
    assert schedule([Change("update", new, old, "", ("argv",))]) == [Op("delete", old), Op("add", new)]


def test_updates_set_the_fields_that_differ() -> None:
    assert schedule([Change("update", BRIDGE, replace(BRIDGE, mtu=1400), "", ("mtu",))]) == [
        Op("set", BRIDGE, ("mtu",))
    ]


CONF, DAEMON = BirdConf("n", "n", "router id 1.1.1.1;\n"), Process("n", "n/bird", ("bird",))
LEARNED = Route("n", "10.1.0.0/24", "10.0.0.9", "br0", metric=32, protocol=BIRD)


def test_a_daemon_finds_its_configuration_and_what_it_learns_is_awaited_at_the_end() -> None:
    assert created(LEARNED, DAEMON, CONF) == [Op("add", CONF), Op("add", DAEMON), Op("await", LEARNED)]


def test_what_a_daemon_wrote_is_never_written_or_deleted() -> None:
    elsewhere = replace(LEARNED, via="10.0.0.8")
    for wanted, found in (((LEARNED,), (elsewhere,)), ((), (LEARNED,)), ((DAEMON, LEARNED), (LEARNED,))):
        ops = schedule(diff(state(*wanted), state(*found), GROUP))
        assert [op.verb for op in ops if isinstance(op.object, Route)] == (["await"] if wanted else [])


def test_a_daemon_that_runs_reads_its_configuration_again() -> None:
    new = replace(CONF, text="router id 2.2.2.2;\n")
    [change] = diff(state(Netns("n"), new, DAEMON, LEARNED), state(Netns("n"), CONF, DAEMON, LEARNED), GROUP)
    assert change.reason == "lacks 'router id 2.2.2.2;', has 'router id 1.1.1.1;' besides"
    assert schedule([change]) == [Op("set", new, ("text",))]
