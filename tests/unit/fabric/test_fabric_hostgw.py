"""host-gw: one plain route for each pod CIDR, to the node that has it."""

from __future__ import annotations

from fabric_sites import DUAL, site, terms

from podnet.fabric import Way, fabric_of
from podnet.kernel.objects import Route

HOSTGW = fabric_of("host-gw")


def test_a_route_for_each_family_over_its_own_next_hop() -> None:
    routes = [
        Route("lab.n1", "10.244.2.0/24", "198.18.0.12", "eth0"),
        Route("lab.n1", "fd00:2::/64", "fd99::12", "eth0"),
    ]
    other = site(2)
    assert HOSTGW.node(terms(DUAL), site(1), [Way(other, other.addresses, True)]) == routes
    assert HOSTGW.router("lab.n1", "eth0", other, other.addresses) == routes


def test_another_subnet_is_reached_over_the_router() -> None:
    [first, _] = HOSTGW.node(terms(DUAL), site(1), [Way(site(2), {4: "198.18.0.1", 6: "fd99::1"}, False)])
    assert first == Route("lab.n1", "10.244.2.0/24", "198.18.0.1", "eth0")


def test_it_takes_nothing_of_the_mtu() -> None:
    assert HOSTGW.overhead(DUAL) == 0
