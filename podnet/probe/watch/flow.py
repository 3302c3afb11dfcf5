"""What is watched: one protocol from one sender to one receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.errors import UsageError
from podnet.probe.addressing import primary

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from podnet.model.lab import Lab

__all__ = ["PROTOCOLS", "Flow", "Marks", "flows_between"]

PROTOCOLS = ("icmp", "tcp", "udp")
_BITS = 24  # what a TCP sequence number leaves for marks (podnet.probe.stamp)
_LATE = 5.0  # seconds for which a late answer is still known, beyond the timeout
_LEAST_KNOWN = 256


class Flow(NamedTuple):
    """``source`` and ``target`` are names of a lab's targets, ``version`` is 4 or 6."""

    source: str
    target: str
    protocol: str  # icmp | tcp | udp
    version: int

    @property
    def family(self) -> str:
        """``ipv4`` or ``ipv6``."""
        return f"ipv{self.version}"

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} {self.protocol} {self.family}"


def flows_between(
    lab: Lab, senders: Collection[str], receivers: Collection[str], protocols: Sequence[str], versions: Sequence[int]
) -> list[Flow]:
    """From each sender to each receiver but itself, where both have an address; raises ``UsageError`` for none."""
    able = {
        version: {target.name for target in lab.targets if primary(lab, target, version) is not None}
        for version in versions
    }
    order = [target.name for target in lab.targets]
    found = [
        Flow(source, target, protocol, version)
        for source in order
        for target in order
        for protocol in protocols
        for version in versions
        if source in senders and target in receivers and source != target and {source, target} <= able[version]
    ]
    if not found:
        msg = f"there is nothing to watch between these in lab {lab.name}: choose two that differ with --from and --to"
        raise UsageError(msg)
    return found


class Marks:
    """How 24 bits tell flow and sequence number; raises ``UsageError`` where they cannot.

    ``known`` is how many probes back a flow's answers must be known, a power of two.
    """

    def __init__(self, flows: int, rate: float, timeout: float) -> None:
        self.known = max(_LEAST_KNOWN, 1 << int(rate * (timeout + _LATE)).bit_length())
        self._bits = _BITS - flows.bit_length()
        self.mask = (1 << self._bits) - 1
        if self.mask < 2 * self.known:
            msg = f"{flows} flows at {rate:g} Hz with {timeout:g} s of silence cannot be told apart: watch fewer"
            raise UsageError(msg)

    def mark(self, flow: int, number: int) -> int:
        """The mark of a flow's probe; never all ones, since a receiver acknowledges it plus one."""
        return flow << self._bits | number & self.mask

    def flow(self, mark: int) -> int:
        """The number of the flow of a mark."""
        return mark >> self._bits
