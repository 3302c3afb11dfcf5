"""What is checked by packets, and what the packets showed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Check", "Result"]


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation about one kind of packet from one sender to one receiver.

    ``port`` is 0 for ICMP, and for TCP and UDP where the engine listens on a free port itself (``listen``).
    ``seen`` is the sender's address that the receiver must see: ``own``, ``node``, an address, or ``any``.
    ``line`` is the line of the ``expect`` entry in the file, 0 for what the model says.
    """

    source: str
    target: str
    protocol: str  # icmp | tcp | udp
    version: int  # 4 | 6
    port: int = 0
    verdict: str = "reach"  # reach | refuse | drop
    seen: str = "own"
    listen: bool = True
    origin: str = "model"  # model | file
    line: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one check; ``rtt_ms`` is milliseconds from the packet out to its answer back.

    ``source_seen`` is the sender's address in the packet that arrived at the receiver, empty if none did.
    ``error`` means that podnet could not send or could not listen: it says nothing about the network.
    """

    check: Check
    observed: str  # reach | refuse | drop | error
    source_seen: str
    passed: bool
    rtt_ms: float | None
    detail: str
