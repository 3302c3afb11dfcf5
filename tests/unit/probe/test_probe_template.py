"""Patched bytes against what scapy builds for the same fields."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podnet.probe.stamp import MAX_CHECKS, Run
from podnet.probe.template import Aim, Template, Templates, crafted

RUN = Run(0xA1B2C3D4)
KINDS = [(protocol, version) for protocol in ("icmp", "tcp", "udp", "sctp") for version in (4, 6)]
TEMPLATES = {kind: Template(*kind, RUN) for kind in KINDS}
U16 = st.integers(0, 0xFFFF)


def filled(template: Template, source: str, aims: list[Aim], port: int, ports: list[int], indexes: list[int]) -> Any:
    """One probe from target 7 to each aim in turn, and the destinations."""
    packets, names = (memoryview(bytearray(size * len(indexes))) for size in (template.size, template.name_size))
    targets = {index: at for at, index in enumerate(indexes)}
    template.fill(packets, names, (7, Aim.at(source).packed, port), indexes, targets, aims, ports)
    cut = [(template.size * at, template.size * (at + 1)) for at in range(len(indexes))]
    return [bytes(packets[a:b]) for a, b in cut], bytes(names)


@pytest.mark.parametrize(("protocol", "version"), KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), port=U16, ports=st.lists(U16, min_size=3, max_size=3))
def test_byte_for_byte_what_scapy_builds(
    protocol: str, version: int, data: st.DataObject, port: int, ports: list[int]
) -> None:
    kind, bits = (IPv4Address, 32) if version == 4 else (IPv6Address, 128)
    source, *targets = (str(kind(data.draw(st.integers(0, 2**bits - 1)))) for _ in range(4))
    indexes = data.draw(st.lists(st.integers(0, MAX_CHECKS - 1), min_size=3, max_size=3, unique=True))
    made, names = filled(TEMPLATES[protocol, version], source, [Aim.at(each) for each in targets], port, ports, indexes)
    for at, index in enumerate(indexes):
        expected = crafted(
            protocol,
            version,
            RUN,
            source=source,
            target=targets[at],
            ports=(RUN.identification, index & 0xFFFF) if protocol == "icmp" else (port, ports[at]),
            sequence=RUN.sequence(index),
            payload=RUN.payload(7, at, index),
        )
        if version == 4:  # raw(7): the kernel fills in the checksum of the header
            expected = expected[:10] + bytes(2) + expected[12:]
        assert made[at] == expected
        assert kind(targets[at]).packed in names


def test_a_udp_checksum_of_zero_is_sent_as_all_ones() -> None:
    # RFC 768: zero means that there is none. Find a port for which the sum comes out as zero.
    aim = Aim.at("10.0.0.2")
    sums = {filled(TEMPLATES["udp", 4], "10.0.0.1", [aim], port, [9], [0])[0][0][26:28] for port in range(0x10000)}
    assert b"\0\0" not in sums
    assert b"\xff\xff" in sums


@pytest.mark.parametrize("number", [0, 0x12340000, 0xFFFFFFFF])
def test_the_marks_of_a_run_are_in_the_headers(number: int) -> None:
    run = Run(number)
    v4 = crafted("icmp", 4, run, source="10.0.0.1", target="10.0.0.2")
    assert int.from_bytes(v4[4:6], "big") == run.identification != 0
    v6 = crafted("icmp", 6, run, source="fd00::1", target="fd00::2")
    assert int.from_bytes(v6[:4], "big") & 0xFFFFF == run.flow_label == number & 0xFFFFF


def test_a_template_is_made_once() -> None:
    templates = Templates(RUN)
    assert templates.of("tcp", 6) is templates.of("tcp", 6)
