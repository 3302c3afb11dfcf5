"""Who shares a link with whom, and which address is asked for there: what ARP and neighbour discovery can be about."""

from __future__ import annotations

from collections import defaultdict
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

from podnet.probe.addressing import primary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podnet.model.lab import InterfaceAddress, Lab, Target

__all__ = ["LINK_PROTOCOLS", "Question", "neighbours", "question"]

LINK_PROTOCOLS = {"arp": 4, "nd": 6}  # the protocol, and the IP version that it is of


class Question(NamedTuple):
    """Who has ``address``? Asked by ``own`` on ``device``; ``shared`` tells whether both ends stand on that link."""

    device: str
    own: str
    address: str
    shared: bool


def question(lab: Lab, source: Target, target: Target, version: int) -> Question | None:
    """What the source asks to find the target; ``None`` where either has no address of the IP version.

    A pod and its node share the node's bridge, and so do the pods of one node; all others share a link where the
    address under which the target is known is in the network of one of the source's interfaces.
    """
    own = list(_addresses(source, version))
    theirs = [address for _, address in _addresses(target, version)]
    if not own or not theirs:
        return None
    if {source.kind, target.kind} != {"pod", "node"}:
        theirs = [address for address in theirs if str(address.ip) == primary(lab, target, version)]
    for device, mine in own if not _apart(source, target) else ():
        for address in theirs:
            if address.ip in mine.network and mine.ip in address.network and address.ip != mine.ip:
                return Question(device, str(mine.ip), str(address.ip), shared=True)
    # Not there: asked all the same, on the link that the source is known on. Nobody should answer.
    usual, known = primary(lab, source, version), primary(lab, target, version)
    device = next(device for device, mine in own if str(mine.ip) == usual)
    return Question(device, str(usual), str(known), shared=False)


def neighbours(lab: Lab, version: int) -> dict[int, list[int]]:
    """By the number of each pod and node, those of the pods and nodes that it shares a link with, in order."""
    groups: dict[str, list[int]] = defaultdict(list)
    for number, target in enumerate(lab.targets):
        if target.kind in ("pod", "node"):
            groups[target.node if target.kind == "pod" else target.name].append(number)
    nodes = [number for number, target in enumerate(lab.targets) if target.kind == "node"]
    found: dict[int, set[int]] = defaultdict(set)
    for members in (*groups.values(), nodes):
        for one, other in permutations(members, 2):
            asked = question(lab, lab.targets[one], lab.targets[other], version)
            if asked is not None and asked.shared:
                found[one].add(other)
    return {number: sorted(targets) for number, targets in sorted(found.items())}


def _addresses(target: Target, version: int) -> Iterator[tuple[str, InterfaceAddress]]:
    for interface in target.interfaces:
        for address in interface.addresses:
            if address.version == version and not address.ip.is_link_local and not address.ip.is_loopback:
                yield interface.name, address


def _apart(source: Target, target: Target) -> bool:
    """Whether both are known to stand on different bridges, though their networks may overlap."""
    pods = [each for each in (source, target) if each.kind == "pod"]
    if not pods:
        return False
    places = {each.node if each.kind == "pod" else each.name for each in (source, target)}
    return len(places) > 1
