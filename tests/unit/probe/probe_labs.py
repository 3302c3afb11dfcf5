"""Small labs written by hand."""

from __future__ import annotations

from ipaddress import ip_interface

from podnet.model.lab import Interface, Lab, Target
from podnet.model.topology import Expectation


def target(name: str, kind: str, *addresses: str, node: str = "") -> Target:
    link = Interface("eth0", "02:00:00:00:00:01", 1500, tuple(ip_interface(a) for a in addresses))
    return Target(name, kind, f"lab-{name}", (link,), node)


def lab(*expect: Expectation, versions: tuple[int, ...] = (4,)) -> Lab:
    """One node with two pods, one node with one, a client."""
    targets = (
        target("n1", "node", "10.244.1.1/24", "192.168.7.1/24", "fd00:1::1/64", "fd00:7::1/64"),
        target("n2", "node", "192.168.7.2/24", "10.244.2.1/24", "fd00:7::2/64", "fd00:2::1/64"),
        target("web", "pod", "10.244.1.2/24", "fd00:1::2/64", node="n1"),
        target("api", "pod", "10.244.1.3/24", "fd00:1::3/64", node="n1"),
        target("db", "pod", "10.244.2.2/24", "fd00:2::2/64", node="n2"),
        target("outside", "client", "192.168.7.9/24", "fd00:7::9/64"),
    )
    return Lab("small", versions, targets, expect)
