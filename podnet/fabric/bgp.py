"""bgp: a routing daemon on every node and router learns the pod CIDRs from the others, and writes the routes.

podnet writes the daemons' configuration, runs them, and waits for what they are to learn. Packets go as with host-gw.
The protocol is that of RFC 4271.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.fabric import birdconf
from podnet.kernel.bird import files_of
from podnet.kernel.objects import BIRD, BirdConf, KernelObject, Process, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.fabric import Site, Terms, Way
    from podnet.model.topology import Network

__all__ = ["CARRIES", "DAEMON", "METRIC", "NEEDS", "Session", "Speaker", "node", "overhead", "router", "speaker"]

NEEDS = ("bird",)
CARRIES = (4, 6)
DAEMON = "bird"
METRIC = 32  # bird's own default for what it writes into the kernel


class Session(NamedTuple):
    """A session with a neighbour; ``rank`` decides between neighbours that are equally far: the lowest is taken."""

    name: str
    peer: str
    as_number: int
    version: int
    here: str
    there: str
    rank: int


class Speaker(NamedTuple):
    """A node or router that speaks BGP.

    It announces ``cidrs``, and a ``router`` also what it has learned. ``learned`` are the prefixes that it must come to
    know, each with next hop and interface.
    """

    name: str
    netns: str
    as_number: int
    router_id: str
    cidrs: tuple[Network, ...]
    router: bool
    sessions: tuple[Session, ...]
    learned: tuple[tuple[Network, str, str], ...]


def overhead(versions: tuple[int, ...]) -> int:
    """Nothing is put around a packet."""
    return 0


def node(terms: Terms, here: Site, ways: Sequence[Way]) -> list[KernelObject]:
    """Nothing but what ``speaker`` has: the routes are learned."""
    return []


def router(netns: str, dev: str, other: Site, hops: dict[int, str]) -> list[KernelObject]:
    """Nothing but what ``speaker`` has: the routes are learned."""
    return []


def speaker(here: Speaker, networks: Sequence[Network], hold_time: int, folder: str) -> list[KernelObject]:
    """A daemon with its configuration, and the routes that it is to write.

    ``networks`` are those that prefixes may be of, ``hold_time`` is in seconds, ``folder`` holds the daemon's files.
    """
    files = files_of(folder, here.name)
    argv = (DAEMON, "-f", "-c", files.conf, "-s", files.control, "-P", files.pid)
    objects: list[KernelObject] = [
        BirdConf(here.netns, here.name, birdconf.text(here, networks, hold_time)),
        Process(here.netns, f"{here.name}/{DAEMON}", argv),
    ]
    return objects + [
        Route(here.netns, str(cidr), hop, dev, metric=METRIC, protocol=BIRD) for cidr, hop, dev in here.learned
    ]
