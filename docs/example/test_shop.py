"""Tests of a network with podnet's pytest plugin; run them as root: pytest docs/example"""

import subprocess

import pytest

pytestmark = pytest.mark.podnet("topology.yaml")


def test_the_shop_reaches_its_database(lab):
    assert lab.pod("web").can_reach("db", tcp=5432, within=10)
    assert lab.pod("web").can_reach("db", http=5432)
    assert lab.node("node1").can_reach("db")


def test_nothing_else_is_open(lab):
    lab.expect("web", "db", tcp=22, verdict="refuse")
    assert lab.pod("db").cannot_reach("web", tcp=80)


def test_the_database_sees_who_asks(lab):
    assert lab.pod("web").can_reach("db", seen="own")


@pytest.mark.podnet("topology.yaml", scope="function")
def test_a_firewall_on_the_node(lab):
    rule = "table ip t { chain f { type filter hook forward priority 0; tcp dport 5432 drop; }; }"
    subprocess.run(["ip", "netns", "exec", f"{lab.name}.node2", "nft", rule], check=True)
    assert lab.pod("web").cannot_reach("db", tcp=5432)
    assert lab.pod("web").can_reach("db")


def test_all_that_kubernetes_promises(lab):
    assert list(lab.test().failed()) == []
