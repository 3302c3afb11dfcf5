"""From what was seen of a check to its verdict. Pure."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

__all__ = ["Evidence", "icmp_error", "judge"]

# A full neighbour queue or socket buffer is podnet's trouble, and so is whatever is not listed here.
_NO_WAY_OUT = {
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.EACCES,  # a prohibit route
    errno.EINVAL,  # a blackhole route
    errno.EPERM,  # a drop rule in the sender's own output hook
}

_V4_UNREACHABLE = {
    0: "network unreachable",
    1: "host unreachable",
    2: "protocol unreachable",
    3: "port unreachable",
    4: "fragmentation needed",
    9: "network prohibited",
    10: "host prohibited",
    13: "administratively prohibited",
}
_V6_UNREACHABLE = {
    0: "no route",
    1: "administratively prohibited",
    2: "beyond scope of source",
    3: "address unreachable",
    4: "port unreachable",
    5: "source address failed policy",
    6: "reject route",
}


@dataclass(slots=True)
class Evidence:
    """All that was seen of one check; times are nanoseconds since the epoch, 0 for never.

    ``failure`` says why podnet itself could not do its part, ``unproven`` why silence proves nothing. ``send_errno``
    is the last refusal of the sender's kernel to send, 0 once a packet went out. ``attempts`` counts the packets that
    went out, ``sent`` is the last. ``echo_errno`` is what kept our own UDP listener from answering.
    """

    attempts: int = 0
    sent: int = 0
    arrived: int = 0
    echoed: int = 0
    answered: int = 0
    source_seen: str = ""
    reply: bool = False
    reset: bool = False
    error: str = ""
    refused: bool = False
    reporter: str = ""
    ttl: int = 0
    send_errno: int = 0
    echo_errno: int = 0
    failure: str = ""
    unproven: str = ""

    @property
    def settled(self) -> bool:
        """Whether sending the probe again can tell nothing new."""
        return self.reply or self.reset or bool(self.error) or bool(self.failure)

    @property
    def rtt_ms(self) -> float | None:
        """Milliseconds on the way; the time that our own UDP listener took to answer is not part of it.

        ``None`` after a second attempt: which one was answered is not known (Karn's algorithm, RFC 6298).
        """
        if not self.answered or self.attempts > 1:
            return None
        inside = self.echoed - self.arrived if self.echoed and self.arrived else 0
        return max(0, self.answered - self.sent - inside) / 1e6


def icmp_error(version: int, kind: int, code: int, reporter: str) -> tuple[bool, str]:
    """Whether an ICMP error refuses the packet, and what it says in words.

    Time exceeded, packet too big and parameter problem refuse nothing: the packet was lost, and this is why.
    """
    if kind == (3 if version == 4 else 1):
        names = _V4_UNREACHABLE if version == 4 else _V6_UNREACHABLE
        return not (version == 4 and code == 4), f"ICMP {names.get(code, f'unreachable, code {code}')} from {reporter}"
    lost = {
        4: {11: "time exceeded (a routing loop?)", 12: "parameter problem"},
        6: {2: "packet too big", 3: "time exceeded (a routing loop?)", 4: "parameter problem"},
    }
    return False, f"ICMP {lost[version].get(kind, f'type {kind}')} from {reporter}"


def judge(evidence: Evidence, *, silent_means_reach: bool, remark: str = "") -> tuple[str, str]:
    """The verdict (reach, refuse, drop, unproven) and what has to be said about it, maybe nothing.

    ``silent_means_reach``: a UDP port whose program may well not answer is reached if the packet arrived and no
    ICMP error came back. ``remark`` says what else may have caused silence in this run.
    """
    e = evidence
    but = f"; {remark}" if remark else ""
    if e.failure:
        return "unproven", e.failure
    if e.reset:
        return "refuse", "TCP reset" if e.arrived else "TCP reset, never arrived"
    if e.error:
        return ("refuse" if e.refused else "drop"), e.error
    if e.unproven:
        return "unproven", e.unproven
    if e.reply:
        if not e.arrived:
            return "drop", "never arrived, yet somebody answered: another host has or takes the receiver's address"
        return "reach", ""
    if e.arrived:
        if silent_means_reach:
            return "reach", f"arrived, no answer{but}"
        if e.echo_errno:
            return "drop", f"arrived, the receiver could not answer: {os.strerror(e.echo_errno)}"
        return "drop", f"arrived, no reply came back{but}"
    if e.send_errno:
        return _unsent(e.send_errno)
    return "drop", f"never arrived{but}"


def _unsent(number: int) -> tuple[str, str]:
    reason = os.strerror(number)
    if number in _NO_WAY_OUT:
        return "drop", f"never left: {reason}"
    if number == errno.ENOBUFS:
        reason += "; is the neighbour table full? (sysctl net.ipv4.neigh.default.gc_thresh3, ipv6 likewise)"
    return "unproven", f"could not be sent: {reason}"
