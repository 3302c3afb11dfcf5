"""Nodes as fabrics see them, written short."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from podnet.fabric import Site, Terms, Way

V4, V6, DUAL = (4,), (6,), (4, 6)


def site(number: int, versions: tuple[int, ...] = DUAL) -> Site:
    """Node nN: 198.18.0.1N and fd99::1N, pods in 10.244.N.0/24 and fd00:N::/64."""
    addresses = {4: f"198.18.0.1{number}", 6: f"fd99::1{number}"}
    cidrs = {4: ip_network(f"10.244.{number}.0/24"), 6: ip_network(f"fd00:{number}::/64")}
    gateways = {4: f"10.244.{number}.1", 6: f"fd00:{number}::1"}
    return Site(
        netns=f"lab.n{number}",
        dev="eth0",
        addresses={v: addresses[v] for v in versions},
        cidrs=tuple(cidrs[v] for v in versions),
        gateways={v: gateways[v] for v in versions},
        tunnel="podnet-t",
        label=f"podnet.lab.n{number}.t",
        mac=f"0a:5b:0a:f4:0{number}:01",
        key=f"key{number}",
    )


def terms(versions: tuple[int, ...], **more: Any) -> Terms:
    return Terms(versions, 1400, 7, **more)


def ways(*numbers: int, versions: tuple[int, ...] = DUAL, apart: tuple[int, ...] = ()) -> list[Way]:
    """To these nodes; those in ``apart`` stand behind a router."""
    sites = {number: site(number, versions) for number in numbers}
    hop = {4: "198.18.0.1", 6: "fd99::1"}
    return [
        Way(each, hop if number in apart else each.addresses, number not in apart) for number, each in sites.items()
    ]
