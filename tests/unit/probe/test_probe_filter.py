"""The BPF program, run by an interpreter of the few instructions that it uses."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_packets import BOTH, EACH, ROUTER, RUN, A, B, back, probe
from scapy.layers.inet import ICMP, TCP
from scapy.layers.inet6 import ICMPv6DestUnreach
from scapy.packet import Raw

from podnet.probe.decode import decode
from podnet.probe.filter import NOTHING, program
from podnet.probe.stamp import Run


def accepts(instructions: bytes, packet: bytes, pkttype: int = 0) -> bool:
    """Linux: a load beyond the packet's end ends the program with 0 (Documentation/networking/filter.rst)."""
    code = list(struct.iter_unpack("HBBI", instructions))
    a = x = at = 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        size = {0x20: 4, 0x28: 2, 0x30: 1, 0x40: 4, 0x48: 2, 0x50: 1}.get(op)
        if size is not None:
            if k == 0xFFFFF004:
                a = pkttype
                continue
            begin = k + (x if op >= 0x40 else 0)
            if begin + size > len(packet):
                return False
            a = int.from_bytes(packet[begin : begin + size], "big")
        elif op == 0x01:
            x = k
        elif op == 0xB1:
            x = (packet[k] & 15) * 4
        elif op == 0x54:
            a &= k
        elif op == 0x15:
            at += yes if a == k else no
        elif op == 0x45:
            at += yes if a & k else no
        elif op == 0x05:
            at += k
        else:
            assert op == 0x06
            return k != 0


def own(version: int, *names: str) -> list[bytes]:
    return [ip_address(name).packed for name in names]


@BOTH
@EACH
@pytest.mark.parametrize(
    ("addresses", "pkttype", "passes"),
    [
        ("receiver", 0, True),
        ("receiver", 3, False),  # PACKET_OTHERHOST: overheard
        ("receiver", 4, False),  # PACKET_OUTGOING
        ("router", 0, False),  # forwarded
    ],
)
def test_only_what_arrives_for_this_host(
    protocol: str, version: int, addresses: str, pkttype: int, passes: bool
) -> None:
    mine = own(version, *{"receiver": (ROUTER[version], B[version]), "router": (ROUTER[version],)}[addresses])
    assert accepts(program(version, RUN, mine), probe(protocol, version), pkttype) is passes


@BOTH
@EACH
def test_another_runs_probes_do_not_pass(protocol: str, version: int) -> None:
    instructions = program(version, RUN, own(version, B[version]))
    assert not accepts(instructions, probe(protocol, version, run=Run(0x11223344)))


@BOTH
@pytest.mark.parametrize("count", [1, 2, 16, 17, 100])
def test_any_number_of_own_addresses(version: int, count: int) -> None:
    others = [(int.from_bytes(ip_address(ROUTER[version]).packed, "big") + n) for n in range(count - 1)]
    width = 4 if version == 4 else 16
    mine = [number.to_bytes(width, "big") for number in others] + own(version, B[version])
    instructions = program(version, RUN, mine)
    assert accepts(instructions, probe("tcp", version))
    assert accepts(instructions, probe("icmp", version))


@settings(max_examples=300)
@given(
    version=st.sampled_from([4, 6]),
    protocol=st.sampled_from(["icmp", "tcp", "udp"]),
    at=st.integers(0, 200),
    byte=st.integers(0, 255),
)
def test_the_filter_lets_all_pass_that_is_decoded(version: int, protocol: str, at: int, byte: int) -> None:
    # A probe with one byte changed: what decoding still knows as ours, the kernel must not have kept back.
    packet = bytearray(probe(protocol, version))
    packet[at % len(packet)] = byte
    mine = own(version, B[version])
    fragment = version == 4 and int.from_bytes(packet[6:8], "big") & 0x1FFF
    if decode(version, RUN, set(mine), bytes(packet)) is not None and not fragment:
        assert accepts(program(version, RUN, mine), bytes(packet))


@BOTH
def test_answers_and_errors_pass(version: int) -> None:
    instructions = program(version, RUN, own(version, A[version]))
    for flags, passes in (("SA", True), ("RA", True), ("A", False), ("R", False)):
        segment = back(version) / TCP(flags=flags, ack=RUN.sequence(7) + 1)
        assert accepts(instructions, bytes(segment)) is passes
    for run, passes in ((RUN, True), (Run(0x11223344), False)):
        quote = Raw(probe("udp", version, run=run))
        error = ICMP(type=3, code=3) / quote if version == 4 else ICMPv6DestUnreach(code=4) / quote
        assert accepts(instructions, bytes(back(version, ROUTER[version]) / error)) is passes


def test_the_filter_of_a_reserved_port_lets_nothing_pass() -> None:
    assert not accepts(NOTHING, probe("udp", 4))
