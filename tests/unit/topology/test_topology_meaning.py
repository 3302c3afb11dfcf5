"""What a topology file means: defaults, replicas, selectors, routes."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from podnet.lab.labjson import lab_from_json, lab_to_json
from podnet.model.lab import Lab
from podnet.model.topology import (
    Client,
    Container,
    Expectation,
    ExtraRoute,
    Networking,
    Node,
    Pod,
    Router,
    Subnet,
    Topology,
)
from podnet.topology.load import load, loads

FULL = load(Path(__file__).parent / "full.yaml")
HEAD = "name: lab\nnodes: [{name: n1}]\n"


def test_the_smallest_file() -> None:
    assert loads(HEAD) == Topology(
        name="lab",
        networking=Networking(pod_subnets=(ip_network("10.244.0.0/16"),)),
        subnets=(Subnet("underlay", (ip_network("198.18.0.0/24"),), 1500),),
        nodes=(Node("n1", "underlay"),),
    )


@pytest.mark.parametrize(
    ("family", "pod_subnets", "underlay"),
    [
        ("ipv4", ["10.244.0.0/16"], ["198.18.0.0/24"]),
        ("ipv6", ["fd00:10:244::/56"], ["fd00:198:18::/64"]),
        ("dual", ["10.244.0.0/16", "fd00:10:244::/56"], ["198.18.0.0/24", "fd00:198:18::/64"]),
    ],
)
def test_defaults_by_ip_family(family: str, pod_subnets: list[str], underlay: list[str]) -> None:
    topology = loads(f"{HEAD}networking: {{ipFamily: {family}}}\n")
    assert [str(n) for n in topology.networking.pod_subnets] == pod_subnets
    assert [str(n) for n in topology.subnets[0].networks] == underlay


@pytest.mark.parametrize(("clients", "network"), [(249, "198.18.0.0/24"), (250, "198.18.0.0/16")])
def test_the_default_underlay_widens_beyond_250_hosts(clients: int, network: str) -> None:
    topology = loads(f"{HEAD}clients: [{', '.join(f'{{name: c{i}}}' for i in range(clients))}]\n")
    assert topology.subnets[0].networks == (ip_network(network),)


def test_networks_of_both_versions_are_listed_ipv4_first() -> None:
    topology = loads(f'{HEAD}networking: {{ipFamily: dual, podSubnet: "fd01::/56, 10.1.0.0/16"}}\n')
    assert topology.networking.pod_subnets == (ip_network("10.1.0.0/16"), ip_network("fd01::/56"))


def test_networking() -> None:
    assert FULL.networking == Networking(
        pod_subnets=(ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56")),
        ip_family="dual",
        fabric="host-gw",
        mtu=1400,
    )


def test_underlay() -> None:
    assert [(s.name, s.mtu) for s in FULL.subnets] == [("left", 1500), ("right", 1450)]
    assert FULL.routers == (
        Router(
            "router",
            ("left", "right"),
            (ip_address("198.18.1.254"),),
            (ExtraRoute(ip_network("203.0.113.0/24"), type="blackhole"),),
            (("net.ipv4.conf.all.rp_filter", "0"),),
        ),
    )


def test_nodes() -> None:
    assert FULL.nodes[0] == Node(
        name="node1",
        subnet="left",
        addresses=(ip_address("198.18.1.11"), ip_address("fd00:198:1::11")),
        pod_cidrs=(ip_network("10.244.7.0/24"), ip_network("fd00:10:244:7::/64")),
        labels=(("zone", "a"),),
        routes=(
            ExtraRoute(ip_network("203.0.113.0/24"), ip_address("198.18.1.254"), metric=10, mtu=1400),
            ExtraRoute(ip_network("192.0.2.0/24"), type="blackhole"),
        ),
        sysctls=(("net.ipv4.conf.all.rp_filter", "0"),),
    )
    assert FULL.nodes[1].host


def test_a_fixed_pod_address_settles_its_nodes_pod_cidr() -> None:
    assert FULL.nodes[1].pod_cidrs == (ip_network("10.244.9.0/24"),)


def test_replicas_are_pods_of_their_own() -> None:
    web = [pod for pod in FULL.pods if dict(pod.labels).get("run") == "nginx"]
    assert [pod.name for pod in web] == ["web-0", "web-1", "web-2"]
    assert web[0] == Pod(
        name="web-0",
        node="node1",
        labels=(("run", "nginx"),),
        annotations=(("example.com/note", "any text: really"),),
        containers=(
            Container("server", ("python3", "-m", "http.server", "8080"), (("A", "1"),)),
            Container("side", ("sleep", "60"), (("A", "1"),)),
        ),
    )


@pytest.mark.parametrize(
    ("replicas", "names"), [("", ["a"]), (", replicas: 1", ["a-0"]), (", replicas: 2", ["a-0", "a-1"])]
)
def test_names_of_replicas(replicas: str, names: list[str]) -> None:
    assert [pod.name for pod in loads(f"{HEAD}pods: [{{name: a, node: n1{replicas}}}]\n").pods] == names


def test_default_routes_take_the_version_of_their_next_hop_or_all_in_use() -> None:
    text = "name: lab\nnetworking: {ipFamily: dual}\nnodes: [{name: n1, routes: [%s]}]\n"
    via = loads(text % "{dst: default, via: 'fd00:198:18::9'}").nodes[0].routes
    assert via == (ExtraRoute(ip_network("::/0"), ip_address("fd00:198:18::9")),)
    refused = loads(text % "{dst: default, type: unreachable}").nodes[0].routes
    assert [r.dst for r in refused] == [ip_network("0.0.0.0/0"), ip_network("::/0")]
    address = loads(text % "{dst: 192.0.2.7, dev: eth0}").nodes[0].routes
    assert address == (ExtraRoute(ip_network("192.0.2.7/32"), dev="eth0"),)


def test_a_next_hop_may_stand_behind_an_on_link_route() -> None:
    text = (
        "name: lab\nnodes: [{name: n1, routes: [{dst: 192.0.2.9, dev: eth0}, {dst: 203.0.113.0/24, via: 192.0.2.9}]}]\n"
    )
    assert len(loads(text).nodes[0].routes) == 2


def test_clients() -> None:
    assert FULL.clients == (
        Client(
            "laptop",
            "right",
            (ip_address("198.18.2.99"),),
            (ExtraRoute(ip_network("10.244.0.0/16"), ip_address("198.18.2.1")),),
        ),
    )


def test_sysctls_are_text() -> None:
    values = loads(HEAD + "pods: [{name: a, node: n1, sysctls: {net.a: true, net.b: 7, net.c: '4096 87380'}}]\n").pods[
        0
    ]
    assert values.sysctls == (("net.a", "1"), ("net.b", "7"), ("net.c", "4096 87380"))


WEB = ("web-0", "web-1", "web-2")
PODS = (*WEB, "db", "api")


def test_expect() -> None:
    assert FULL.expect == (
        Expectation(WEB, ("db",), "tcp", "reach", 5432, (4, 6), "own", 40),
        Expectation(WEB, ("db", "api"), "icmp", "drop", 0, (4,), "any", 41),
        Expectation(PODS, ("laptop",), "udp", "refuse", 53, (4, 6), "node", 42),
        Expectation(PODS, ("laptop",), "udp", "refuse", 54, (4, 6), "node", 42),
        Expectation((*WEB, "db"), ("node1", "node2", *PODS, "laptop"), "icmp", "reach", 0, (4, 6), "any", 43),
    )


LAB = """\
name: lab
nodes: [{name: n1, labels: {zone: a}}, {name: n2}]
pods:
- {name: web, node: n1, replicas: 2, labels: {run: nginx, zone: a}}
- {name: db, node: n2, labels: {run: db}}
clients: [{name: c1}]
expect: [{from: %s, to: db, icmp: true%s}]
"""


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("db", ["db"]),
        ("n1", ["n1"]),
        ("c1", ["c1"]),
        ("web", ["web-0", "web-1"]),
        ("web-1", ["web-1"]),
        ("pods", ["web-0", "web-1", "db"]),
        ("nodes", ["n1", "n2"]),
        ("clients", ["c1"]),
        ('"*"', ["n1", "n2", "web-0", "web-1", "db", "c1"]),
        ("[web, web-1, n1]", ["web-0", "web-1", "n1"]),
        ("[{kind: client}, db]", ["c1", "db"]),
        ("{labels: {run: nginx}}", ["web-0", "web-1"]),
        ("{labels: {zone: a}}", ["n1", "web-0", "web-1"]),
        ("{labels: {zone: a}, kind: pod}", ["web-0", "web-1"]),
        ("{labels: {zone: a, run: nginx}}", ["web-0", "web-1"]),
        ("{node: n2}", ["db"]),
        ("{node: n1, labels: {run: nginx}, kind: pod}", ["web-0", "web-1"]),
    ],
)
def test_selectors(selector: str, names: list[str]) -> None:
    (expectation,) = loads(LAB % (selector, "")).expect
    assert list(expectation.sources) == names


@pytest.mark.parametrize(
    ("sender", "more", "source"),
    [
        ("web", "", "own"),
        ("n1", "", "own"),
        ("c1", "", "any"),
        ('"*"', "", "any"),
        ("web", ", verdict: refuse", "any"),
        ("web", ", verdict: drop", "any"),
        ("c1", ", source: own", "own"),
        ("web", ", source: 10.1.2.3", "10.1.2.3"),
    ],
)
def test_the_source_that_the_receiver_must_see(sender: str, more: str, source: str) -> None:
    (expectation,) = loads(LAB % (sender, more)).expect
    assert expectation.source == source


def test_without_a_fabric_subnets_need_no_router() -> None:
    text = "name: lab\nnetworking: {fabric: none}\nnodes: [{name: n1}, {name: n2, subnet: b}]\n"
    text += "underlay: {subnets: [{name: a, cidr: 10.1.0.0/24}, {name: b, cidr: 10.2.0.0/24}]}\n"
    assert [node.subnet for node in loads(text).nodes] == ["a", "b"]


@pytest.mark.parametrize(
    ("keys", "fields"),
    [
        ("icmp: true, ttl: 62, via: [n1, n2]", {"ttl": 62, "via": ("n1", "n2")}),
        ("icmp: true, via: []", {"via": ()}),
        ("icmp: true, mtu: 1450, within: 5", {"mtu": 1450, "within": 5.0}),
        ("tcp: 80, latencyMs: 5, lossPercent: 25", {"latency_ms": 5.0, "loss": 0.25}),
        ("http: 8080", {"protocol": "http", "port": 8080}),
        ("connect: 22, verdict: refuse", {"protocol": "connect", "port": 22, "verdict": "refuse"}),
        ("dns: 53", {"protocol": "dns", "port": 53}),
        ("arp: true", {"protocol": "arp", "port": 0, "families": (4,)}),
        ("arp: true, family: ipv4, verdict: drop", {"protocol": "arp", "verdict": "drop", "families": (4,)}),
    ],
)
def test_what_an_expectation_asks_besides(keys: str, fields: dict[str, object]) -> None:
    (expectation,) = loads(LAB.replace("icmp: true%s", "%s") % ("web", keys)).expect
    assert {name: getattr(expectation, name) for name in fields} == fields
    lab = Lab("lab", (4,), (), (expectation,))
    assert lab_from_json(json.loads(json.dumps(lab_to_json(lab)))) == lab
