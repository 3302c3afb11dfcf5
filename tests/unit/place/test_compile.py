"""What each topology stands for in the kernel: tables of objects, by namespace."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from placed_topologies import node, pod, subnet, topology

from podnet.errors import TopologyError
from podnet.kernel.objects import Address, Bridge, Loopback, Netns, NftTable, Process, Route, State, Sysctl, Veth
from podnet.model.topology import Client, Container, ExtraRoute, Router, Topology
from podnet.topology.compile import compile_topology
from podnet.topology.marks import group_of, label_of, netns_of, short, table_of
from podnet.topology.place import place


def compiled(lab: Topology) -> State:
    return compile_topology(place(lab))


def table(state: State, netns: str, *kinds: type) -> list[str]:
    """Objects of some kinds in one namespace, as text."""
    end = f" in {netns or 'the machine'}"
    return sorted(str(each).removesuffix(end) for each in state.values() if each.netns == netns and type(each) in kinds)


def links(state: State, netns: str) -> list[str]:
    """``NAME MTU -> PEER's NAMESPACE, master, hairpin``, made-up names as their first letters."""
    found = []
    for each in state.values():
        if isinstance(each, Veth) and each.netns == netns:
            name = each.name if each.name.startswith("eth") else each.name[:-8] + "*"
            port = f" on {each.master}{' hairpin' if each.hairpin else ''}" if each.master else ""
            found.append(f"{name} {each.mtu} -> {each.peer_netns}{port}")
        elif isinstance(each, Bridge) and each.netns == netns:
            found.append(f"{each.name} {each.mtu}")
    return sorted(found)


CHAIN = topology(
    [node("n1", "left"), node("n2", "middle"), node("n3", "right")],
    [pod(f"p{i}", f"n{i}") for i in (1, 2, 3)],
    subnets=[
        subnet("left", "198.18.1.0/24", mtu=1500),
        subnet("middle", "198.18.2.0/24", mtu=1450),
        subnet("right", "198.18.3.0/24", mtu=9000),
    ],
    routers=[Router("r1", ("left", "middle")), Router("r2", ("middle", "right"))],
    clients=[Client("m", "right")],
)
TWO = topology([node("n1"), node("n2")], [pod("a", "n1"), pod("b", "n1"), pod("c", "n2")])


class TestTwoNodes:
    STATE = compiled(TWO)

    def test_namespaces_each_with_lo_up(self) -> None:
        names = {"lab.underlay", "lab.n1", "lab.n2", "lab.a", "lab.b", "lab.c"}
        assert {each.name for each in self.STATE.values() if isinstance(each, Netns)} == names
        assert {each.netns for each in self.STATE.values() if isinstance(each, Loopback) and each.up} == names

    def test_links(self) -> None:
        assert links(self.STATE, "lab.n1") == [
            "eth0 1500 -> lab.underlay",
            "podnet0 1500",
            "veth* 1500 -> lab.a on podnet0 hairpin",
            "veth* 1500 -> lab.b on podnet0 hairpin",
        ]
        assert links(self.STATE, "lab.a") == ["eth0 1500 -> lab.n1"]
        assert links(self.STATE, "lab.underlay") == [
            "port* 1500 -> lab.n1 on underlay",
            "port* 1500 -> lab.n2 on underlay",
            "underlay 1500",
        ]

    def test_every_veth_has_its_other_end(self) -> None:
        for each in self.STATE.values():
            if isinstance(each, Veth):
                other = self.STATE[each.peer_key]
                assert isinstance(other, Veth)
                assert other.peer_key == each.key
                assert other.mtu == each.mtu

    def test_every_link_is_marked_and_has_a_mac_of_its_own(self) -> None:
        found = [each for each in self.STATE.values() if isinstance(each, Bridge | Veth)]
        assert {each.group for each in found} == {group_of("lab")}
        assert len({each.mac for each in found}) == len(found)
        for each in found:
            first = int(each.mac[:2], 16)
            assert first & 2, "locally administered"
            assert not first & 1, "not multicast"
            assert len(each.name.encode()) <= 15

    def test_addresses_and_routes(self) -> None:
        assert table(self.STATE, "lab.n1", Address, Route, Sysctl) == [
            "address 10.244.0.1/24 on podnet0",
            "address 198.18.0.2/24 on eth0",
            "route 10.244.1.0/24 via 198.18.0.3 dev eth0",
            "sysctl net.ipv4.ip_forward=1",
        ]
        assert table(self.STATE, "lab.b", Address, Route, Sysctl) == [
            "address 10.244.0.3/24 on eth0",
            "route 0.0.0.0/0 via 10.244.0.1 dev eth0",
        ]
        assert table(self.STATE, "lab.underlay", Address, Route, Sysctl) == []

    def test_masquerade_of_what_leaves_the_cluster(self) -> None:
        (rules,) = [each for each in self.STATE.values() if isinstance(each, NftTable) and each.netns == "lab.n1"]
        assert (rules.family, rules.name) == ("inet", "podnet")
        text = " ".join(rules.ruleset.split())
        assert "elements = { 10.244.0.0/16, 198.18.0.2, 198.18.0.3, 224.0.0.0/4 }" in text
        assert text.count("masquerade") == 1
        assert "ip saddr 10.244.0.0/24 ip daddr != @cluster4 masquerade" in text

    def test_pods_do_not_change_what_the_node_is(self) -> None:
        more = compiled(topology(TWO.nodes, [*TWO.pods, pod("d", "n1")]))
        before = {key: each for key, each in self.STATE.items() if each.netns != "lab.d"}
        assert {key: more[key] for key in before} == before


