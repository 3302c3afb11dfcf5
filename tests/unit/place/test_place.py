"""Which addresses ``place`` chooses: fixed ones as they are, earlier ones again, no one twice."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from placed_topologies import chosen, node, pod, subnet, topology

from podnet.errors import TopologyError
from podnet.model.topology import Client, Router, Topology
from podnet.topology.place import place

FAMILIES = st.sampled_from(["ipv4", "ipv6", "dual"])


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True))
    pods = draw(
        st.lists(st.tuples(st.sampled_from("uvwxyz"), st.sampled_from(names)), max_size=6, unique_by=lambda p: p[0])
    )
    clients = draw(st.lists(st.sampled_from("mno"), max_size=2, unique=True))
    return topology(
        [node(name) for name in names],
        [pod(name, on) for name, on in pods],
        clients=[Client(name, "underlay") for name in clients],
        family="dual",
    )


@given(topologies())
def test_no_address_is_given_to_two(drawn: Topology) -> None:
    placement = place(drawn)
    every = [a for name, each in chosen(placement).items() if not name.startswith("cidr/") for a in each]
    every += [str(gateway) for n in placement.nodes for gateway in n.gateways]
    assert len(set(every)) == len(every)
    for placed in placement.pods:
        cidrs = placement.node(placed.pod.node).pod_cidrs
        assert [a.network for a in placed.addresses] == list(cidrs)
        assert [a.version for a in placed.addresses] == [4, 6]
    cidrs = [c for n in placement.nodes for c in n.pod_cidrs]
    assert not any(a.version == b.version and a.overlaps(b) for i, a in enumerate(cidrs) for b in cidrs[:i])  # type: ignore[arg-type]
    assert all(any(c.version == s.version and c.subnet_of(s) for s in drawn.networking.pod_subnets) for c in cidrs)  # type: ignore[arg-type]


@given(topologies(), topologies())
def test_adding_and_removing_moves_nobody_else(first: Topology, second: Topology) -> None:
    """Whatever the second file adds or removes, what both have keeps its addresses."""
    before = chosen(place(first))
    after = chosen(place(second, before))
    nodes = {p.name: p.node for p in first.pods}
    for name in before.keys() & after.keys():
        kind, _, target = name.partition("/")
        moved = kind == "pod" and any(p.name == target and p.node != nodes[target] for p in second.pods)
        if not moved:
            assert after[name] == before[name], name


@given(topologies())
def test_placing_again_changes_nothing(drawn: Topology) -> None:
    first = place(drawn)
    assert place(drawn, chosen(first)) == first
    assert place(drawn) == first  # and nothing depends on chance


@given(topologies(), st.randoms(use_true_random=False))
def test_the_order_in_the_file_does_not_matter_once_chosen(drawn: Topology, chance: object) -> None:
    before = chosen(place(drawn))
    nodes, pods = list(drawn.nodes), list(drawn.pods)
    chance.shuffle(nodes)  # type: ignore[attr-defined]
    chance.shuffle(pods)  # type: ignore[attr-defined]
    assert chosen(place(topology(nodes, pods, clients=drawn.clients, family="dual"), before)) == before


def test_the_first_choice_counts_up_in_file_order() -> None:
    placed = chosen(place(topology([node("n1"), node("n2")], [pod("b", "n1"), pod("a", "n1"), pod("c", "n2")], "dual")))
    assert placed == {
        "host/n1": ["198.18.0.2/24", "fd00:198:18::2/64"],
        "host/n2": ["198.18.0.3/24", "fd00:198:18::3/64"],
        "cidr/n1": ["10.244.0.0/24", "fd00:10:244::/64"],
        "cidr/n2": ["10.244.1.0/24", "fd00:10:244:1::/64"],
        "pod/b": ["10.244.0.2/24", "fd00:10:244::2/64"],
        "pod/a": ["10.244.0.3/24", "fd00:10:244::3/64"],
        "pod/c": ["10.244.1.2/24", "fd00:10:244:1::2/64"],
    }


def test_what_the_file_fixes_is_honoured_and_passed_over() -> None:
    lab = topology(
        [node("n1", cidrs=["10.244.9.0/24"], at=["198.18.0.2"]), node("n2"), node("n3", cidrs=["10.244.0.0/24"])],
        [pod("a", "n1"), pod("b", "n1", "10.244.9.2"), pod("c", "n2", "10.244.1.77")],
        clients=[Client("m", "underlay", (ip_address("198.18.0.3"),))],
    )
    assert chosen(place(lab)) == {
        "host/n1": ["198.18.0.2/24"],
        "host/n2": ["198.18.0.4/24"],
        "host/n3": ["198.18.0.5/24"],
        "host/m": ["198.18.0.3/24"],
        "cidr/n1": ["10.244.9.0/24"],
        "cidr/n2": ["10.244.1.0/24"],
        "cidr/n3": ["10.244.0.0/24"],
        "pod/a": ["10.244.9.3/24"],
        "pod/b": ["10.244.9.2/24"],
        "pod/c": ["10.244.1.77/24"],
    }


def test_the_files_word_takes_an_address_from_who_had_it() -> None:
    before = chosen(place(topology([node("n1")], [pod("a", "n1"), pod("b", "n1")])))
    after = chosen(place(topology([node("n1")], [pod("a", "n1"), pod("b", "n1", "10.244.0.2")]), before))
    assert after["pod/b"] == ["10.244.0.2/24"]
    assert after["pod/a"] == ["10.244.0.3/24"]


def test_one_family_more_keeps_the_other() -> None:
    before = chosen(place(topology([node("n1")], [pod("z", "n1"), pod("a", "n1")])))
    before["pod/a"] = ["10.244.0.9/24"]
    after = chosen(place(topology([node("n1")], [pod("a", "n1"), pod("b", "n1")], "dual"), before))
    assert after["pod/a"] == ["10.244.0.9/24", "fd00:10:244::2/64"]
    assert after["host/n1"] == ["198.18.0.2/24", "fd00:198:18::2/64"]


def test_what_no_longer_fits_is_chosen_anew() -> None:
    before = chosen(place(topology([node("n1")], [pod("a", "n1")])))
    lab = topology(
        [node("n1")], [pod("a", "n1")], pod_subnets=["10.9.0.0/16"], subnets=[subnet("underlay", "192.0.2.0/24")]
    )
    after = chosen(place(lab, before))
    assert after == {
        "host/n1": ["192.0.2.2/24"],
        "cidr/n1": ["10.9.0.0/24"],
        "pod/a": ["10.9.0.2/24"],
    }


def test_routers_take_the_first_address_of_each_subnet() -> None:
    lab = topology(
        [node("n1", "left")],
        subnets=[subnet("left", "198.18.1.0/24"), subnet("right", "198.18.2.0/24")],
        routers=[
            Router("r1", ("left", "right")),
            Router("r2", ("right", "left")),
            Router("r3", ("left",), (ip_address("198.18.1.254"),)),
        ],
    )
    placed = place(lab)
    assert [[[str(a) for a in each] for each in r.addresses] for r in placed.routers] == [
        [["198.18.1.1/24"], ["198.18.2.1/24"]],
        [["198.18.2.2/24"], ["198.18.1.2/24"]],
        [["198.18.1.254/24"]],
    ]
    assert chosen(placed)["host/n1"] == ["198.18.1.3/24"]


EXHAUSTED = [
    ("pods", topology([node("n1")], [pod(f"p{i}", "n1") for i in range(3)], node_prefix_v4=30),
     r"lab\.yaml: no address for pod p1 on n1: no address is left in 10\.244\.0\.0/30: all 1 are taken", 2),
    ("nodes' networks", topology([node(f"n{i}") for i in range(5)], pod_subnets=["10.0.0.0/23"]),
     r"podSubnet 10\.0\.0\.0/23 has 2 networks of /24, not enough for 5 nodes: widen podSubnet", 1),
    ("the underlay", topology([node(f"n{i}") for i in range(4)], subnets=[subnet("underlay", "192.0.2.0/30")]),
     r"no address for n1 in subnet underlay", 3),
    ("an address elsewhere", topology([node("n1")], [pod("a", "n1", "10.244.7.7")]),
     r"pod a: address 10\.244\.7\.7 is not in the pod CIDR 10\.244\.0\.0/24 of n1", 1),
    ("a gateway's address", topology([node("n1")], [pod("a", "n1", "10.244.0.1")]),
     r"pod a: address 10\.244\.0\.1", 1),
]  # fmt: skip


@pytest.mark.parametrize(("what", "lab", "message", "problems"), EXHAUSTED, ids=[row[0] for row in EXHAUSTED])
def test_what_does_not_fit_is_told_with_names_and_the_way_out(
    what: str, lab: Topology, message: str, problems: int
) -> None:
    with pytest.raises(TopologyError, match=message) as caught:
        place(lab)
    assert len(caught.value.problems) == problems


def test_every_node_of_one_too_many_shares_the_whole_when_the_subnet_is_one_nodes() -> None:
    """One node may have the pod subnet as a whole."""
    placed = place(topology([node("n1")], [pod("a", "n1")], pod_subnets=["10.0.0.0/24"]))
    assert placed.nodes[0].pod_cidrs == (ip_network("10.0.0.0/24"),)
    assert placed.pods[0].addresses == (ip_interface("10.0.0.2/24"),)


def test_two_nodes_do_not_share_one_network() -> None:
    with pytest.raises(TopologyError, match="not enough for 2 nodes"):
        place(topology([node("n1"), node("n2")], pod_subnets=["10.0.0.0/24"]))
