"""What was seen of one replayed packet, in the order of time. Pure data."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import NamedTuple

from podnet.diagnose.packet import ERROR, REPLY, REQUEST, RESET, Frame
from podnet.kernel.nftrace import RuleTrace
from podnet.kernel.tracefs import Drop

__all__ = ["IN", "OUT", "Met", "Sighting", "Subject", "Trail"]

IN, OUT = "in", "out"
_OTHERHOST = 3


class Subject(NamedTuple):
    """What is asked: a packet of a protocol (icmp, tcp, udp) from one target of the lab to another.

    ``port`` 0 stands for a port on which the replay listens itself. ``size`` is bytes of the whole packet, 0 for a
    small one. ``seen`` is the sender's address that the receiver should see (``Check.seen``). ``address`` is where the
    packet is sent instead of the target's own address: to a Service's, behind which the target is.
    """

    source: str
    target: str
    protocol: str
    version: int
    port: int = 0
    size: int = 0
    seen: str = "any"
    expected: str = "reach"
    address: str = ""


class Sighting(NamedTuple):
    """A frame on a device: ``at`` is nanoseconds, ``way`` ``in`` or ``out``, ``packet_type`` PACKET_* of packet(7)."""

    at: int
    netns: str
    dev: str
    way: str
    packet_type: int
    frame: Frame

    @property
    def for_others(self) -> bool:
        """Whether the frame's MAC is another host's."""
        return self.packet_type == _OTHERHOST


class Met(NamedTuple):
    """A rule that the packet met, and its text."""

    trace: RuleTrace
    text: str
    reply: bool


@dataclass(slots=True)
class Trail:
    """All that is known of one packet: ``send_errno`` is the sender's kernel's, ``source`` the address sent from."""

    subject: Subject
    source_netns: str
    target_netns: str
    source: str
    destination: str
    token: int
    send_errno: int = 0
    failure: str = ""
    length: int = 0
    sightings: list[Sighting] = field(default_factory=list)
    asked: list[Sighting] = field(default_factory=list)  # ARP and neighbour discovery meanwhile
    rules: list[Met] = field(default_factory=list)
    asking: list[tuple[bytes, Met]] = field(default_factory=list)  # rules that questions met: the address asked for
    drops: list[Drop] = field(default_factory=list)
    overflowed: bool = False  # the neighbour table, meanwhile

    def of(self, *kinds: str) -> list[Sighting]:
        """The sightings of some kinds of frame."""
        return [each for each in self.sightings if each.frame.kind in kinds]

    @property
    def requests(self) -> list[Sighting]:
        """The packet itself on its way."""
        return self.of(REQUEST)

    @property
    def answers(self) -> list[Sighting]:
        """What the receiver, or somebody in its place, answered."""
        return self.of(REPLY, RESET)

    @property
    def errors(self) -> list[Sighting]:
        """ICMP errors about the packet or its answer."""
        return self.of(ERROR)

    def asking_rules(self, hop: str) -> list[Met]:
        """The rules that questions for a next hop, and their answers, met."""
        packed = socket.inet_pton(socket.AF_INET6 if ":" in hop else socket.AF_INET, hop)
        # The trace holds the first 20 bytes of ICMPv6: 12 of the 16 of the address.
        return [met for asked, met in self.asking if packed.startswith(asked)]

    @property
    def arrived(self) -> Sighting | None:
        """Where the request reached its receiver's namespace, as a packet for that host."""
        seen = (s for s in self.requests if s.netns == self.target_netns and s.way == IN and not s.for_others)
        return next(seen, None)
