"""What each fabric makes of nodes: objects as text, for every family, and what a further node adds to the others."""

from __future__ import annotations

import pytest
from fabric_sites import DUAL, V4, V6, site, terms, ways

from podnet.fabric import fabric_of, outer
from podnet.kernel.objects import KernelObject, Neighbours, Peer, Route, Tunnel

FABRICS = ("host-gw", "vxlan", "wireguard", "ipip", "none")

OVERHEADS = [
    ("host-gw", V4, 0), ("none", V6, 0),
    # RFC 7348: inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20 or IPv6 40
    ("vxlan", V4, 50), ("vxlan", DUAL, 50), ("vxlan", V6, 70),
    # header 16, tag 16, UDP 8
    ("wireguard", V4, 60), ("wireguard", DUAL, 60), ("wireguard", V6, 80),
    ("ipip", V4, 20),
]  # fmt: skip


@pytest.mark.parametrize(("name", "versions", "taken"), OVERHEADS)
def test_what_a_fabric_takes_of_the_mtu(name: str, versions: tuple[int, ...], taken: int) -> None:
    assert fabric_of(name).overhead(versions) == taken


def of(objects: list[KernelObject], kind: type) -> list[KernelObject]:
    return [each for each in objects if type(each) is kind]


def test_vxlan_dual_stack() -> None:
    objects = fabric_of("vxlan").node(terms(DUAL, vni=9, port=4789), site(1), ways(2, 3))
    [tunnel] = of(objects, Tunnel)
    assert tunnel == Tunnel(
        "lab.n1", "podnet-t", "vxlan", (("id", "9"), ("local", "198.18.0.11"), ("port", "4789")),
        "0a:5b:0a:f4:01:01", 1400, group=7, altname="podnet.lab.n1.t",
    )  # fmt: skip
    assert of(objects, Peer) == [
        Peer("lab.n1", "podnet-t", "vxlan", "0a:5b:0a:f4:02:01", "198.18.0.12"),
        Peer("lab.n1", "podnet-t", "vxlan", "0a:5b:0a:f4:03:01", "198.18.0.13"),
    ]
    assert of(objects, Neighbours) == [
        Neighbours(
            "lab.n1", "podnet-t", 4, (("10.244.2.1", "0a:5b:0a:f4:02:01"), ("10.244.3.1", "0a:5b:0a:f4:03:01"))
        ),
        Neighbours(
            "lab.n1", "podnet-t", 6,
            (("fe80::85b:aff:fef4:201", "0a:5b:0a:f4:02:01"), ("fe80::85b:aff:fef4:301", "0a:5b:0a:f4:03:01")),
        ),
    ]  # fmt: skip
    assert of(objects, Route)[:2] == [
        Route("lab.n1", "10.244.2.0/24", "10.244.2.1", "podnet-t", src="10.244.1.1", onlink=True),
        Route("lab.n1", "fd00:2::/64", "fe80::85b:aff:fef4:201", "podnet-t", src="fd00:1::1"),
    ]


def test_vxlan_crosses_an_ipv6_underlay() -> None:
    objects = fabric_of("vxlan").node(terms(V6), site(1, V6), ways(2, versions=V6))
    [tunnel] = of(objects, Tunnel)
    assert isinstance(tunnel, Tunnel)
    assert dict(tunnel.options) == {"id": "1", "local": "fd99::11", "port": "8472"}
    assert of(objects, Peer) == [Peer("lab.n1", "podnet-t", "vxlan", "0a:5b:0a:f4:02:01", "fd99::12")]


