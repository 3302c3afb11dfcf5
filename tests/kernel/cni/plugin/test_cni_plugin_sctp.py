"""SCTP by a host port: the packets of a handshake, made by scapy: a kernel may translate SCTP and yet not speak it."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from podnet.kernel.netns import open_socket

pytestmark = pytest.mark.kernel

SCTP = 132
VERIFY = 0xC11E47  # the initiate tag, by which the pod's answers are known to be this client's


def heard(sock: socket.socket) -> Any:
    """The next packet, from its IP header on, as scapy reads it."""
    from scapy.layers.inet import IP

    return IP(sock.recv(2048))


def checksum_holds(packet: Any) -> bool:
    """Whether the checksum (CRC32c, RFC 9260) is that of the packet as it came."""
    from scapy.layers.inet import IP

    anew = packet.copy()
    del anew["SCTP"].chksum
    return bool(IP(bytes(anew))["SCTP"].chksum == packet["SCTP"].chksum)


def test_an_association_begins_by_a_host_port(outside: Any, conf: dict[str, Any]) -> None:
    from scapy.layers import sctp

    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "sctp"}
    outside.add(conf | {"runtimeConfig": {"portMappings": [mapping]}})
    with (
        open_socket("c3", socket.AF_INET, socket.SOCK_RAW, SCTP) as client,
        open_socket("c1", socket.AF_INET, socket.SOCK_RAW, SCTP) as server,
    ):
        for sock in (client, server):
            sock.settimeout(10)
        # A raw socket sends what is behind the IP header.
        init = sctp.SCTP(sport=5555, dport=8080, tag=0) / sctp.SCTPChunkInit(init_tag=VERIFY, a_rwnd=65536)
        client.sendto(bytes(init), ("192.0.2.1", 0))
        seen = heard(server)
        assert (seen.src, seen.dst) == ("192.0.2.2", "10.1.2.2"), "the client's own address, the pod's"
        assert (seen["SCTP"].sport, seen["SCTP"].dport) == (5555, 80)
        assert seen["SCTPChunkInit"].init_tag == VERIFY
        assert checksum_holds(seen)
        answer = sctp.SCTP(sport=80, dport=5555, tag=VERIFY) / sctp.SCTPChunkInitAck(init_tag=7, a_rwnd=65536)
        server.sendto(bytes(answer), ("192.0.2.2", 0))
        back = heard(client)
        assert (back.src, back["SCTP"].sport, back["SCTP"].dport) == ("192.0.2.1", 8080, 5555), "from the host port"
        assert back["SCTPChunkInitAck"].init_tag == 7
        assert checksum_holds(back)
