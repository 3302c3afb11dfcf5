"""Packets for replaying a probe, and frames as they are seen on a device. Pure: bytes and named tuples.

Each packet carries a token of its own, whatever happens to its addresses: ICMP and UDP as payload, TCP as sequence
number. scapy is not used: importing it takes longer than a whole diagnosis.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

__all__ = ["ARP", "ERROR", "REPLY", "REQUEST", "RESET", "Frame", "answer_to", "crafted", "parsed"]

REQUEST, REPLY, RESET, ERROR, ARP = "request", "reply", "reset", "error", "arp"

_MAGIC, _ANSWER = b"pdnW", b"pdnw"
_PROTOCOLS = {("icmp", 4): 1, ("icmp", 6): 58, ("tcp", 4): 6, ("tcp", 6): 6, ("udp", 4): 17, ("udp", 6): 17}
_CHECKSUM_AT = {"icmp": 2, "tcp": 16, "udp": 6}
_LEAST_TAIL = 8


class Frame(NamedTuple):
    """What one frame is to a diagnosis.

    ``token`` says which replayed packet it belongs to, 0 for ARP and neighbour discovery, where ``asked`` is the
    address looked for, ``told`` the MAC in an answer (empty in a question). ``error`` is an ICMP error's (type,
    code, MTU); ``length`` is bytes from the IP header on. MACs are empty where a device has none.
    """

    kind: str
    token: int = 0
    source: str = ""
    destination: str = ""
    source_mac: str = ""
    destination_mac: str = ""
    ttl: int = 0
    length: int = 0
    error: tuple[int, int, int] = (0, 0, 0)
    asked: str = ""
    told: str = ""


def crafted(protocol: str, source: str, destination: str, ports: tuple[int, int], token: int, size: int = 0) -> bytes:
    """A packet from its IP header on; ``size`` in bytes of the whole packet, not less than the token needs.

    ``ports`` is (source, destination), for ICMP (identifier, sequence).
    """
    version = 6 if ":" in destination else 4
    header = 40 if version == 6 else 20
    l4 = 20 if protocol == "tcp" else 8
    tail = b"" if protocol == "tcp" else _MAGIC + token.to_bytes(4, "big")
    tail += bytes(max(0, size - header - l4 - len(tail)))
    if protocol == "tcp":
        body = struct.pack("!HHIIBBHHH", *ports, token, 0, 5 << 4, 0x02, 64240, 0, 0) + tail
    elif protocol == "udp":
        body = struct.pack("!HHHH", *ports, 8 + len(tail), 0) + tail
    else:
        body = struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, *ports) + tail
    return _wrapped(protocol, source, destination, body, version)


def answer_to(payload: bytes) -> bytes:
    """What a UDP listener sends back, empty where the payload is none of ours."""
    return _ANSWER + payload[4:8] if payload[:4] == _MAGIC and len(payload) >= _LEAST_TAIL else b""


def _wrapped(protocol: str, source: str, destination: str, body: bytes, version: int) -> bytes:
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    number = _PROTOCOLS[protocol, version]
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    pseudo = b"" if (protocol, version) == ("icmp", 4) else addresses + struct.pack("!IBBH", len(body), 0, 0, number)
    at = _CHECKSUM_AT[protocol]
    value = _complement(_words(pseudo) + _words(body)) or 0xFFFF
    body = body[:at] + value.to_bytes(2, "big") + body[at + 2 :]
    if version == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), number, 64) + addresses + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0x7077, 0x4000, 64, number, 0) + addresses
    return head[:10] + _complement(_words(head)).to_bytes(2, "big") + head[12:] + body


def _complement(total: int) -> int:
    """The Internet checksum (RFC 1071) of data whose 16-bit words, or whole number, add up to ``total``."""
    return -total % 0xFFFF


def _words(data: bytes) -> int:
    return int.from_bytes(data + b"\0" * (len(data) % 2), "big")


def parsed(data: bytes, *, ethernet: bool) -> Frame | None:
    """The frame in captured bytes, ``None`` where it is no business of a replay."""
    source_mac = destination_mac = ""
    if ethernet:
        if len(data) < 14:
            return None
        destination_mac, source_mac = data[:6].hex(":"), data[6:12].hex(":")
        kind, data = int.from_bytes(data[12:14], "big"), data[14:]
        if kind == 0x0806:
            return _arp(data, source_mac, destination_mac)
        if kind not in (0x0800, 0x86DD):
            return None
    packet = _ip(data)
    if packet is None:
        return None
    protocol, source, destination, ttl, length, l4 = packet
    frame = _discovery(data[l4:]) if protocol == 58 else None
    frame = frame or _ours(protocol, data, l4)
    if frame is None:
        return None
    return frame._replace(
        source=source, destination=destination, ttl=ttl, length=length,
        source_mac=source_mac, destination_mac=destination_mac,
    )  # fmt: skip


def _ip(data: bytes) -> tuple[int, str, str, int, int, int] | None:
    """(protocol, source, destination, TTL, length, where the payload begins) of an IP packet."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        addresses = socket.inet_ntop(socket.AF_INET, data[12:16]), socket.inet_ntop(socket.AF_INET, data[16:20])
        return data[9], *addresses, data[8], int.from_bytes(data[2:4], "big"), (data[0] & 15) * 4
    if len(data) >= 40 and data[0] >> 4 == 6:
        addresses = socket.inet_ntop(socket.AF_INET6, data[8:24]), socket.inet_ntop(socket.AF_INET6, data[24:40])
        return data[6], *addresses, data[7], 40 + int.from_bytes(data[4:6], "big"), 40
    return None


