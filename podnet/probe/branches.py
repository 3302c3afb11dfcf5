"""Which sightings are of the packet, and which of copies that a bridge flooded to hosts that do not take them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["Sighted", "taken"]


class Sighted(NamedTuple):
    """One sighting; ``cable`` is the number of the veth's other end in its namespace, 0 for other devices."""

    place: Hashable
    device: int
    cable: int
    out: bool
    ttl: int


def taken(way: Sequence[Sighted]) -> list[bool]:
    """For each sighting, in order of time, whether it belongs to the way.

    What goes into a cable and comes out of it is one step. A bridge floods in one go: where one copy of it came out
    somewhere, the others are of no interest; where none did, the packet was lost there.
    """
    came_out = [False] * len(way)
    burst: list[tuple[Hashable, int, int]] = []
    arrivals: dict[Hashable, int] = {}
    for at, row in enumerate(way):
        if not row.out:
            arrivals[row.place] = arrivals.get(row.place, 0) + 1
        burst.append((row.place, row.ttl, arrivals.get(row.place, 0)))
        if row.out or not row.cable:
            continue
        for before in range(at - 1, -1, -1):
            other = way[before]
            if (
                other.out
                and not came_out[before]
                and other.place != row.place
                and (other.device, other.cable) == (row.cable, row.device)
            ):
                came_out[before] = True
                break
    fruitful = {burst[at] for at, out in enumerate(came_out) if out}
    return [
        not row.out or not row.cable or came_out[at] or burst[at] not in fruitful for at, row in enumerate(way)
    ]  # fmt: skip
