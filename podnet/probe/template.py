"""Probes as bytes: each kind was crafted by scapy, then addresses, ports, marks and checksums are patched.

scapy builds about 1,000 packets a second, patching the bytes of one does two million. The crafted bytes are kept
here, since importing scapy takes as long as 10,000 probes; a test crafts them anew and compares. scapy is never asked
for a route: it knows those of the namespace that it was imported in.
"""

from __future__ import annotations

import logging
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from podnet.probe.sctp import init
from podnet.probe.stamp import SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podnet.probe.stamp import Run

__all__ = ["Aim", "Template", "Templates", "crafted"]

_NUMBERS = {("icmp", 4): 1, ("icmp", 6): 58, ("tcp", 4): 6, ("tcp", 6): 6, ("udp", 4): 17, ("udp", 6): 17} | {
    ("sctp", version): 132 for version in (4, 6)
}

# What ``crafted`` gives between two addresses of zeros, without addresses and marks: the IP header up to there, then
# what is not patched of the next header. Checked by tests/unit/probe/test_probe_template.py.
_IP = {
    ("icmp", 4): bytes.fromhex("4500002c0000400040010000"),
    ("tcp", 4): bytes.fromhex("450000280000400040060000"),
    ("udp", 4): bytes.fromhex("4500002c0000400040110000"),
    ("icmp", 6): bytes.fromhex("6000000000183a40"),
    ("tcp", 6): bytes.fromhex("6000000000140640"),
    ("udp", 6): bytes.fromhex("6000000000181140"),
    ("sctp", 4): bytes.fromhex("450000340000400040840000"),
    ("sctp", 6): bytes.fromhex("6000000000208440"),
}
_ECHO = {4: 0x0800, 6: 0x8000}  # type and code
_SYN, _WINDOW = 0x5002, 0xFAF0  # five words of header, the flag; 64,240 bytes


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
    if protocol == "sctp":
        from scapy.layers.sctp import SCTP, SCTPChunkInit

        chunk = SCTPChunkInit(
            init_tag=sequence, a_rwnd=65535, n_out_streams=1, n_in_streams=1, init_tsn=run.number, params=[]
        )
        return bytes(network / SCTP(sport=first, dport=second) / chunk)
    if protocol == "udp":
        return bytes(network / UDP(sport=first, dport=second) / Raw(payload))
    if version == 4:
        return bytes(network / ICMP(type=8, id=first, seq=second) / Raw(payload))
    return bytes(network / ICMPv6EchoRequest(id=first, seq=second, data=payload))


class Aim(NamedTuple):
    """A receiver's address in the forms that a probe needs; ``sum`` is that of its 16-bit words."""

    text: str
    packed: bytes
    sum: int
    sockaddr: bytes  # struct sockaddr_in, struct sockaddr_in6

    @classmethod
    def at(cls, text: str) -> Aim:
        """An address given as text."""
        family = socket.AF_INET6 if ":" in text else socket.AF_INET
        packed = socket.inet_pton(family, text)
        if family == socket.AF_INET:
            name = struct.pack("=HH4s8x", family, 0, packed)
        else:
            name = struct.pack("=HHI16sI", family, 0, 0, packed, 0)
        return cls(text, packed, _sum(packed), name)


def _sum(data: bytes) -> int:
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