class TestRoutersInAChain:
    STATE = compiled(CHAIN)

    @pytest.mark.parametrize(
        ("netns", "expected"),
        [
            ("lab.n1", ["route 0.0.0.0/0 via 198.18.1.1 dev eth0", "route 10.244.1.0/24 via 198.18.1.1 dev eth0",
                        "route 10.244.2.0/24 via 198.18.1.1 dev eth0"]),
            ("lab.n2", ["route 0.0.0.0/0 via 198.18.2.1 dev eth0", "route 10.244.0.0/24 via 198.18.2.1 dev eth0",
                        "route 10.244.2.0/24 via 198.18.2.2 dev eth0", "route 198.18.3.0/24 via 198.18.2.2 dev eth0"]),
            ("lab.n3", ["route 0.0.0.0/0 via 198.18.3.1 dev eth0", "route 10.244.0.0/24 via 198.18.3.1 dev eth0",
                        "route 10.244.1.0/24 via 198.18.3.1 dev eth0"]),
            ("lab.r1", ["route 10.244.0.0/24 via 198.18.1.2 dev eth0", "route 10.244.1.0/24 via 198.18.2.3 dev eth1",
                        "route 10.244.2.0/24 via 198.18.2.2 dev eth1", "route 198.18.3.0/24 via 198.18.2.2 dev eth1"]),
            ("lab.r2", ["route 10.244.0.0/24 via 198.18.2.1 dev eth0", "route 10.244.1.0/24 via 198.18.2.3 dev eth0",
                        "route 10.244.2.0/24 via 198.18.3.2 dev eth1", "route 198.18.1.0/24 via 198.18.2.1 dev eth0"]),
            ("lab.m", ["route 0.0.0.0/0 via 198.18.3.1 dev eth0"]),
        ],
    )  # fmt: skip
    def test_routes(self, netns: str, expected: list[str]) -> None:
        assert table(self.STATE, netns, Route) == expected

    def test_routers_forward_and_stand_in_their_subnets(self) -> None:
        for router, second in (("lab.r1", "middle"), ("lab.r2", "right")):
            assert table(self.STATE, router, Sysctl) == ["sysctl net.ipv4.ip_forward=1"]
            assert [each for each in links(self.STATE, router) if each.startswith("eth1")] == [
                f"eth1 {({'middle': 1450, 'right': 9000})[second]} -> lab.underlay"
            ]
        assert table(self.STATE, "lab.m", Sysctl) == []

    def test_the_smallest_subnet_decides_the_pods_mtu(self) -> None:
        assert links(self.STATE, "lab.p1") == ["eth0 1450 -> lab.n1"]
        assert "podnet0 1450" in links(self.STATE, "lab.n3")
        assert "eth0 9000 -> lab.underlay" in links(self.STATE, "lab.n3")

    def test_every_packet_finds_its_way(self) -> None:
        """From every namespace to every pod and node: follow the next hops until the address is there."""
        owners = {
            each.address.partition("/")[0]: each.netns for each in self.STATE.values() if isinstance(each, Address)
        }
        for netns in sorted(set(owners.values()) - {"lab.m"}):
            for address, owner in owners.items():
                here, hops = netns, [netns]
                while owner != here:
                    here = owners[_next_hop(self.STATE, here, address)]
                    assert here not in hops, f"{address} from {netns} goes round: {hops}"
                    hops.append(here)