def test_wireguard_dual_stack() -> None:
    objects = fabric_of("wireguard").node(terms(DUAL), site(1), ways(2))
    assert objects == [
        Tunnel(
            "lab.n1", "podnet-t", "wireguard", (("port", "51820"), ("public", "key1")), mtu=1400, group=7,
            altname="podnet.lab.n1.t",
        ),
        Peer(
            "lab.n1", "podnet-t", "wireguard", "key2", "198.18.0.12:51820",
            ("10.244.2.0/24", "198.18.0.12/32", "fd00:2::/64", "fd99::12/128"),
        ),
        Route("lab.n1", "10.244.2.0/24", dev="podnet-t", src="10.244.1.1"),
        Route("lab.n1", "fd00:2::/64", dev="podnet-t", src="fd00:1::1"),
    ]  # fmt: skip


def test_wireguard_over_ipv6_writes_endpoints_in_brackets() -> None:
    objects = fabric_of("wireguard").node(terms(V6, port=7), site(1, V6), ways(2, versions=V6))
    assert [each.endpoint for each in objects if isinstance(each, Peer)] == ["[fd99::12]:7"]


def test_ipip() -> None:
    assert fabric_of("ipip").node(terms(V4), site(1, V4), ways(2, versions=V4)) == [
        Tunnel(
            "lab.n1", "podnet-t", "ipip", (("local", "198.18.0.11"),), mtu=1400, group=7, altname="podnet.lab.n1.t"
        ),
        Route("lab.n1", "10.244.2.0/24", "198.18.0.12", "podnet-t", src="10.244.1.1", onlink=True),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["vxlan", "ipip"])
def test_direct_routing_where_nodes_share_a_subnet(name: str) -> None:
    fabric, them = fabric_of(name), ways(2, 3, versions=V4, apart=(3,))
    routes = of(fabric.node(terms(V4, direct_routing=True), site(1, V4), them), Route)
    assert routes[0] == Route("lab.n1", "10.244.2.0/24", "198.18.0.12", "eth0")
    assert isinstance(routes[1], Route)
    assert (routes[1].dst, routes[1].dev) == ("10.244.3.0/24", "podnet-t")


@pytest.mark.parametrize("name", ["vxlan", "ipip"])
def test_no_tunnel_where_all_nodes_are_routed_to_directly(name: str) -> None:
    objects = fabric_of(name).node(terms(V4, direct_routing=True), site(1, V4), ways(2, 3, versions=V4))
    assert {type(each) for each in objects} == {Route}


CARRIED = [
    (name, versions) for name in FABRICS for versions in (V4, V6, DUAL) if set(versions) <= set(fabric_of(name).CARRIES)
]


@pytest.mark.parametrize(("name", "versions"), CARRIED)
def test_a_further_node_adds_its_entries_to_the_others_and_changes_no_other(
    name: str, versions: tuple[int, ...]
) -> None:
    fabric = fabric_of(name)
    before = {each.key: each for each in fabric.node(terms(versions), site(1), ways(2, versions=versions))}
    after = {each.key: each for each in fabric.node(terms(versions), site(1), ways(2, 3, versions=versions))}
    new = {key: each for key, each in after.items() if before.get(key) != each}
    assert before.keys() <= after.keys()
    for each in new.values():
        if isinstance(each, Neighbours):  # one object a link: what it had is still in it
            was = before[each.key]
            assert isinstance(was, Neighbours)
            assert set(was.entries) < set(each.entries)
            assert len(each.entries) == len(was.entries) + 1
        else:
            assert isinstance(each, Route | Peer)
            assert each.key not in before


@pytest.mark.parametrize("name", FABRICS)
def test_a_lonely_node_needs_nothing(name: str) -> None:
    assert fabric_of(name).node(terms(V4), site(1, V4), []) == []


@pytest.mark.parametrize("name", ["vxlan", "wireguard", "ipip", "none"])
def test_routers_know_nodes_only(name: str) -> None:
    assert fabric_of(name).router("lab.r", "eth0", site(2), site(2).addresses) == []


def test_a_tunnel_crosses_the_underlay_in_ipv4_where_it_can() -> None:
    assert [outer(versions) for versions in (V4, V6, DUAL)] == [4, 6, 4]
