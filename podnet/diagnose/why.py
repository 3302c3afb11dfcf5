"""The whole of a diagnosis: replay, watch, look at the kernel, decide."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from podnet.diagnose.case import Case
from podnet.diagnose.explain import explain
from podnet.diagnose.replay import replay
from podnet.diagnose.scene import Scene
from podnet.diagnose.trail import Subject
from podnet.diagnose.walk import World
from podnet.probe.addressing import primary
from podnet.probe.expect import derive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.diagnose.cause import Diagnosis
    from podnet.kernel.objects import State
    from podnet.model.lab import Lab

__all__ = ["diagnose", "subject_of"]

_MOST_WATCHED = 256  # namespaces; beyond, those on predicted ways only


def subject_of(lab: Lab, source: str, target: str, protocol: str, version: int, port: int = 0) -> Subject:
    """What to replay for a pair: as the lab's own expectation about it has it, else seen under any address."""
    for check in derive(lab, (protocol,)):
        if (check.source, check.target, check.version, check.port) == (source, target, version, port):
            return Subject(source, target, protocol, version, port, seen=check.seen, expected=check.verdict)
    return Subject(source, target, protocol, version, port)


def diagnose(lab: Lab, wanted: State, subjects: Sequence[Subject], *, running: bool = True) -> list[Diagnosis]:
    """Replay the subjects in a lab whose wanted state is given, and explain each, in the same order.

    ``running`` is whether the lab is one that ``podnet exec`` knows.

    Takes about half a second, however many there are. Raises ``KernelError`` where this process may not watch.
    """
    world = World(wanted)
    everything = list(dict.fromkeys(each.netns for each in wanted.values() if each.netns))
    on_way = _on_way(lab, world, subjects)
    watched = everything if len(everything) <= _MOST_WATCHED else on_way
    if any(not target.netns for target in lab.targets):
        watched = ["", *watched]
    trails = replay(lab, subjects, watched, on_way)
    with closing(Scene()) as scene:
        case = Case(lab, world, scene, running=running)
        return [explain(case, trail) for trail in trails]


def _on_way(lab: Lab, world: World, subjects: Sequence[Subject]) -> list[str]:
    """The namespaces on the predicted ways there and back; those that most packets pass come first."""
    count: dict[str, int] = {}
    for subject in subjects:
        source, target = lab.target(subject.source), lab.target(subject.target)
        if source is None or target is None:
            continue
        for near, far in ((source, target), (target, source)):
            address = primary(lab, far, subject.version)
            if address:
                for netns in world.way(near.netns, address).namespaces:
                    count[netns] = count.get(netns, 0) + 1
    return sorted(count, key=lambda netns: -count[netns])
