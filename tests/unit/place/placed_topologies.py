"""Topologies as ``load`` hands them on, written short."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Any

from podnet.model.placement import Placement
from podnet.model.topology import Client, Networking, Node, Pod, Router, Subnet, Topology

POD_SUBNETS = {"ipv4": ("10.244.0.0/16",), "ipv6": ("fd00:10:244::/56",), "dual": ("10.244.0.0/16", "fd00:10:244::/56")}
UNDERLAY = {"ipv4": ("198.18.0.0/24",), "ipv6": ("fd00:198:18::/64",), "dual": ("198.18.0.0/24", "fd00:198:18::/64")}


def networking(family: str = "ipv4", pod_subnets: Iterable[str] = (), **more: Any) -> Networking:
    return Networking(tuple(ip_network(n) for n in pod_subnets or POD_SUBNETS[family]), ip_family=family, **more)


def subnet(name: str, *networks: str, mtu: int = 1500) -> Subnet:
    return Subnet(name, tuple(ip_network(n) for n in networks), mtu)


def node(
    name: str, subnet: str = "underlay", *, cidrs: Iterable[str] = (), at: Iterable[str] = (), **more: Any
) -> Node:
    return Node(
        name,
        subnet,
        pod_cidrs=tuple(ip_network(c) for c in cidrs),
        addresses=tuple(ip_address(a) for a in at),
        **more,
    )


def pod(name: str, node: str, *at: str, **more: Any) -> Pod:
    return Pod(name, node, addresses=tuple(ip_address(a) for a in at), **more)


def topology(
    nodes: Iterable[Node],
    pods: Iterable[Pod] = (),
    family: str = "ipv4",
    subnets: Iterable[Subnet] = (),
    routers: Iterable[Router] = (),
    clients: Iterable[Client] = (),
    **more: Any,
) -> Topology:
    return Topology(
        "lab",
        networking(family, **more),
        tuple(subnets) or (subnet("underlay", *UNDERLAY[family]),),
        tuple(nodes),
        tuple(pods),
        tuple(routers),
        tuple(clients),
        path="lab.yaml",
    )


def chosen(placement: Placement) -> dict[str, list[str]]:
    """Every address of a placement by the name that has it, in the form in which a lab remembers it."""
    found = {f"host/{n.node.name}": [str(a) for a in n.addresses] for n in placement.nodes}
    found |= {f"host/{c.client.name}": [str(a) for a in c.addresses] for c in placement.clients}
    found |= {f"cidr/{n.node.name}": [str(c) for c in n.pod_cidrs] for n in placement.nodes}
    return found | {f"pod/{p.pod.name}": [str(a) for a in p.addresses] for p in placement.pods}
