"""The answers of podnet's own UDP listeners."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from podnet.probe.mmsg import Inbox
from podnet.probe.stamp import ANSWER, REQUEST, SIZE, STAMP

if TYPE_CHECKING:
    from podnet.probe.ledger import Ledger
    from podnet.probe.stamp import Run

__all__ = ["Echo"]

_COUNT = 128
_SLOT = 32  # bytes: a stamp, and enough to see that something is longer
_NAME = 28  # bytes of a struct sockaddr_in6; a sockaddr_in is shorter, and told by its family
_AF_INET = 2


class Echo:
    """Sends back what arrives at a listener, marked as an answer."""

    def __init__(self, ledger: Ledger, run: Run) -> None:
        self._ledger, self._run = ledger, run
        self._inbox = Inbox(_COUNT, _SLOT, _NAME)
        self._answers = {size: self._inbox.answers(SIZE, size) for size in (16, _NAME)}

    def answer(self, fd: int) -> None:
        """Answer all probes that wait at a listener."""
        while count := self._inbox.receive(fd):
            self._answer(fd, count)
            if count < _COUNT:
                return

    def _answer(self, fd: int, count: int) -> None:
        inbox, ledger, number = self._inbox, self._ledger, self._run.number
        size = 16 if int.from_bytes(bytes(inbox.names[:2]), "little") == _AF_INET else _NAME
        asked: list[int] = []
        for at in range(count):
            if inbox.length(at) != SIZE:
                continue
            magic, run, _, _, index = STAMP.unpack_from(inbox.packets, at * _SLOT)
            if magic != REQUEST or run != number or index >= len(ledger):
                continue
            if at != len(asked):  # something else came in between: close the gap
                to = len(asked)
                inbox.packets[to * _SLOT : to * _SLOT + SIZE] = inbox.packets[at * _SLOT : at * _SLOT + SIZE]
                inbox.names[to * _NAME : to * _NAME + size] = inbox.names[at * _NAME : at * _NAME + size]
            inbox.packets[len(asked) * _SLOT : len(asked) * _SLOT + 4] = ANSWER
            asked.append(index)
        if not asked:
            return
        now = time.time_ns()
        refused = self._answers[size].send(fd, len(asked))
        for at, index in enumerate(asked):
            ledger.echoed[index] = now
            if at in refused:
                ledger.echo_errno[index] = refused[at]
