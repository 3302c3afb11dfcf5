"""The fault that no lab has to itself: the neighbour table is one for all namespaces of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.fault.model import Fault
from podnet.fault.site import MACHINE, Place, Site, Trip
from podnet.fault.step import neighbours_refused

if TYPE_CHECKING:
    from podnet.fault.step import Step

__all__ = ["FAULTS"]


def _machine(site: Site, version: int) -> list[Place]:
    place = Place(MACHINE)
    return [place] if any(_asks(site, place, version, t) for t in site.trips if t.check.version == version) else []


def _refuse(site: Site, place: Place, version: int) -> list[Step]:
    names = list(dict.fromkeys(t.netns for t in site.lab.targets if t.netns))
    return [neighbours_refused(names, {n: v for n, v in site.limits.items() if n.startswith(f"net/ipv{version}/")})]


def _asks(site: Site, place: Place, version: int, trip: Trip) -> bool | None:
    """Whoever sends to a next hop needs an entry for it.

    To itself, it depends on the kernel whether it counts; and the machine itself may still have entries.
    """
    sends = [
        (step.netns, step.out, step.via or destination)
        for way, destination, _ in trip.legs()
        for step in way.steps
        if step.kind in ("send", "forward")
    ]
    asked = [netns for netns, dev, hop in sends if (netns, dev, hop) not in site.permanent]
    return True if any(asked) else None if asked or not sends else False


FAULTS = (
    Fault(
        "neighbour-table-full", "The machine's neighbour table takes no further entry: nobody finds anybody's MAC.",
        ("neighbour-table-full",), _machine, _refuse, _asks, machine=True,
    ),
)  # fmt: skip
