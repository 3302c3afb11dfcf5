"""New WireGuard keys for the nodes of a running lab: nothing but devices' keys and peers is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.errors import UsageError
from podnet.kernel.objects import Peer, State, Tunnel, replace
from podnet.kernel.schedule import schedule
from podnet.lab import keys, record
from podnet.lab.drift import drift

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podnet.kernel.interface import Kernel
    from podnet.lab.record import Record

__all__ = ["rekey", "with_other_keys"]


def with_other_keys(wanted: State, other: Mapping[str, str]) -> State:
    """The state with other public keys, old to new, on devices and in the list of peers."""
    changed = (_changed(each, other) if isinstance(each, Tunnel | Peer) else each for each in wanted.values())
    return {each.key: each for each in changed}


def _changed(each: Tunnel | Peer, other: Mapping[str, str]) -> Tunnel | Peer:
    if isinstance(each, Peer):
        return replace(each, id=other.get(each.id, each.id))
    return replace(each, options=tuple((name, other.get(value, value)) for name, value in each.options))


def rekey(name: str, nodes: Sequence[str], kernel: Kernel) -> list[str]:
    """Give nodes new keys, without any all that have one; returns their names.

    Raises ``UsageError`` where the lab or a node has no keys, ``KernelError`` where the kernel refused: the record then
    has the new keys, and ``podnet up`` completes it.
    """
    with record.locked(name):
        entry = record.find(name)
        having = {each.removeprefix("key/"): one[0] for each, one in entry.earlier.items() if each.startswith("key/")}
        if not having:
            msg = f"lab {name} has no keys: its fabric is not wireguard"
            raise UsageError(msg)
        unknown = [node for node in nodes if node not in having]
        if unknown:
            msg = f"lab {name} has no keys for {', '.join(unknown)}: its nodes are {', '.join(having)}"
            raise UsageError(msg)
        chosen = list(nodes or having)
        new = {node: keys.new_pair() for node in chosen}
        keys.keep(name, new.values())
        entry = _with(entry, having, {node: pair.public for node, pair in new.items()})
        record.save(entry._replace(settled=False))
        # Old peers and new ones may send from the same networks: a network moves to the peer that is given it last.
        changes = [change for change in drift(entry, kernel)[0] if isinstance(change.object, Tunnel | Peer)]
        kernel.apply(schedule(changes))
        record.save(entry)
        keys.remove_others(name, [one[0] for each, one in entry.earlier.items() if each.startswith("key/")])
        return chosen


def _with(entry: Record, having: Mapping[str, str], new: Mapping[str, str]) -> Record:
    wanted = with_other_keys(entry.healthy, {having[node]: public for node, public in new.items()})
    earlier = entry.earlier | {f"key/{node}": [public] for node, public in new.items()}
    return entry._replace(body=record.Body.of(wanted, entry.lab), earlier=earlier)
