"""Under which address a target is probed, and which sender's address a receiver should see."""

from __future__ import annotations

import pytest
from probe_labs import lab, target

from podnet.model.lab import Lab
from podnet.model.probe import Check
from podnet.probe.addressing import Sources, primary


@pytest.mark.parametrize(
    ("name", "version", "address"),
    [
        ("web", 4, "10.244.1.2"),
        ("db", 6, "fd00:2::2"),
        ("n1", 4, "192.168.7.1"),  # not 10.244.1.1, although listed first: that is the bridge of its pods
        ("n1", 6, "fd00:7::1"),
        ("n2", 4, "192.168.7.2"),
        ("outside", 4, "192.168.7.9"),
    ],
)
def test_targets_are_known_by_their_first_address_nodes_by_the_one_in_the_underlay(
    name: str, version: int, address: str
) -> None:
    small = lab()
    found = small.target(name)
    assert found is not None
    assert primary(small, found, version) == address


def test_a_node_with_a_bridge_only_is_known_by_its_gateway_address() -> None:
    node = target("n", "node", "10.1.0.1/24")
    single = Lab("single", (4,), (node, target("a", "pod", "10.1.0.2/24", node="n")))
    assert primary(single, node, 4) == "10.1.0.1"


def test_link_local_addresses_do_not_count() -> None:
    pod = target("a", "pod", "fe80::1/64", "fd00::1/64", "10.1.0.2/24")
    assert primary(Lab("l", (6,), (pod,)), pod, 6) == "fd00::1"
    bare = target("b", "pod", "fe80::1/64")
    assert primary(Lab("l", (6,), (bare,)), bare, 6) is None


@pytest.mark.parametrize(
    ("source", "seen", "observed", "fits"),
    [
        ("web", "own", "10.244.1.2", True),
        ("web", "own", "192.168.7.1", False),
        ("web", "node", "192.168.7.1", True),
        ("web", "node", "10.244.1.1", True),
        ("web", "node", "10.244.1.2", False),
        ("n1", "own", "10.244.1.1", True),
        ("n1", "node", "192.168.7.1", True),
        ("outside", "node", "192.168.7.1", False),
        ("web", "any", "203.0.113.5", True),
        ("web", "203.0.113.5", "203.0.113.5", True),
        ("web", "203.0.113.5", "203.0.113.6", False),
    ],
)
def test_the_address_seen_is_compared_with_the_one_expected(source: str, seen: str, observed: str, fits: bool) -> None:
    assert Sources(lab()).fits(Check(source, "db", "icmp", 4, seen=seen), observed) is fits


def test_an_expected_ipv6_address_may_be_written_in_any_form() -> None:
    assert Sources(lab()).fits(Check("web", "db", "icmp", 6, seen="FD00:0:0::5"), "fd00::5")
