"""Patched bytes against what scapy builds for the same fields."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podnet.probe.stamp import SIZE, Run
from podnet.probe.template import Template, Templates, crafted

RUN = Run(0xA1B2C3D4)
KINDS = [(protocol, version) for protocol in ("icmp", "tcp", "udp") for version in (4, 6)]
TEMPLATES = {kind: Template(*kind, RUN) for kind in KINDS}
U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)


@pytest.mark.parametrize(("protocol", "version"), KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), ports=st.tuples(U16, U16), sequence=U32, payload=st.binary(min_size=SIZE, max_size=SIZE))
def test_byte_for_byte_what_scapy_builds(
    protocol: str, version: int, data: st.DataObject, ports: tuple[int, int], sequence: int, payload: bytes
) -> None:
    kind = IPv4Address if version == 4 else IPv6Address
    source, target = (kind(data.draw(U32 if version == 4 else st.integers(0, 2**128 - 1))) for _ in range(2))
    # The template is used again and again: nothing of the last probe may stay.
    made = TEMPLATES[protocol, version].packet(source.packed, target.packed, ports, sequence, payload)
    expected = crafted(
        protocol,
        version,
        RUN,
        source=str(source),
        target=str(target),
        ports=ports,
        sequence=sequence,
        payload=payload,
    )
    assert made == expected


def test_a_udp_checksum_of_zero_is_sent_as_all_ones() -> None:
    # RFC 768: zero means that there is none. Find a port for which the sum comes out as zero.
    template, addresses = TEMPLATES["udp", 4], (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
    sums = {template.packet(*addresses, (port, 9), 0, bytes(SIZE))[26:28] for port in range(0x10000)}
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
