"""From changes to operations in an order that the kernel accepts and that costs least; no effects.

The order carries three measurements. A bridge that is up floods every new port's multicast to all others
(10 ms a pod at 900 ports), so a bridge comes up after its ports (3.7 ms). All that happens inside one namespace is kept
together, so that it goes out in one send. And a pod is completed as soon as its links are there, while the namespaces
of the next node's pods are still being made (podnet/kernel/maker.py): a tenth less time for 1,000 pods.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from podnet.kernel.diff import Change
from podnet.kernel.objects import (
    Attached,
    BirdConf,
    Bridge,
    KernelObject,
    Key,
    Link,
    Loopback,
    Netns,
    NftTable,
    Process,
    Route,
    Sysctl,
    Tunnel,
    Veth,
    replace,
)

__all__ = ["Op", "schedule"]


class Op(NamedTuple):
    """One operation on one object.

    ``add`` makes it (links come down; a veth comes with ``peer``, also down), ``set`` changes ``fields`` of it
    (for a route or neighbours: replaces it; for a table: replaces it as a whole), ``delete`` removes it. ``await``
    waits until a daemon has written a route.
    """

    verb: str
    object: KernelObject
    fields: tuple[str, ...] = ()
    peer: Veth | None = None

    def __str__(self) -> str:
        return f"{self.verb} {self.object}"


_TUNNELS = ("vxlan", "wireguard", "ipip")
_DELETE_ORDER = ("process", "bird", "attachment", "nft", "neighbours", "route", "address", "peer", "qdisc", *_TUNNELS,
                 "veth", "bridge", "netns")  # fmt: skip

# Inside one namespace, after its links were made. A device's sysctls decide what happens when it comes up and
# whether it takes an address (disable_ipv6), so they come first.
_INSIDE_ORDER = {
    "sysctl": 0, "loopback": 1, "veth": 2, "bridge": 3, **dict.fromkeys(_TUNNELS, 3), "qdisc": 4, "address": 4,
    "peer": 5, "neighbours": 5, "route": 6,
}  # fmt: skip
_VIA_ORDER = 7  # a gateway may be reached by another route

# After all that: a container finds its pod's interface when it starts, a daemon its configuration, and then it learns.
_LATE_ORDER = {"attachment": 0, "nft": 1, "bird": 2, "process": 3, "route": 4}


def schedule(changes: Iterable[Change]) -> list[Op]:
    """The operations that carry out ``changes``, in order."""
    changes = list(changes)
    ops = _deletions(changes)
    made = {c.object.key: c.object for c in changes if c.action in {"create", "recreate"}}
    early: list[Op] = []
    links: list[Op] = []
    inside: dict[str, list[tuple[int, Op]]] = {}
    late: list[Op] = []
    paired: set[Key] = set()
    for change in changes:
        new = change.new
        if new is None:
            continue
        fresh = change.action in {"create", "recreate"}
        match new:
            case Netns():
                ops.append(Op("add", new))
            case Sysctl() if not _of_device(new):
                early.append(Op("set", new, ("value",)))
            case Loopback():
                # lo is there, and down, as soon as its namespace is.
                if not fresh or new.up:
                    _put(inside, Op("set", new, ("up",)))
            case Bridge() | Veth() | Tunnel() if fresh:
                if new.key not in paired:
                    op = _link(new, made)
                    links.append(op)
                    paired.update({op.object.key, op.peer.key} if op.peer else {new.key})
                if new.up:
                    _put(inside, Op("set", new, ("up",)))
            case Bridge() | Veth() | Tunnel():
                _put(inside, Op("set", new, change.fields))
            case Process() | Attached():
                late.append(Op("add", new))
            case NftTable() | BirdConf():
                late.append(Op("add" if fresh else "set", new, change.fields))
            case Route(learned=True):
                late.append(Op("await", new))
            case Sysctl():
                _put(inside, Op("set", new, ("value",)))
            case _:
                _put(inside, Op("add" if fresh else "set", new, change.fields))
    place = {netns: number for number, netns in enumerate(dict.fromkeys(op.object.netns for op in links))}
    links.sort(key=lambda op: (op.object.kind != "bridge", place[op.object.netns]))  # one send per namespace
    late.sort(key=lambda op: _LATE_ORDER[op.object.kind])
    return ops + early + _interleaved(links, inside) + late


def _deletions(changes: list[Change]) -> list[Op]:
    doomed = [c.old for c in changes if c.action == "delete" or (c.action == "recreate" and c.old)]
    # A recreated veth takes its other end along: delete only one of both.
    seen: set[Key] = set()
    ops = []
    for kind in _DELETE_ORDER:
        # Last found, first deleted: the first address of a network would take the later ones along.
        for old in reversed(doomed):
            if old is None or old.kind != kind or old.key in seen:
                continue
            if isinstance(old, Route) and old.learned:
                continue  # its daemon's to take away
            if isinstance(old, Veth):
                seen.add(old.peer_key)
            ops.append(Op("delete", old))
    # A process whose command changed is stopped before it is started anew.
    stops = [Op("delete", c.old) for c in changes if c.action == "update" and isinstance(c.old, Process)]
    return stops + ops


def _of_device(sysctl: Sysctl) -> bool:
    """Whether the sysctl belongs to one device, which must be there first."""
    parts = sysctl.name.split("/")
    return len(parts) > 3 and parts[2] in {"conf", "neigh"} and parts[3] not in {"all", "default", "lo"}


def _link(new: Link, made: dict[Key, KernelObject]) -> Op:
    if not isinstance(new, Veth):
        return Op("add", new)
    other = made.get(new.peer_key)
    if not isinstance(other, Veth):
        # The kernel makes both ends or none; a plan that lists one has lost its other half.
        msg = f"{new}: its other end {new.peer} in {new.peer_netns or 'the machine'} is not being made"
        raise ValueError(msg)
    # The end that becomes a bridge port is made first: its namespace then needs no second visit.
    near, far = (other, new) if other.master and not new.master else (new, other)
    return Op("add", replace(near, up=False), peer=replace(far, up=False))


def _put(inside: dict[str, list[tuple[int, Op]]], op: Op) -> None:
    gateway = isinstance(op.object, Route) and op.object.via
    order = _VIA_ORDER if gateway else _INSIDE_ORDER[op.object.kind]
    inside.setdefault(op.object.netns, []).append((order, op))


def _interleaved(links: list[Op], inside: dict[str, list[tuple[int, Op]]]) -> list[Op]:
    """New links, namespace by namespace, each followed by what is to be done inside of those that have all theirs now.

    Namespaces with a bridge come last, after all that its ports lead to.
    """
    with_bridge = {netns for netns, each in inside.items() if any(op.object.kind == "bridge" for _, op in each)}
    batches = [list(each) for _, each in groupby(links, key=lambda op: (op.object.kind == "bridge", op.object.netns))]
    last = {
        end.netns: number
        for number, batch in enumerate(batches)
        for op in batch
        for end in (op.object, op.peer)
        if end is not None
    }
    complete: dict[int, list[str]] = {}
    for netns in sorted(inside, key=with_bridge.__contains__):
        complete.setdefault(-1 if netns in with_bridge else last.get(netns, -1), []).append(netns)
    ops: list[Op] = []
    for number, batch in enumerate(batches):
        ops += batch + _flattened(inside, complete.get(number, ()))
    return ops + _flattened(inside, complete.get(-1, ()))


def _flattened(inside: dict[str, list[tuple[int, Op]]], netns: Iterable[str]) -> list[Op]:
    return [op for each in netns for _, op in sorted(inside[each], key=lambda pair: pair[0])]
