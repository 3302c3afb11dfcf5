"""host-gw: one plain route for each pod CIDR, to the node that has it."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

from podnet.fabric import hostgw
from podnet.kernel.objects import Route
from podnet.model.placement import PlacedNode
from podnet.model.topology import Node


def test_a_route_for_each_family_over_its_own_next_hop() -> None:
    other = PlacedNode(
        Node("n2", "underlay"),
        (ip_interface("198.18.0.3/24"), ip_interface("fd00::3/64")),
        (ip_network("10.244.1.0/24"), ip_network("fd00:1::/64")),
        (ip_interface("10.244.1.1/24"), ip_interface("fd00:1::1/64")),
    )
    assert hostgw.wanted("lab.n1", "eth0", other, {4: "198.18.0.3", 6: "fd00::3"}) == [
        Route("lab.n1", "10.244.1.0/24", "198.18.0.3", "eth0"),
        Route("lab.n1", "fd00:1::/64", "fd00::3", "eth0"),
    ]


def test_it_takes_nothing_of_the_mtu() -> None:
    assert hostgw.OVERHEAD == 0
