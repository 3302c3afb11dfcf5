"""Packets of a run, built by scapy."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from podnet.probe.stamp import Run
from podnet.probe.template import crafted

RUN = Run(0x7A001234)
A = {4: "10.0.0.1", 6: "fd00::1"}
B = {4: "10.0.0.2", 6: "fd00::2"}
ROUTER = {4: "10.0.0.9", 6: "fd00::9"}
BOTH = pytest.mark.parametrize("version", [4, 6])
EACH = pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp", "sctp"])
INDEX = 70_000  # more than 16 bits


def packed(text: str) -> bytes:
    return ip_address(text).packed


def probe(protocol: str, version: int, index: int = INDEX, run: Run = RUN) -> bytes:
    return crafted(
        protocol,
        version,
        run,
        source=A[version],
        target=B[version],
        ports=(40000, 80),
        sequence=run.sequence(index),
        payload=run.payload(1, 2, index),
    )


def back(version: int, sender: str = "") -> Any:
    kind = IP if version == 4 else IPv6
    return kind(src=sender or B[version], dst=A[version])
