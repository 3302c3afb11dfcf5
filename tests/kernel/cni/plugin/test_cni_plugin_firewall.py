"""The firewall part: what FORWARD of iptables lets pass, the ingress policies, the administrator's chain."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from plugin_traffic import ask, serving

pytestmark = pytest.mark.kernel

OUTSIDE = {4: "192.0.2.1", 6: "fd99::1"}


def network(number: int, **firewall: Any) -> dict[str, Any]:
    """Network ``net1`` on bridge ``br1`` with 10.8.1.0/24 and fd08:1::/64, and so on."""
    ranges = [[{"subnet": f"10.8.{number}.0/24"}], [{"subnet": f"fd08:{number}::/64"}]]
    return {
        "cniVersion": "1.1.0",
        "name": f"net{number}",
        "type": "podnet",
        "bridge": f"br{number}",
        "isDefaultGateway": True,
        "ipam": {"type": "host-local", "ranges": ranges},
        "firewall": firewall,
    }


def addresses(result: dict[str, Any]) -> tuple[str, str]:
    v4, v6 = (each["address"].partition("/")[0] for each in result["ips"])
    return v4, v6


# -- ingress policies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two", "across", "within"),
    [
        ({}, {}, True, True),
        (
            {"ingressPolicy": "open"},
            {"ingressPolicy": "same-bridge"},
            True,
            True,
        ),  # as the reference: both must have it
        ({"ingressPolicy": "same-bridge"}, {"ingressPolicy": "same-bridge"}, False, True),
        ({"ingressPolicy": "isolated"}, {"ingressPolicy": "same-bridge"}, False, False),
    ],
)
def test_ingress_policy(host: Any, one: dict[str, Any], two: dict[str, Any], across: bool, within: bool) -> None:
    host.add(network(1, **one))
    near = addresses(host.add(network(1, **one), "c2"))
    far = addresses(host.add(network(2, **two), "c3"))
    with serving("c2"), serving("c3"):
        for family in (0, 1):
            assert ask("", near[family], 80), "the host itself always"
            assert bool(ask("c1", near[family], 80, patience=5 if within else 1)) is within
            assert bool(ask("c1", far[family], 80, patience=5 if across else 1)) is across


@pytest.mark.parametrize("policy", ["same-bridge", "isolated"])
def test_a_policy_does_not_stop_the_outside(outside: Any, policy: str) -> None:
    host, conf = outside, network(1, ingressPolicy=policy)
    mapped = conf | {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}}
    own = addresses(host.add(mapped))
    host.tool("ip", "-n", "c3", "route", "add", "10.8.1.0/24", "via", OUTSIDE[4])
    with serving("c1"), serving("c3"):
        assert ask("c1", "192.0.2.2", 80) == own[0]
        assert ask("c3", own[0], 80) == "192.0.2.2"
        assert ask("c3", OUTSIDE[4], 8080) == "192.0.2.2"


# -- a FORWARD that drops -------------------------------------------------------------------------------------


@pytest.fixture(params=["iptables-nft", "iptables-legacy"])
def dropping(outside: Any, request: pytest.FixtureRequest) -> tuple[Any, str]:
    """A host on which iptables forwards nothing, as after an installation of Docker."""
    tools = [request.param, request.param.replace("ip", "ip6", 1)]
    for tool in tools:
        outside.tool(tool, "-P", "FORWARD", "DROP")
    host = outside
    host.tool("ip", "-n", "c3", "route", "add", "10.8.1.0/24", "via", OUTSIDE[4])
    host.tool("ip", "-n", "c3", "-6", "route", "add", "fd08:1::/64", "via", OUTSIDE[6])
    return host, tools[0]


def test_containers_are_forwarded_though_iptables_drops(dropping: tuple[Any, str]) -> None:
    host, tool = dropping
    conf = network(1)
    without = {key: value for key, value in conf.items() if key != "firewall"}
    mapped = conf | {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}}
    result = host.add(mapped)
    own = addresses(result)
    host.add(without, "c2")
    with serving("c1"), serving("c3"):
        for family, out in ((0, "192.0.2.2"), (1, "fd99::2")):
            assert ask("c1", out, 80) == own[family], "what the container begins"
            assert ask("c3", OUTSIDE[4 + 2 * family], 8080) == out, "a published port"
            assert ask("c3", own[family], 80, patience=1) == "", "what others begin is left to FORWARD's policy"
            assert ask("c2", out, 80, patience=1) == "", "a container without the firewall part"
    assert host.call("CHECK", mapped | {"prevResult": result}) == (0, None)
    rule = '-A FORWARD -m mark --mark 0x1000/0x1000 -m comment --comment "podnet firewall" -j ACCEPT'
    assert host.tool(tool, "-S", "FORWARD").splitlines().count(rule) == 1
    host.delete(conf, CNI_NETNS="")
    host.delete(without, "c2")
    assert host.call("GC", conf | {"cni.dev/valid-attachments": []}) == (0, None)
    assert host.tool(tool, "-S", "FORWARD").splitlines() == ["-P FORWARD DROP"]
    assert "podnet_firewall" not in host.tool("nft", "list", "ruleset")


def test_check_sees_that_iptables_was_flushed(dropping: tuple[Any, str]) -> None:
    host, tool = dropping
    result = host.add(network(1))
    host.tool(tool, "-F", "FORWARD")
    code, error = host.call("CHECK", network(1) | {"prevResult": result})
    assert (code, error["details"]) == (1, "firewall: FORWARD of iptables does not accept what is marked 0x1000")
    host.add(network(1), "c2")
    assert host.call("CHECK", network(1) | {"prevResult": result}) == (0, None), "the next ADD has put it back"


def test_nothing_is_made_in_iptables_where_there_is_none(host: Any) -> None:
    host.add(network(1))
    assert sorted(host.tool("nft", "list", "tables").split()) == ["inet", "podnet_firewall", "table"]


# -- the administrator's chain, CHECK, DEL --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CNI-ADMIN", "my.overrides"])
def test_the_administrators_chain_comes_first_and_stays(outside: Any, name: str) -> None:
    host = outside
    conf = network(1) if name == "CNI-ADMIN" else network(1, iptablesAdminChainName=name)
    host.add(conf)
    host.tool("ip", "-n", "c3", "route", "add", "10.8.1.0/24", "via", OUTSIDE[4])
    host.tool("nft", "add", "rule", "inet", "podnet_firewall", name, "tcp", "dport", "80", "drop")
    with serving("c3", 80), serving("c3", 81):
        assert ask("c1", "192.0.2.2", 80, patience=1) == ""
        assert ask("c1", "192.0.2.2", 81)
    host.delete(conf)
    assert host.call("GC", conf | {"cni.dev/valid-attachments": []}) == (0, None)
    assert "tcp dport 80 drop" in host.tool("nft", "list", "table", "inet", "podnet_firewall")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("delete element inet podnet_firewall from4 { 10.8.1.2 }", "firewall of 10.8.1.2 is missing"),
        ('delete element inet podnet_firewall bridges { "br1" }', 'firewall of "br1" is missing'),
        ('delete element bridge podnet_firewall isolated { "HOST" }', 'firewall of "HOST" is missing'),
        ("flush chain inet podnet_firewall forward", "the rules of chain inet podnet_firewall forward differ"),
        ("flush chain bridge podnet_firewall forward", "the rules of chain bridge podnet_firewall forward differ"),
    ],
)
def test_k3_check_names_what_is_missing(host: Any, damage: str, words: str) -> None:
    conf = network(1, ingressPolicy="isolated")
    result = host.add(conf)
    assert host.call("CHECK", conf | {"prevResult": result}) == (0, None)
    name = result["interfaces"][1]["name"]
    subprocess.run(["nft", damage.replace("HOST", name)], check=True)
    code, error = host.call("CHECK", conf | {"prevResult": result})
    assert (code, words.replace("HOST", name) in error["details"]) == (1, True), error


def test_d3_del_takes_the_elements_that_no_other_has(host: Any) -> None:
    conf = network(1, ingressPolicy="isolated")
    host.add(conf)
    host.add(conf, "c2")
    host.delete(conf, CNI_NETNS="")
    ruleset = host.tool("nft", "list", "ruleset")
    assert ("10.8.1.2 :" in ruleset, "10.8.1.3 :" in ruleset, '"br1" . "br1"' in ruleset) == (False, True, True)
    host.delete(conf, "c2", CNI_NETNS="")
    assert "elements" not in host.tool("nft", "list", "ruleset")


@pytest.mark.parametrize(
    ("firewall", "code", "words"),
    [
        ({"backend": "firewalld"}, 2, 'firewall.backend: "firewalld" is not supported'),
        ({"ingressPolicy": "closed"}, 7, 'unknown ingress policy: "closed"'),
        ({"iptablesAdminChainName": "a b; flush ruleset"}, 7, "is no name for a chain"),
        ({"iptablesAdminChainName": "forward"}, 7, "is no name for a chain"),
        ({"ingressPolicy": 7}, 6, "firewall.ingressPolicy must be a string"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    host: Any, firewall: dict[str, Any], code: int, words: str
) -> None:
    before = host.snapshot()
    exit_code, error = host.call("ADD", network(1, **firewall))
    assert (exit_code, error["code"], words in error["msg"]) == (1, code, True), error
    assert host.snapshot() == before
