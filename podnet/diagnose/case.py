"""What all decisions about one lab share: the model, the scene, names and commands; and one leg of one packet."""

from __future__ import annotations

import shlex
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from podnet.diagnose.cause import Cause
from podnet.diagnose.trail import IN, OUT
from podnet.kernel.objects import Veth

if TYPE_CHECKING:
    from podnet.diagnose.scene import Scene
    from podnet.diagnose.trail import Sighting, Trail
    from podnet.diagnose.walk import Way, World
    from podnet.model.lab import Lab

__all__ = ["Case", "Leg"]


class Leg(NamedTuple):
    """One direction of a packet: who sends it, who should get it, under which addresses, and where it was seen."""

    trail: Trail
    reply: bool
    start: str
    end: str
    source: str
    destination: str
    seen: list[Sighting]

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.trail.subject.version

    @property
    def length(self) -> int:
        """Bytes of the packet from its IP header on."""
        return max((s.frame.length for s in self.seen), default=self.trail.length)


class Case:
    """A lab: its wanted world, and the scene as it is."""

    def __init__(self, lab: Lab, world: World, scene: Scene, *, running: bool = True) -> None:
        self.lab, self.world, self.scene = lab, world, scene
        self._running = running
        self._names = {target.netns: target.name for target in lab.targets}

    def named(self, netns: str) -> str:
        """A namespace in words: the target's name, else the namespace's own."""
        return self._names.get(netns, netns or "the machine")

    def command(self, netns: str, *words: str) -> str:
        """A shell command that runs in a namespace."""
        text = shlex.join(words)
        if netns in self._names and self._running:
            return f"podnet exec {self.lab.name}/{self._names[netns]} -- {text}"
        if netns.startswith("/"):
            return f"nsenter --net={netns} {text}"
        return f"ip netns exec {netns} {text}" if netns else text

    @cached_property
    def macs(self) -> dict[str, list[tuple[str, str]]]:
        """Who has a MAC, as things are: (namespace, device), those that are no bridge ports.

        On different segments the same MAC may be there several times.
        """
        found: dict[str, list[tuple[str, str]]] = {}
        for netns in dict.fromkeys(netns for netns, _ in self.world.links):
            for name, link in self.scene.links(netns).items():
                if link.mac and name != "lo" and not link.master:
                    found.setdefault(link.mac, []).append((netns, name))
        return found

    def way(self, leg: Leg) -> Way:
        """The predicted way of a leg."""
        return self.world.way(leg.start, leg.destination)

    def is_port(self, netns: str, dev: str) -> bool:
        """Whether a device is a bridge port, as things are."""
        return bool(self.scene.master(netns, dev))

    def main(self, leg: Leg) -> list[Sighting]:
        """The sightings of a leg without what a bridge floods to hosts that the frame is not for."""
        return [s for s in leg.seen if not self._flooded(s)]

    def _flooded(self, seen: Sighting) -> bool:
        if seen.way == IN:
            return seen.for_others and not self.is_port(seen.netns, seen.dev)
        far = self.world.links.get((seen.netns, seen.dev))
        if not isinstance(far, Veth) or not self.is_port(seen.netns, seen.dev):
            return False
        host = self.scene.link(far.peer_netns, far.peer)
        return host is not None and not host.master and host.mac != seen.frame.destination_mac

    def previous_hop(self, leg: Leg, netns: str) -> Sighting | None:
        """Where the packet was sent by the namespace before this one: its last way out of a device with addresses."""
        main = self.main(leg)
        first = next((i for i, s in enumerate(main) if s.netns == netns and not self.is_port(s.netns, s.dev)), 0)
        before = (s for s in reversed(main[:first]) if s.way == OUT and not self.is_port(s.netns, s.dev))
        return next(before, None)

    def cause(
        self,
        kind: str,
        netns: str,
        what: str,
        text: str,
        *evidence: str,
        show: tuple[str, ...] = (),
        mend: tuple[str, ...] = (),
    ) -> Cause:
        """A cause, its commands made for the namespace."""
        return Cause(
            kind, netns, what, text, tuple(each for each in evidence if each),
            self.command(netns, *show) if show else "", self.command(netns, *mend) if mend else "",
        )  # fmt: skip
