"""Packets of which the kernel itself says that it dropped them: there is no answer to wait for."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from podnet.errors import KernelError
from podnet.kernel.tracefs import DropTracer

__all__ = ["Losses"]

# A rule's drop is final, and nobody tells the sender. A bridge's copies for others end for other reasons.
_FINAL = {"NETFILTER_DROP"}
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}


class Losses:
    """The kernel's word on one round of probes, batch by batch; close it.

    A packet through veth pairs is handled, up to its end, before the call that sends it returns: then the drops
    between two marks of the sending thread are of its batch. Where another thread carries packets on (on a busy
    machine), or the kernel has no tracefs, batches are not proven, which costs time and nothing else.
    """

    def __init__(self) -> None:
        self._tracer: DropTracer | None = None
        self._batches: dict[str, tuple[int, int]] = {}
        with suppress(KernelError):
            self._tracer = DropTracer()

    def close(self) -> None:
        """Takes an RCU wait, tens of milliseconds."""
        if self._tracer is not None:
            self._tracer.close()
            self._tracer = None

    def begin(self, version: int, first: int) -> None:
        """What this thread sends from here on is the batch that begins with check ``first``."""
        if self._tracer is not None:
            self._tracer.mark(f"{version}.{first}")

    def end(self, version: int, first: int, sent: int) -> None:
        """The batch is sent: so many packets."""
        if self._tracer is not None:
            self._tracer.mark("")
            self._batches[f"{version}.{first}"] = (_ETHERTYPE[version], sent)

    def proven(self) -> set[int]:
        """The first checks of those batches of which every packet, or its answer, was dropped for good."""
        if self._tracer is None:
            return set()
        counts = Counter(
            drop.mark
            for drop in self._tracer.read()
            if drop.reason in _FINAL and drop.ethertype == self._batches.get(drop.mark, (0, 0))[0]
        )
        return {int(mark.partition(".")[2]) for mark, (_, sent) in self._batches.items() if counts[mark] == sent}