def _next_hop(state: State, netns: str, address: str) -> str:
    """The next hop's address by longest prefix, the address itself where it is on the link."""
    to = ip_address(address)
    here = [each for each in state.values() if each.netns == netns]
    ways = {ip_network(each.address, strict=False): address for each in here if isinstance(each, Address)}
    ways |= {ip_network(each.dst): each.via for each in here if isinstance(each, Route) if each.via}
    best = max((network for network in ways if to in network), key=lambda network: network.prefixlen)
    return ways[best]


def test_dual_stack_has_everything_twice() -> None:
    state = compiled(topology([node("n1"), node("n2")], [pod("a", "n1")], "dual"))
    assert table(state, "lab.n1", Address, Route, Sysctl) == [
        "address 10.244.0.1/24 on podnet0",
        "address 198.18.0.2/24 on eth0",
        "address fd00:10:244::1/64 on podnet0",
        "address fd00:198:18::2/64 on eth0",
        "route 10.244.1.0/24 via 198.18.0.3 dev eth0",
        "route fd00:10:244:1::/64 via fd00:198:18::3 dev eth0",
        "sysctl net.ipv4.ip_forward=1",
        "sysctl net.ipv6.conf.all.forwarding=1",
        "sysctl net.ipv6.conf.eth0.accept_dad=0",
        "sysctl net.ipv6.conf.podnet0.accept_dad=0",
    ]
    assert table(state, "lab.a", Address, Route) == [
        "address 10.244.0.2/24 on eth0",
        "address fd00:10:244::2/64 on eth0",
        "route 0.0.0.0/0 via 10.244.0.1 dev eth0",
        "route ::/0 via fd00:10:244::1 dev eth0",
    ]
    (rules,) = [each.ruleset for each in state.values() if isinstance(each, NftTable) and each.netns == "lab.n1"]
    assert rules.count("masquerade") == 2


def test_ipv6_alone_has_nothing_of_ipv4() -> None:
    state = compiled(topology([node("n1"), node("n2")], [pod("a", "n1")], "ipv6"))
    told = [str(each) for each in state.values() if not isinstance(each, NftTable)]
    assert not [each for each in told if "10.244." in each or "ipv4" in each]
    assert not [each for each in state.values() if isinstance(each, NftTable) and "ip saddr" in each.ruleset]


def test_a_host_node_is_in_the_machine_and_marks_what_is_its_own() -> None:
    lab = topology([node("h", host=True), node("n2")], [pod("a", "h")], clients=[Client("m", "underlay")])
    state = compiled(lab)
    assert not any(isinstance(each, Netns | Loopback) for each in state.values() if each.netns in {"", "lab.h"})
    uplink = short("podnet", label_of("lab", "h", "eth0"))
    assert table(state, "", Address, Route, Sysctl, NftTable) == [
        "address 10.244.0.1/24 on podnet0",
        f"address 198.18.0.2/24 on {uplink}",
        "nftables table inet podnet-lab",
        f"route 10.244.1.0/24 via 198.18.0.3 dev {uplink}",
        "sysctl net.ipv4.ip_forward=1",
    ]
    assert all(each.altname or isinstance(each, Bridge) for each in state.values()
               if isinstance(each, Veth) and not each.netns)  # fmt: skip


