"""Probes as bytes: each kind is crafted once by scapy, then addresses, ports, marks and checksums are patched.

scapy builds about 1,000 packets a second, patching the bytes of one does 200,000. scapy is imported by
``Templates`` only, and never asked for a route: it knows those of the namespace that it was imported in.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from podnet.probe.checksum import complement
from podnet.probe.stamp import SIZE

if TYPE_CHECKING:
    from podnet.probe.stamp import Run

__all__ = ["Template", "Templates", "crafted"]

_NUMBERS = {("icmp", 4): 1, ("icmp", 6): 58, ("tcp", 4): 6, ("tcp", 6): 6, ("udp", 4): 17, ("udp", 6): 17}
_CHECKSUM_AT = {"icmp": 2, "tcp": 16, "udp": 6}


def crafted(
    protocol: str,
    version: int,
    run: Run,
    *,
    source: str,
    target: str,
    ports: tuple[int, int] = (0, 0),
    sequence: int = 0,
    payload: bytes = bytes(SIZE),
) -> bytes:
    """One probe as scapy builds it; ``ports`` is (source, destination), for ICMP (identifier, sequence)."""
    logging.getLogger("scapy").setLevel(logging.CRITICAL)  # "No route found": a pod without one is what we test
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
    from scapy.packet import Raw

    if version == 4:
        # Never fragmented: the identification is then free to be a mark (RFC 6864).
        network = IP(src=source, dst=target, id=run.identification, flags="DF", ttl=64)
    else:
        network = IPv6(src=source, dst=target, fl=run.flow_label, hlim=64)
    first, second = ports
    if protocol == "tcp":
        return bytes(network / TCP(sport=first, dport=second, seq=sequence, flags="S", window=64240))
    if protocol == "udp":
        return bytes(network / UDP(sport=first, dport=second) / Raw(payload))
    if version == 4:
        return bytes(network / ICMP(type=8, id=first, seq=second) / Raw(payload))
    return bytes(network / ICMPv6EchoRequest(id=first, seq=second, data=payload))


class Template:
    """One kind of probe; ``packet`` gives it for a sender and a receiver."""

    def __init__(self, protocol: str, version: int, run: Run) -> None:
        nowhere = "0.0.0.0" if version == 4 else "::"
        packet = bytearray(crafted(protocol, version, run, source=nowhere, target=nowhere))
        self._version = version
        self._l4 = l4 = 20 if version == 4 else 40
        self._addresses = 12 if version == 4 else 8
        self._checksum_at = l4 + _CHECKSUM_AT[protocol]
        self._protocol = protocol
        self._ports_at = l4 + (4 if protocol == "icmp" else 0)
        self._payload_at = None if protocol == "tcp" else l4 + 8
        # The pseudo header is summed up by its words; ICMP for IPv4 has none (RFC 792).
        self._pseudo = 0 if (protocol, version) == ("icmp", 4) else len(packet) - l4 + _NUMBERS[protocol, version]
        self._with_addresses = (protocol, version) != ("icmp", 4)
        packet[self._checksum_at : self._checksum_at + 2] = b"\0\0"
        if version == 4:
            packet[10:12] = b"\0\0"
        self._packet = packet

    def packet(self, source: bytes, target: bytes, ports: tuple[int, int], sequence: int, payload: bytes) -> bytes:
        """The probe between two packed addresses; arguments as for ``crafted``."""
        packet, l4, at = self._packet, self._l4, self._ports_at
        addresses = source + target
        packet[self._addresses : l4] = addresses
        packet[at : at + 4] = (ports[0] << 16 | ports[1]).to_bytes(4, "big")
        if self._payload_at is None:
            packet[l4 + 4 : l4 + 8] = sequence.to_bytes(4, "big")
        else:
            packet[self._payload_at :] = payload
        at = self._checksum_at
        packet[at : at + 2] = b"\0\0"
        total = self._pseudo + int.from_bytes(packet[l4:], "big")
        if self._with_addresses:
            total += int.from_bytes(addresses, "big")
        value = complement(total)
        if value == 0 and self._protocol == "udp":
            value = 0xFFFF  # 0 means "no checksum" (RFC 768)
        packet[at : at + 2] = value.to_bytes(2, "big")
        if self._version == 4:
            packet[10:12] = b"\0\0"
            packet[10:12] = complement(int.from_bytes(packet[:20], "big")).to_bytes(2, "big")
        return bytes(packet)


class Templates:
    """The templates of one run, each made when it is first asked for."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._made: dict[tuple[str, int], Template] = {}

    def of(self, protocol: str, version: int) -> Template:
        """The template of a protocol and an IP version."""
        template = self._made.get((protocol, version))
        if template is None:
            template = self._made[protocol, version] = Template(protocol, version, self._run)
        return template
