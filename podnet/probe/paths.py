"""From the passings that taps saw to the way of each probe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.model.path import Hop, Path
from podnet.probe.branches import Sighted, taken
from podnet.probe.tap import RECORD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.model.lab import Lab
    from podnet.probe.ledger import Ledger
    from podnet.probe.plan import Checks
    from podnet.probe.tap import Tap

__all__ = ["Paths"]


class Paths:
    """The way of every check of a run, put together when it is asked for.

    ``complete`` is false where taps had to drop passings, so that hops may be missing.
    """

    def __init__(
        self, lab: Lab, checks: Checks, netns: Sequence[str], taps: Sequence[Tap], records: bytearray, ledger: Ledger
    ) -> None:
        self.complete = not any(tap.lost() for tap in taps)
        self._records, self._ledger, self._checks = records, ledger, checks
        known = {target.netns: target.name for target in lab.targets}
        prefix = f"{lab.name}."
        self._places = [known.get(name, name.removeprefix(prefix)) for name in netns]
        self._homes = {target.name: list(netns).index(target.netns) for target in lab.targets if target.netns in netns}
        self._devices = [dict[int, str]() for _ in netns]
        self._cables: dict[tuple[int, int], int] = {}
        for tap in taps:
            self._devices[tap.number].update(tap.devices)
            self._cables.update(((tap.number, device), peer) for device, peer in tap.cables.items())
        self._where: dict[int, list[int]] | None = None

    def __len__(self) -> int:
        """How many passings were seen."""
        return len(self._records) // RECORD.size

    def of(self, index: int) -> Path:
        """The way of one check: its first attempt, as far as it came."""
        if self._where is None:
            where: dict[int, list[int]] = {}
            for at, record in enumerate(RECORD.iter_unpack(self._records)):
                where.setdefault(record[0], []).append(at)
            self._where = where
        rows = [RECORD.unpack_from(self._records, at * RECORD.size) for at in self._where.get(index, ())]
        # Sightings of one namespace come in their order; those with the same time stay in it.
        rows.sort(key=lambda row: row[5])
        names, source, target = self._checks.names, self._checks.source[index], self._checks.target[index]
        there, back = self._homes.get(names[target]), self._homes.get(names[source])
        return Path(self._hops(rows, 0, there), self._hops(rows, 1, back))

    def _hops(self, rows: list[tuple[int, ...]], reply: int, end: int | None) -> tuple[Hop, ...]:
        """The packets of one direction, without further attempts and without what bridges flooded elsewhere."""
        seen, way = set(), []
        for row in rows:
            _, here, flags, ttl, device = row[:5]
            # A further attempt passes the same places with the same TTL; a routing loop with a lower one.
            if flags & 1 == reply and (here, flags, ttl, device) not in seen:
                seen.add((here, flags, ttl, device))
                way.append(row)
        arrivals = [at for at, row in enumerate(way) if row[1] == end and not row[2] & 2]
        if arrivals:
            del way[arrivals[-1] + 1 :]
        sighted = [
            Sighted(row[1], row[4], self._cables.get((row[1], row[4]), 0), bool(row[2] & 2), row[3]) for row in way
        ]
        return tuple(self._hop(row) for row, is_taken in zip(way, taken(sighted), strict=True) if is_taken)

    def _hop(self, row: tuple[int, ...]) -> Hop:
        _, here, flags, ttl, device, at, source, target, ports, protocol = row
        name, text = self._devices[here].get(device, f"#{device}"), self._ledger.text
        return Hop(
            self._places[here], name, bool(flags & 2), at, ttl, text(source), text(target), protocol,
            (ports >> 16, ports & 0xFFFF),
        )  # fmt: skip
