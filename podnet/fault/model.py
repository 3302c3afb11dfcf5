"""The noun: a fault, as data and three functions that decide and do nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from podnet.fault.site import Place, Site, Trip
from podnet.fault.step import Step

__all__ = ["Fault"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which a network breaks.

    ``does`` is one sentence; ``says`` are the kinds of cause (``podnet.diagnose.cause.KINDS``) of which the diagnosis
    must name one. ``versions`` is ``one`` where the fault is of one IP version at a time, ``both`` where it is
    below IP, or the only version there is (``ipv4``).

    ``places`` lists where in a lab it can be applied so that something breaks; ``steps`` is what it does there.
    ``breaks`` tells for a trip of the right version whether it must break (``None``: it may); ``large`` is set
    where only packets of the full size do. ``machine`` is set where it is a fault of the machine itself, which other
    networks feel as well.
    """

    name: str
    does: str
    says: tuple[str, ...]
    places: Callable[[Site, int], list[Place]]
    steps: Callable[[Site, Place, int], list[Step]]
    breaks: Callable[[Site, Place, int, Trip], bool | None]
    versions: str = "one"  # one | both | ipv4
    large: bool = False
    machine: bool = False

    def concerns(self, version: int, trip: Trip) -> bool:
        """Whether the fault, injected for an IP version, can concern a trip at all."""
        return self.versions == "both" or trip.check.version == version

    def outcome(self, site: Site, place: Place, version: int, trip: Trip, *, large: bool = False) -> bool | None:
        """Whether a check that held must fail (``None``: it may), for ``large`` packets or for small ones."""
        lost_anyway = trip.check.verdict == "drop"
        if lost_anyway or not self.concerns(version, trip) or (self.large and not large):
            return False
        return self.breaks(site, place, version, trip)
