"""What ``up`` is to reach: a topology placed and compiled, beside what the lab's record says."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podnet.ipam.store import Store
from podnet.kernel.objects import Netns, State
from podnet.lab import machine, record
from podnet.lab.attacher import data_dir
from podnet.lab.drift import by_plugins
from podnet.topology.marks import group_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podnet.lab.keys import Pair
    from podnet.lab.record import Record
    from podnet.model.lab import Lab
    from podnet.model.placement import Placement
    from podnet.model.topology import Topology

__all__ = ["Intent", "intended"]


@dataclass(frozen=True)
class Intent:
    """A topology placed and compiled, beside what the lab's record says.

    ``bare`` is the lab as the topology alone says it, ``lab`` with what CNI plugins gave, where they attach pods.
    ``healthy`` is ``wanted`` without the faults that commands have made, ``faults`` those whose targets still exist.
    """

    topology: Topology
    placement: Placement
    bare: Lab
    lab: Lab
    wanted: State
    neighbours: int  # entries of the neighbour table that it needs, of one IP version
    before: Record | None
    new_keys: tuple[Pair, ...] = ()
    healthy: State = field(default_factory=dict)
    faults: tuple[list[Any], ...] = ()

    @cached_property
    def namespaces(self) -> set[str]:
        """The names of all its namespaces."""
        return {each.name for each in self.wanted.values() if isinstance(each, Netns)}

    @property
    def group(self) -> int:
        """The group of the lab's links."""
        return group_of(self.topology.name)

    @cached_property
    def in_machine(self) -> State:
        """What it wants of the machine's own namespace."""
        return {key: each for key, each in self.wanted.items() if not each.netns}

    @cached_property
    def body(self) -> record.Body:
        """What the record is to say of it."""
        return record.Body.of(self.healthy, self.lab)

    @cached_property
    def unchanged(self) -> bool:
        """Whether the record says already what it would say."""
        before = self.before
        return before is not None and before.body.text == self.body.text and _alike(before.faults, self.faults)

    @cached_property
    def earlier(self) -> State:
        """What the last ``up`` wanted."""
        if self.before is None:
            return {}
        return self.wanted if self.unchanged else self.before.wanted

    @cached_property
    def by_plugins(self) -> bool:
        """Whether pods are, or were, attached by CNI plugins."""
        return by_plugins(self.earlier) or by_plugins(self.wanted)

    def seen(self, results: Mapping[str, Mapping[str, Any]], found: State) -> Intent:
        """The same with what plugins gave, as their results and the kernel say it."""
        from podnet.lab.plugged import plugged
        from podnet.topology.compile import pod_mtu

        return replace(self, lab=plugged(self.bare, results, found, pod_mtu(self.placement)))


def intended(topology: Topology) -> Intent:
    """Place and compile a topology, with what an earlier run of the lab chose. Raises ``TopologyError``."""
    from podnet.lab.neighbours import need, with_neighbours
    from podnet.lab.targets import lab_of
    from podnet.topology.compile import compile_topology
    from podnet.topology.place import place

    before = record.load(topology.name)
    earlier: dict[str, Sequence[str]] = {}
    if before is not None:
        earlier |= before.earlier
        earlier |= _reserved(topology.name)
    placement = place(topology, earlier)
    new_keys: list[Pair] = []
    if topology.networking.fabric == "wireguard":
        from podnet.lab.keys import with_keys

        placement, new_keys = with_keys(placement, earlier)
    lab = lab_of(placement)
    before_any, others = machine.neighbour_limits(topology.name, lab.versions)
    daemons = record.daemons_directory(topology.name)
    compiled = compile_topology(placement, partial(data_dir, record.directory(topology.name)), daemons)
    wanted = with_neighbours(compiled, lab, placement, before_any, others)
    if ("sysctl", "", "net/ipv6/conf/all/forwarding") in wanted:
        wanted |= {each.key: each for each in machine.router_advertisements(topology.name)}
    healthy, faults = wanted, tuple(before.faults) if before is not None else ()
    if faults:
        wanted, faults = _with_faults(healthy, faults, lab)
    return Intent(topology, placement, lab, lab, wanted, need(lab, placement), before, tuple(new_keys), healthy, faults)


def _alike(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether both are the same JSON: a record's lists are tuples in the program."""
    return json.dumps(one) == json.dumps(other)


def _with_faults(healthy: State, rows: tuple[list[Any], ...], lab: Lab) -> tuple[State, tuple[list[Any], ...]]:
    """The state with the faults whose targets are still there, and those faults."""
    from podnet.lab.faults import from_rows, with_faults
    from podnet.lab.labjson import lab_to_json

    there = {target.name for target in lab.targets}
    faults = [
        fault
        for fault in from_rows(rows)
        if {fault.target, *(name for group in fault.groups for name in group)} - {""} <= there
    ]
    return with_faults(healthy, faults, lab_to_json(lab)), tuple(list(fault) for fault in faults)


def _reserved(lab: str) -> dict[str, list[str]]:
    path = Path(record.directory(lab), "ipam.db")
    if not path.exists():
        return {}
    reserved: dict[str, list[str]] = {}
    with Store(path) as store:
        for each in store.reservations(lab):
            reserved.setdefault(f"pod/{each.container_id}", []).append(each.address)
    return reserved
