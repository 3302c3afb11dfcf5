"""What is checked by packets, and what the packets showed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bounds", "Check", "Result"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a check asks of packets that do get through; ``None`` or empty where it asks nothing.

    ``ttl`` is the TTL or hop limit that the receiver sees, ``via`` the nodes and routers that forward the packet, in
    order, ``mtu`` the largest IP packet that passes, in bytes. ``latency_ms`` bounds the median round trip,
    ``loss`` the lost share, 0 to 1. ``within`` is the time in seconds that the network has to become what is expected.
    """

    ttl: int | None = None
    via: tuple[str, ...] | None = None
    mtu: int | None = None
    latency_ms: float | None = None
    loss: float | None = None
    within: float = 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation about one kind of packet from one sender to one receiver.

    ``port`` is 0 for ICMP, ARP and ND, and for TCP and UDP where the engine listens on a free port itself (``listen``).
    ``seen`` is the sender's address that the receiver must see: ``own``, ``node``, an address, or ``any``.
    ``line`` is the line of the ``expect`` entry in the file, 0 for what the model says.
    """

    source: str
    target: str
    protocol: str  # icmp | tcp | udp | sctp | connect | http | dns | arp | nd
    version: int  # 4 | 6
    port: int = 0
    verdict: str = "reach"  # reach | refuse | drop
    seen: str = "own"
    listen: bool = True
    origin: str = "model"  # model | file
    line: int = 0
    bounds: Bounds | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one check; ``rtt_ms`` is milliseconds from the packet out to its answer back.

    ``source_seen`` is the sender's address in the packet that arrived at the receiver, empty if none did.
    ``unproven`` says nothing about the network: podnet could not send, could not listen, or cannot show that it
    would have seen what did not come. ``reporter`` is the address of the host that refused, or that told of the loss.
    """

    check: Check
    observed: str  # reach | refuse | drop | unproven
    source_seen: str
    passed: bool
    rtt_ms: float | None
    detail: str
    reporter: str = ""
    ttl: int = 0  # as the receiver saw it, 0 where nothing arrived
