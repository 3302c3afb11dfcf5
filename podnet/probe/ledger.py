"""What was seen of each check of a run: columns of numbers, so that a million checks cost 40 MB."""

from __future__ import annotations

import threading
from array import array
from ipaddress import ip_address

from podnet.probe.verdict import Evidence

__all__ = ["BY_LINK", "ERROR", "FAILED", "REPLIED", "RESETTED", "SILENT", "Ledger"]

# Bits of ``state``; a check is settled by any of them: sending it again can tell nothing new.
REPLIED, RESETTED, ERROR, FAILED = 1, 2, 4, 8
# No news at the end of a conversation, which is not to be begun again.
SILENT = 16
# The reply is one of ARP or ND: that it came is not all there is to judge.
BY_LINK = 32


class Ledger:
    """The evidence of a run by the number of the check; fields as those of ``Evidence``.

    Several threads write: each column of one check is written by whoever saw the packet, and the first wins.
    """

    def __init__(self, size: int) -> None:
        self.state = bytearray(size)
        self.attempts = bytearray(size)
        self.send_errno = bytearray(size)
        self.ttl = bytearray(size)
        self.sent, self.arrived, self.answered = (array("q", bytes(8 * size)) for _ in range(3))
        self.seen = array("I", bytes(4 * size))  # number of an address, 0 for none
        self.echoed: dict[int, int] = {}
        self.echo_errno: dict[int, int] = {}
        self.errors: dict[int, tuple[bool, str, str]] = {}
        self.failures: dict[int, str] = {}
        self.unproven: dict[int, str] = {}
        self.macs: dict[int, list[str]] = {}  # whose link-layer addresses answered for one of IP, in order
        self._addresses: dict[bytes, int] = {}
        self._texts = [""]
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.state)

    def number(self, address: bytes) -> int:
        """The number of a packed address, from 1."""
        number = self._addresses.get(address)
        if number is None:
            with self._lock:
                number = self._addresses.setdefault(address, len(self._texts))
                if number == len(self._texts):
                    self._texts.append(str(ip_address(address)))
        return number

    def text(self, number: int) -> str:
        """The address of a number, in canonical text."""
        return self._texts[number]

    def fail(self, index: int, why: str) -> None:
        """Note that podnet itself could not do its part."""
        self.failures[index] = why
        self.state[index] |= FAILED

    def refuse(self, index: int, *, refused: bool, text: str, reporter: str) -> None:
        """Note an ICMP error; ``refused`` tells whether it refuses, or only tells of a loss."""
        self.errors[index] = (refused, text, reporter)
        self.state[index] |= ERROR

    def open(self) -> int:
        """How many checks have no answer yet."""
        return self.state.count(0)

    def evidence(self, index: int) -> Evidence:
        """All that is known of one check."""
        state = self.state[index]
        refused, error, reporter = self.errors.get(index, (False, "", ""))
        return Evidence(
            attempts=self.attempts[index],
            sent=self.sent[index],
            arrived=self.arrived[index],
            echoed=self.echoed.get(index, 0),
            answered=self.answered[index],
            source_seen=self._texts[self.seen[index]],
            reply=bool(state & REPLIED),
            reset=bool(state & RESETTED),
            error=error,
            refused=refused,
            reporter=reporter,
            ttl=self.ttl[index],
            send_errno=self.send_errno[index],
            echo_errno=self.echo_errno.get(index, 0),
            failure=self.failures.get(index, ""),
            unproven=self.unproven.get(index, ""),
        )