class Template:
    """One kind of probe; ``fill`` writes it for many receivers."""

    def __init__(self, protocol: str, version: int, run: Run) -> None:
        self.protocol, self.version = protocol, version
        header = bytearray(_IP[protocol, version])
        if version == 4:
            header[4:6] = run.identification.to_bytes(2, "big")
        else:
            header[1:4] = run.flow_label.to_bytes(3, "big")
        self._header = bytes(header)
        self._run = run
        self._marks = run.payload(0, 0, 0)[:8]
        size = 4 if version == 4 else 16
        rest = {"icmp": "HHHH8sHHI", "udp": "HHHH8sHHI", "tcp": "HHIIHHHH", "sctp": "32s"}[protocol]
        self._struct = struct.Struct(f"!{len(header) + size}s{size}s{rest}")
        self.size = self._struct.size
        length = self.size - len(header) - 2 * size
        # The pseudo header is summed up by its words; ICMP for IPv4 has none (RFC 792).
        self._pseudo = 0 if (protocol, version) == ("icmp", 4) else length + _NUMBERS[protocol, version]
        self._name = 16 if version == 4 else 28
        self._fixed = {
            "icmp": _ECHO[version] + run.identification + _sum(self._marks),
            "udp": length + _sum(self._marks),
            "tcp": _SYN + _WINDOW + (run.sequence_byte << 8),
            "sctp": 0,
        }[protocol]

    @property
    def name_size(self) -> int:
        """Bytes of a destination for ``sendmmsg``."""
        return self._name

    def fill(
        self,
        packets: memoryview,
        names: memoryview,
        origin: tuple[int, bytes, int],
        indexes: Sequence[int],
        targets: Sequence[int],
        aims: Sequence[Aim] | Mapping[int, Aim],
        ports: Sequence[int],
    ) -> None:
        """Write one probe after the other, and its destination.

        ``origin`` is the sender's number, packed address and port. ``indexes`` are the checks, ``targets`` the
        receivers' numbers by check, ``aims`` and ``ports`` their addresses and ports by number. The checksum of
        an IPv4 header is left to the kernel, which fills it in in any case (raw(7)).
        """
        write = {"icmp": self._icmp, "udp": self._udp, "tcp": self._tcp, "sctp": self._sctp}[self.protocol]
        number, source, port = origin
        head = self._header + source
        base = self._fixed + self._pseudo + (_sum(source) if self._pseudo else 0)
        reached = [targets[index] for index in indexes]
        write(packets, head, base, number, port, list(zip(indexes, reached, strict=True)), aims, ports)
        names[: len(reached) * self._name] = b"".join([aims[target].sockaddr for target in reached])

    def _icmp(
        self, out: memoryview, head: bytes, base: int, number: int, _: int,
        rows: list[tuple[int, int]], aims: Sequence[Aim] | Mapping[int, Aim], __: Sequence[int],
    ) -> None:  # fmt: skip
        pack, size, marks, at = self._struct.pack_into, self.size, self._marks, 0
        kind, identifier = _ECHO[self.version], self._run.identification
        base += number
        for index, target in rows:
            aim, low = aims[target], index & 0xFFFF
            total = base + target + 2 * low + (index >> 16) + (aim.sum if self._pseudo else 0)
            pack(
                out, at, head, aim.packed, kind, -total % 0xFFFF, identifier, low, marks, number, target, index
            )  # fmt: skip
            at += size

    def _udp(
        self, out: memoryview, head: bytes, base: int, number: int, port: int,
        rows: list[tuple[int, int]], aims: Sequence[Aim] | Mapping[int, Aim], ports: Sequence[int],
    ) -> None:  # fmt: skip
        pack, size, marks, at = self._struct.pack_into, self.size, self._marks, 0
        length = 24  # of header and stamp
        base += number + port
        for index, target in rows:
            aim, there = aims[target], ports[target]
            total = base + aim.sum + there + target + (index & 0xFFFF) + (index >> 16)
            # 0 means "no checksum" (RFC 768)
            pack(
                out, at, head, aim.packed, port, there, length, -total % 0xFFFF or 0xFFFF, marks, number, target, index
            )  # fmt: skip
            at += size

    def _tcp(
        self, out: memoryview, head: bytes, base: int, _: int, port: int,
        rows: list[tuple[int, int]], aims: Sequence[Aim] | Mapping[int, Aim], ports: Sequence[int],
    ) -> None:  # fmt: skip
        pack, size, at = self._struct.pack_into, self.size, 0
        first = self._run.sequence(0)
        base += port
        for index, target in rows:
            aim, there = aims[target], ports[target]
            total = base + aim.sum + there + (index & 0xFFFF) + (index >> 16)
            pack(
                out, at, head, aim.packed, port, there, first | index, 0, _SYN, _WINDOW, -total % 0xFFFF, 0
            )  # fmt: skip
            at += size

    def _sctp(
        self, out: memoryview, head: bytes, _: int, __: int, port: int,
        rows: list[tuple[int, int]], aims: Sequence[Aim] | Mapping[int, Aim], ports: Sequence[int],
    ) -> None:  # fmt: skip
        first = self._run.sequence(0)
        for at, (index, target) in enumerate(rows):
            segment = init((port, ports[target]), first | index, self._run.number)
            self._struct.pack_into(out, at * self.size, head, aims[target].packed, segment)


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
