"""Causes as data: what is wrong, where, how one knows, how one sees it, and what would most likely mend it."""

from __future__ import annotations

from dataclasses import dataclass

from podnet.diagnose.trail import Trail

__all__ = ["KINDS", "Cause", "Diagnosis"]

# Every kind of cause that a diagnosis can name, in words.
KINDS = {
    "forwarding-off": "the namespace does not forward",
    "no-route": "no route",
    "blackhole-route": "a blackhole route swallows it",
    "unreachable-route": "an unreachable route refuses it",
    "prohibit-route": "a prohibit route refuses it",
    "wrong-next-hop": "a route leads to the wrong next hop",
    "wrong-prefix": "an address has the wrong prefix length",
    "address-missing": "an address is missing",
    "duplicate-address": "two have the same address",
    "wrong-mac": "a neighbour entry holds the wrong MAC",
    "arp-ignored": "a sysctl keeps ARP questions from being answered",
    "neighbour-table-full": "the kernel's neighbour table is full",
    "reverse-path": "the reverse-path filter drops it",
    "mtu": "a packet larger than the MTU, and the sender was told",
    "mtu-silent": "a packet larger than the MTU, and nobody told the sender",
    "rule-drop": "an nftables rule drops it",
    "rule-reject": "an nftables rule rejects it",
    "rule-reset": "an nftables rule answers it with a TCP reset",
    "nat-unexpected": "its source address is changed",
    "nat-missing": "its source address is not changed",
    "link-down": "a link is down",
    "link-gone": "a link is gone",
    "port-detached": "a port is not in its bridge",
    "port-disabled": "a bridge port does not forward",
    "port-isolated": "both bridge ports are isolated",
    "port-wrong": "a bridge has the MAC pinned at another port",
    "hairpin-off": "the bridge port does not send back what came from it",
    "port-closed": "nobody listens on the port",
    "icmp-ignored": "a sysctl keeps the receiver from answering ICMP echo",
    "namespace-gone": "the namespace is gone",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause. ``netns`` and ``what`` (a device, a prefix, an address, a rule) say where; ``text`` is a sentence.

    ``evidence`` are facts, one a line. ``show`` is a command that shows the cause, ``mend`` one that likely mends
    it, both for a shell and empty where there is none.
    """

    kind: str
    netns: str
    what: str
    text: str
    evidence: tuple[str, ...] = ()
    show: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What came of one subject: the cause, or ``None`` where the evidence suffices for none (``note`` says so).

    ``reply`` is whether the answer was lost, not the request. ``last`` is the last device that saw the packet;
    ``reasons`` are the kernel's own, as ``function: REASON``. ``passed`` is whether the replayed packet and its answer
    got through, so that there is nothing to explain (``note`` says so).
    """

    trail: Trail
    cause: Cause | None
    reply: bool = False
    last: str = ""
    reasons: tuple[str, ...] = ()
    note: str = ""
    passed: bool = False
