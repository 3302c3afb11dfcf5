"""The SYN-ACK of podnet's own end, as scapy makes it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from test_probe_filter import accepts

from podnet.probe.filter import syns
from podnet.probe.stamp import Run
from podnet.probe.watch.answerer import syn_ack

PORT = st.integers(1, 65535)
NUMBER = st.integers(0, 2**32 - 1)


@given(PORT, PORT, NUMBER, NUMBER, st.sampled_from([4, 6]))
def test_it_has_the_right_numbers_and_checksum(here: int, there: int, number: int, asked: int, version: int) -> None:
    own, peer = ("10.0.0.1", "10.9.255.254") if version == 4 else ("fd00::1", "fd00:9::ffff:fffe")
    network = (IP if version == 4 else IPv6)(src=own, dst=peer)
    segment = TCP(sport=here, dport=there, seq=number, ack=(asked + 1) % 2**32, flags="SA", window=64240)
    made = syn_ack((ip_address(own).packed, ip_address(peer).packed), (here, there), number, asked)
    assert made == bytes(network / segment)[-20:]


@pytest.mark.parametrize("version", [4, 6])
def test_only_the_runs_syns_to_the_port_are_heard(version: int) -> None:
    program = syns(version, Run(0xAB000001), 81)

    def heard(port: int = 81, flags: str = "S", sequence: int = 0xAB000007) -> bool:
        segment = bytes(TCP(sport=1, dport=port, seq=sequence, flags=flags))
        return accepts(program, bytes(IP() / segment) if version == 4 else segment)  # as raw sockets are given it

    assert heard()
    assert not heard(port=82)
    assert not heard(flags="SA")
    assert not heard(flags="R")
    assert not heard(sequence=0xAC000007)