def _arp(data: bytes, source_mac: str, destination_mac: str) -> Frame | None:
    if len(data) < 28 or data[:6] != b"\0\1\x08\0\6\4":
        return None
    question = data[7] == 1
    sender, target = socket.inet_ntop(socket.AF_INET, data[14:18]), socket.inet_ntop(socket.AF_INET, data[24:28])
    return Frame(
        ARP, source=sender, destination=target, source_mac=source_mac, destination_mac=destination_mac,
        asked=target if question else sender, told="" if question else data[8:14].hex(":"),
    )  # fmt: skip


def _discovery(body: bytes) -> Frame | None:
    """Neighbour solicitation and advertisement (RFC 4861)."""
    if len(body) < 24 or body[0] not in (135, 136):
        return None
    asked = socket.inet_ntop(socket.AF_INET6, body[8:24])
    told = body[26:32].hex(":") if body[0] == 136 and body[24:26] == b"\2\1" else ""
    return Frame(ARP, asked=asked, told=told or ("?" if body[0] == 136 else ""))


def _ours(protocol: int, data: bytes, l4: int) -> Frame | None:
    body = data[l4:]
    if protocol == 6 and len(body) >= 20:
        flags = body[13] & 0x17
        if flags == 0x02:
            return Frame(REQUEST, int.from_bytes(body[4:8], "big"))
        if flags in (0x12, 0x14, 0x04):
            kind = REPLY if flags == 0x12 else RESET
            return Frame(kind, (int.from_bytes(body[8:12], "big") - 1) & 0xFFFFFFFF)
        return None
    if protocol == 17:
        return _stamped(body[8:])
    if protocol not in (1, 58) or len(body) < 8:
        return None
    if body[0] in ((8, 0) if protocol == 1 else (128, 129)):
        frame = _stamped(body[8:])
        answer = body[0] in (0, 129)
        return frame._replace(kind=REPLY if answer else REQUEST) if frame else None
    if body[0] in ((3, 11, 12) if protocol == 1 else (1, 2, 3, 4)):
        token = _quoted(body[8:])
        mtu = int.from_bytes(body[6:8] if protocol == 1 else body[4:8], "big")
        return None if token is None else Frame(ERROR, token, error=(body[0], body[1], mtu))
    return None


def _stamped(payload: bytes) -> Frame | None:
    if len(payload) < _LEAST_TAIL or payload[:4] not in (_MAGIC, _ANSWER):
        return None
    return Frame(REQUEST if payload[:4] == _MAGIC else REPLY, int.from_bytes(payload[4:8], "big"))


def _quoted(quote: bytes) -> int | None:
    """The token of the packet that an ICMP error quotes: of a request, or of the answer to one."""
    packet = _ip(quote)
    if packet is None:
        return None
    protocol, l4 = packet[0], packet[5]
    frame = _ours(protocol, quote[: l4 + 28], l4) if protocol != 6 or len(quote) >= l4 + 20 else None
    return frame.token if frame and frame.kind != ERROR else None