def test_a_host_node_keeps_the_machines_default_route() -> None:
    lab = topology(
        [node("h", "left", host=True), node("n2", "right")],
        subnets=[subnet("left", "198.18.1.0/24"), subnet("right", "198.18.2.0/24")],
        routers=[Router("r", ("left", "right"))],
    )
    uplink = short("podnet", label_of("lab", "h", "eth0"))
    assert table(compiled(lab), "", Route) == [
        f"route 10.244.1.0/24 via 198.18.1.1 dev {uplink}",
        f"route 198.18.2.0/24 via 198.18.1.1 dev {uplink}",
    ]


def test_without_masquerade_or_fabric() -> None:
    assert not [e for e in compiled(topology([node("n1")], masquerade=False)).values() if isinstance(e, NftTable)]
    state = compiled(topology([node("n1"), node("n2")], fabric="none"))
    assert table(state, "lab.n1", Route) == []


def test_extra_routes_find_their_device() -> None:
    routes = (
        ExtraRoute(ip_network("192.0.2.0/24"), ip_address("198.18.0.3"), metric=5, mtu=1400),
        ExtraRoute(ip_network("203.0.113.0/24"), ip_address("10.244.0.2")),
        ExtraRoute(ip_network("198.51.100.0/24"), type="blackhole"),
    )
    state = compiled(topology([node("n1", routes=routes), node("n2")], [pod("a", "n1")]))
    found = {e.dst: e for e in state.values() if isinstance(e, Route) and e.netns == "lab.n1"}
    assert (found["192.0.2.0/24"].dev, found["192.0.2.0/24"].metric, found["192.0.2.0/24"].mtu) == ("eth0", 5, 1400)
    assert found["203.0.113.0/24"].dev == "podnet0"
    assert (found["198.51.100.0/24"].type, found["198.51.100.0/24"].dev) == ("blackhole", "")


def test_a_next_hop_that_leads_nowhere_is_told_with_what_there_is() -> None:
    routes = (ExtraRoute(ip_network("192.0.2.0/24"), ip_address("172.16.0.1")),)
    with pytest.raises(
        TopologyError, match=r"n1: next hop 172\.16\.0\.1 of route 192\.0\.2\.0/24 is in none .*198\.18"
    ):
        compiled(topology([node("n1", routes=routes)]))


def test_nodes_that_no_router_joins_are_told() -> None:
    lab = topology(
        [node("n1", "left"), node("n2", "right")],
        subnets=[subnet("left", "198.18.1.0/24"), subnet("right", "198.18.2.0/24")],
    )
    with pytest.raises(TopologyError, match="no router joins n1 and n2"):
        compiled(lab)


def test_containers_are_processes_of_their_pod() -> None:
    container = Container("main", ("sleep", "9"), (("A", "1"),))
    state = compiled(topology([node("n1")], [pod("a", "n1", containers=(container,))]))
    (process,) = [each for each in state.values() if isinstance(each, Process)]
    assert (process.netns, process.name, process.argv) == ("lab.a", "a/main", ("sleep", "9"))
    assert ("A", "1") in process.env


class TestMarks:
    def test_names_of_two_labs_never_meet(self) -> None:
        assert netns_of("a", "b") == "a.b"
        assert label_of("a", "b", "eth0") != label_of("a", "c", "eth0")
        assert table_of("a", "") == "podnet-a"
        assert table_of("a", "a.n1") == "podnet"

    def test_short_names_fit_and_differ(self) -> None:
        names = {short("podnet", label_of("lab", f"target-{i}", "eth0")) for i in range(2000)}
        assert len(names) == 2000
        assert all(len(name) <= 15 for name in names)

    def test_groups_are_numbers_that_the_kernel_takes(self) -> None:
        assert all(0 < group_of(f"lab-{i}") < 2**31 for i in range(1000))
