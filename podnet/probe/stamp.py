"""The mark that every probe carries, so that it is recognised whatever happens to its addresses and ports.

ICMP and UDP carry a stamp as their payload. A TCP SYN carries none, because data on a SYN is dropped or
delayed by many a stack and filter: its sequence number is the mark. NAT may rewrite addresses, and the source
port where two senders clash behind one address, but it leaves the payload and the sequence number alone.
The IP identification (flow label for IPv6) repeats the run, so that an ICMP error, which quotes the header of
the packet that it is about, is known as ours before its quote is read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["ANSWER", "MAX_CHECKS", "REQUEST", "SIZE", "STAMP", "Run"]

REQUEST = b"pdnQ"
ANSWER = b"pdnA"

# magic, run, index of the sender, index of the receiver, index of the check
STAMP = struct.Struct("!4sIHHI")
SIZE = STAMP.size

# The sequence number holds 8 bits of the run and 24 bits of the index; the last index is left out so that
# "plus one", as acknowledged by the receiver, never carries into the run's bits.
MAX_CHECKS = (1 << 24) - 1


@dataclass(frozen=True, slots=True)
class Run:
    """One run's identity: 32 random bits, from which the marks of all layers are taken."""

    number: int

    @property
    def identification(self) -> int:
        """16 bits, not 0: the kernel fills in an IP identification of 0 by itself (raw(7))."""
        return (self.number & 0xFFFF) or 1

    @property
    def flow_label(self) -> int:
        """20 bits."""
        return self.number & 0xFFFFF

    @property
    def sequence_byte(self) -> int:
        """The upper 8 bits of every TCP sequence number of the run."""
        return self.number >> 24

    def sequence(self, index: int) -> int:
        """The TCP sequence number of a check."""
        return self.sequence_byte << 24 | index

    def payload(self, source: int, target: int, index: int, magic: bytes = REQUEST) -> bytes:
        """The stamp of a check."""
        return STAMP.pack(magic, self.number, source, target, index)
