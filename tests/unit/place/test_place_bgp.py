"""bgp: who has sessions with whom, what each is to learn, with which AS numbers; and the text that bird reads."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from placed_topologies import node, subnet, topology

from podnet.fabric import birdconf, fabric_of
from podnet.fabric.bgp import Speaker, speaker
from podnet.kernel.objects import BIRD, BirdConf, Process, Route
from podnet.lab.hearsay import unheard
from podnet.lab.labjson import lab_to_json
from podnet.lab.targets import earlier_of, lab_of
from podnet.model.fault import Fault
from podnet.model.placement import Placement
from podnet.model.topology import Router, Topology
from podnet.topology.place import place
from podnet.topology.sessions import speakers


def mesh(*names: str, family: str = "ipv4", **more: int) -> Topology:
    return topology([node(name) for name in names], family=family, fabric="bgp", **more)


def routed() -> Topology:
    """n1 and n2 on the left, n3 on the right, n4 behind a second router."""
    subnets = [subnet("left", "198.18.1.0/24"), subnet("right", "198.18.2.0/24"), subnet("far", "198.18.3.0/24")]
    nodes = [node("n1", "left"), node("n2", "left"), node("n3", "right"), node("n4", "far")]
    routers = [Router("a", ("left", "right")), Router("b", ("right", "far"))]
    return topology(nodes, subnets=subnets, routers=routers, fabric="bgp")


def parallel(*routers: str) -> Topology:
    """Two subnets joined by several routers."""
    subnets = [subnet("left", "198.18.1.0/24"), subnet("right", "198.18.2.0/24")]
    nodes = [node("n1", "left"), node("n2", "right")]
    return topology(nodes, subnets=subnets, routers=[Router(name, ("left", "right")) for name in routers], fabric="bgp")


def found(placement: Placement) -> dict[str, Speaker]:
    every, problems = speakers(placement)
    assert problems == []
    return {each.name: each for each in every}


def hops(each: Speaker) -> dict[str, str]:
    return {str(cidr): f"{hop} {dev}" for cidr, hop, dev in each.learned}


def peers(each: Speaker) -> list[str]:
    return [session.name for session in each.sessions]


def test_without_a_router_every_node_speaks_with_every_other() -> None:
    every = found(place(mesh("n1", "n2", "n3", family="dual")))
    assert peers(every["n1"]) == ["n2.ipv4", "n2.ipv6", "n3.ipv4", "n3.ipv6"]
    assert hops(every["n1"]) == {
        "10.244.1.0/24": "198.18.0.3 eth0",
        "fd00:10:244:1::/64": "fd00:198:18::3 eth0",
        "10.244.2.0/24": "198.18.0.4 eth0",
        "fd00:10:244:2::/64": "fd00:198:18::4 eth0",
    }
    assert [each.as_number for each in every.values()] == [64512, 64513, 64514]


def test_with_routers_nodes_speak_with_those_of_their_subnet_only() -> None:
    every = found(place(routed()))
    assert {name: peers(each) for name, each in every.items()} == {
        "n1": ["a.ipv4"],
        "n2": ["a.ipv4"],
        "n3": ["a.ipv4", "b.ipv4"],
        "n4": ["b.ipv4"],
        "a": ["n1.ipv4", "n2.ipv4", "n3.ipv4", "b.ipv4"],
        "b": ["n3.ipv4", "a.ipv4", "n4.ipv4"],
    }
    # Directly in one's own subnet, though a router told of it; elsewhere by the next router.
    assert hops(every["n1"]) == {
        "10.244.1.0/24": "198.18.1.3 eth0",
        "10.244.2.0/24": "198.18.1.1 eth0",
        "10.244.3.0/24": "198.18.1.1 eth0",
    }
    assert hops(every["n3"])["10.244.3.0/24"] == "198.18.2.2 eth0"
    assert hops(every["a"])["10.244.3.0/24"] == "198.18.2.2 eth1"
    assert hops(every["b"])["10.244.0.0/24"] == "198.18.2.1 eth0"


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_of_routers_that_are_equally_far_the_first_of_the_file_is_taken(order: tuple[str, str]) -> None:
    every = found(place(parallel(*order)))
    # They take the first addresses in the order of the file.
    assert hops(every["n1"]) == {"10.244.1.0/24": "198.18.1.1 eth0"}
    assert {session.peer: session.rank for session in every["n1"].sessions} == {order[0]: 1, order[1]: 2}
    assert peers(every["a"]).count("b.ipv4") == 1  # one session, though they share two subnets


def test_nodes_that_no_router_joins_are_named() -> None:
    apart = topology(
        [node("n1", "left"), node("n2", "right")],
        subnets=[subnet("left", "198.18.1.0/24"), subnet("right", "198.18.2.0/24")],
        fabric="bgp",
    )
    _, problems = speakers(place(apart))
    assert problems == [
        "lab.yaml: no router joins n2 and n1: n2 would not learn its pod CIDR",
        "lab.yaml: no router joins n1 and n2: n1 would not learn its pod CIDR",
    ]


def numbers(placement: Placement) -> dict[str, int]:
    return {n.node.name: n.as_number for n in placement.nodes} | {r.router.name: r.as_number for r in placement.routers}


def test_as_numbers_are_kept_and_given_again_only_when_they_are_free() -> None:
    assert numbers(place(routed())) == {"a": 64512, "b": 64513, "n1": 64514, "n2": 64515, "n3": 64516, "n4": 64517}
    before = place(mesh("n1", "n2", "n3"))
    after = place(mesh("n0", "n1", "n3", "n4"), earlier_of(before))
    assert numbers(after) == {"n1": 64512, "n3": 64514, "n0": 64513, "n4": 64515}
    assert numbers(place(mesh("n1"), {})) == {"n1": 64512}
    assert numbers(place(topology([node("n1")]))) == {"n1": 0}


@pytest.mark.parametrize(
    ("first", "wanted"),
    [
        (65534, [65534, 4200000000, 4200000001]),  # 65535 is reserved, and above it are others' numbers
        (23455, [23455, 23457, 23458]),  # AS_TRANS
        (200000, [200000, 200001, 200002]),
    ],
)
def test_as_numbers_leave_out_what_is_nobodys(first: int, wanted: list[int]) -> None:
    assert list(numbers(place(mesh("n1", "n2", "n3", as_number=first))).values()) == wanted


def test_what_a_speaker_is_made_of() -> None:
    placement = place(mesh("n1", "n2"))
    objects = speaker(found(placement)["n1"], placement.topology.networking.pod_subnets, 9, "/run/x")
    conf, process, route = objects
    assert isinstance(conf, BirdConf)
    assert process == Process(
        "lab.n1", "n1/bird", ("bird", "-f", "-c", "/run/x/n1.conf", "-s", "/run/x/n1.ctl", "-P", "/run/x/n1.pid")
    )
    assert route == Route("lab.n1", "10.244.1.0/24", "198.18.0.3", "eth0", metric=32, protocol=BIRD)
    lines = conf.text.splitlines()
    assert lines[0].startswith("# bird on n1 in lab.n1:")
    assert "router id 198.18.0.2;" in lines
    assert "protocol static 'own.ipv4' { ipv4; route 10.244.0.0/24 blackhole; }" in lines
    # What is announced is not written to the kernel: there is the pods' bridge.
    assert sum("protocol kernel" in line and "export where source = RTS_BGP" in line for line in lines) == 1
    assert "  hold time 9;" in lines
    assert "  keepalive time 3;" in lines
    [session] = [line for line in lines if line.startswith("protocol bgp")]
    assert "local 198.18.0.2; neighbor 198.18.0.3 as 64513;" in session
    assert "export where source = RTS_STATIC" in session  # a node is no way to others


def test_a_lab_without_ipv4_has_router_ids_all_the_same() -> None:
    every = found(place(mesh("n1", "n2", family="ipv6")))
    assert [each.router_id for each in every.values()] == ["0.0.252.0", "0.0.252.1"]
    assert "router id 0.0.252.0;" in birdconf.text(every["n1"], [ip_network("fd00:10:244::/56")], 9)


def test_a_further_node_is_a_line_more_in_the_others_configuration() -> None:
    before = place(mesh("n1", "n2"))
    after = place(mesh("n1", "n2", "n3"), earlier_of(before))
    was, now = (
        birdconf.text(found(each)["n1"], each.topology.networking.pod_subnets, 9).splitlines()
        for each in (before, after)
    )
    assert set(was) <= set(now)
    assert [line.split()[2] for line in now if line not in was] == ["'n3.ipv4'"]


def test_a_name_as_long_as_may_be_fits_into_a_sockets_path_and_a_session() -> None:
    from podnet.kernel.bird import files_of

    longest = "n" * 63
    for each in (longest, "n" * 40):
        files = files_of(f"/run/podnet/labs/{'l' * 40}/bird", each)
        assert len(files.control) <= 107  # sockaddr_un has 108 bytes, the last one is zero
    every = found(place(mesh("n1", longest)))
    assert len(peers(every["n1"])[0]) <= 63  # SYM_MAX_LEN of BIRD


def test_nothing_of_it_is_the_usual_surface() -> None:
    bgp = fabric_of("bgp")
    assert bgp.NEEDS == ("bird",)
    assert bgp.overhead((4, 6)) == 0


DOWN = {
    "nothing": ([], set()),
    "an impairment": ([Fault("impair", "n1", "eth0", (("rate", 1),))], set()),
    "a node": ([Fault("node", "n2")], {("n1", 1), ("n3", 1), ("n2", 0), ("n2", 2)}),
    "a link": ([Fault("link", "n1", "eth0")], {("n2", 0), ("n3", 0), ("n1", 1), ("n1", 2)}),
    "a pods' bridge": ([Fault("link", "n1", "podnet0")], set()),
    "a partition": (
        [Fault("partition", groups=(("n1",), ("n2", "n3")))],
        {("n1", 1), ("n1", 2), ("n2", 0), ("n3", 0)},
    ),
}


@pytest.mark.parametrize(("faults", "missing"), DOWN.values(), ids=DOWN)
def test_what_may_be_missing_while_something_is_broken(faults: list[Fault], missing: set[tuple[str, int]]) -> None:
    assert _missing(mesh("n1", "n2", "n3"), faults) == {(name, f"10.244.{number}.0/24") for name, number in missing}


def _missing(lab: Topology, faults: list[Fault]) -> set[tuple[str, str]]:
    placement = place(lab)
    every = found(placement)
    routes = [
        each
        for one in every.values()
        for each in speaker(one, lab.networking.pod_subnets, 9, "/x")
        if isinstance(each, Route)
    ]
    gone = unheard(routes, faults, lab_to_json(lab_of(placement)))
    return {(route.netns.removeprefix("lab."), route.dst) for route in gone}


def test_a_partition_of_nodes_leaves_their_sessions_with_routers() -> None:
    assert _missing(routed(), [Fault("partition", groups=(("n1",), ("n2", "n3", "n4")))]) == set()
    assert _missing(routed(), [Fault("node", "n3")]) == {
        *((name, "10.244.2.0/24") for name in ("n1", "n2", "n4", "a", "b")),
        *(("n3", f"10.244.{number}.0/24") for number in (0, 1, 3)),
    }


def test_a_router_without_a_link_may_change_every_way() -> None:
    assert len(_missing(routed(), [Fault("link", "b", "eth1")])) == 4 * 3 + 2 * 4
