"""Which captured packet tells what about which check; replies and errors are built by scapy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from probe_packets import BOTH, EACH, INDEX, ROUTER, RUN, A, B, back, packed, probe
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply
from scapy.packet import Raw

from podnet.probe.decode import ICMP_ERROR, REPLY, REQUEST_SEEN, RESET, Sighting, decode
from podnet.probe.stamp import ANSWER, MAX_CHECKS, Run


def at_sender(version: int, packet: Any) -> Sighting | None:
    return decode(version, RUN, {packed(A[version])}, bytes(packet))


@BOTH
@EACH
@pytest.mark.parametrize("index", [0, 1, INDEX, MAX_CHECKS - 1])
def test_a_request_is_told_by_its_mark(protocol: str, version: int, index: int) -> None:
    seen = decode(version, RUN, {packed(B[version])}, probe(protocol, version, index))
    assert seen == Sighting(REQUEST_SEEN, index, packed(A[version]))


@BOTH
@EACH
def test_a_packet_that_is_not_for_this_host_is_not_an_arrival(protocol: str, version: int) -> None:
    assert decode(version, RUN, {packed(ROUTER[version])}, probe(protocol, version)) is None


@BOTH
@EACH
def test_a_packet_of_another_run_is_not_ours(protocol: str, version: int) -> None:
    other = probe(protocol, version, run=Run(0x11223344))
    assert decode(version, RUN, {packed(B[version])}, other) is None


@BOTH
def test_an_echo_reply_carries_the_stamp_back(version: int) -> None:
    payload = RUN.payload(1, 2, INDEX)
    reply = ICMP(type=0) / Raw(payload) if version == 4 else ICMPv6EchoReply(data=payload)
    assert at_sender(version, back(version) / reply) == Sighting(REPLY, INDEX, packed(B[version]))


@BOTH
@pytest.mark.parametrize("index", [0, INDEX, MAX_CHECKS - 1])
@pytest.mark.parametrize(("flags", "kind"), [("SA", REPLY), ("RA", RESET)])
def test_tcp_answers_acknowledge_the_mark(version: int, flags: str, kind: int, index: int) -> None:
    answer = TCP(sport=80, dport=40000, flags=flags, seq=99, ack=RUN.sequence(index) + 1)
    assert at_sender(version, back(version) / answer) == Sighting(kind, index, packed(B[version]))


@BOTH
@pytest.mark.parametrize("flags", ["A", "R", "F", "FA", "PA"])
def test_other_segments_tell_nothing(version: int, flags: str) -> None:
    segment = TCP(sport=80, dport=40000, flags=flags, seq=RUN.sequence(5), ack=RUN.sequence(5) + 1)
    assert at_sender(version, back(version) / segment) is None


@BOTH
def test_a_udp_answer_has_a_mark_of_its_own(version: int) -> None:
    answer = UDP(sport=80, dport=40000) / Raw(RUN.payload(1, 2, INDEX, ANSWER))
    assert at_sender(version, back(version) / answer) == Sighting(REPLY, INDEX, packed(B[version]))


@BOTH
@EACH
def test_an_icmp_error_is_about_the_probe_that_it_quotes(protocol: str, version: int) -> None:
    quote = Raw(probe(protocol, version))
    error = ICMP(type=3, code=13) / quote if version == 4 else ICMPv6DestUnreach(code=1) / quote
    expected = Sighting(ICMP_ERROR, INDEX, packed(ROUTER[version]), (3, 13) if version == 4 else (1, 1))
    assert at_sender(version, back(version, ROUTER[version]) / error) == expected


@BOTH
def test_a_tcp_probe_is_known_from_the_least_quote_that_the_rfc_allows(version: int) -> None:
    quote = Raw(probe("tcp", version)[: (20 if version == 4 else 40) + 8])
    error = ICMP(type=3, code=3) / quote if version == 4 else ICMPv6DestUnreach(code=4) / quote
    seen = at_sender(version, back(version) / error)
    assert seen is not None
    assert (seen.kind, seen.check) == (ICMP_ERROR, INDEX)


@BOTH
@EACH
def test_a_cut_packet_is_no_sighting_and_no_crash(protocol: str, version: int) -> None:
    whole = probe(protocol, version)
    least = len(whole) if protocol != "tcp" else (20 if version == 4 else 40) + 20
    for length in range(least):
        assert decode(version, RUN, {packed(B[version])}, whole[:length]) is None


@given(st.sampled_from([4, 6]), st.binary(max_size=120))
def test_noise_is_no_sighting_and_no_crash(version: int, noise: bytes) -> None:
    at = slice(16, 20) if version == 4 else slice(24, 40)
    decode(version, RUN, {noise[at]}, noise)
