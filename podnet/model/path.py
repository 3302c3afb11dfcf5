"""The way of one probe: where it was seen, in order."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Hop", "Path"]


class Hop(NamedTuple):
    """One sighting of a packet at a device.

    ``place`` is the name of the target whose namespace it is, or of the namespace where it is none's; ``at`` is
    nanoseconds since the epoch. ``ports`` are source and destination, for ICMP identifier and sequence number.
    """

    place: str
    device: str
    out: bool
    at: int
    ttl: int
    source: str
    target: str
    protocol: int
    ports: tuple[int, int]

    @property
    def direction(self) -> str:
        """``in`` or ``out``."""
        return "out" if self.out else "in"


class Path(NamedTuple):
    """All hops of a probe, and of what came back."""

    request: tuple[Hop, ...] = ()
    reply: tuple[Hop, ...] = ()

    def places(self, *, reply: bool = False) -> tuple[str, ...]:
        """The namespaces on the way, each once as long as the packet stays."""
        names: list[str] = []
        for hop in self.reply if reply else self.request:
            if not names or names[-1] != hop.place:
                names.append(hop.place)
        return tuple(names)
