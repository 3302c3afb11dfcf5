"""The lab's verbs that build and remove: plan, up, down. Each is observe, diff, and for two of them apply."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podnet.errors import KernelError, PodnetError
from podnet.ipam.store import Reservation, Store, boot_id
from podnet.kernel import sysctl
from podnet.kernel.diff import Change, diff
from podnet.kernel.objects import Netns, NftTable, State, Sysctl, replace
from podnet.kernel.process import HOSTS
from podnet.kernel.schedule import Op, schedule
from podnet.lab import checks, machine, record
from podnet.lab.drift import neighbours_of, own, qdiscs_of, sysctls_of, tables_of
from podnet.lab.labjson import lab_to_json
from podnet.lab.rows import to_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podnet.kernel.interface import Kernel
    from podnet.lab.keys import Pair
    from podnet.lab.record import Record
    from podnet.model.lab import Lab
    from podnet.model.placement import Placement
    from podnet.model.topology import Topology

__all__ = ["Outcome", "down", "plan", "up"]

_PASSES = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb found and did; ``changes`` are those of the first pass."""

    lab: Lab
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class _Intent:
    """A topology placed and compiled, beside what the lab's record says."""

    topology: Topology
    placement: Placement
    lab: Lab
    wanted: State
    before: Record | None
    new_keys: tuple[Pair, ...] = ()
    healthy: State = field(default_factory=dict)
    """``wanted`` without the faults that commands have made."""
    faults: tuple[list[Any], ...] = ()

    @property
    def namespaces(self) -> set[str]:
        return {each.name for each in self.wanted.values() if isinstance(each, Netns)}

    @property
    def in_machine(self) -> State:
        return {key: each for key, each in self.wanted.items() if not each.netns}


def _intent(topology: Topology) -> _Intent:
    from podnet.lab.neighbours import with_neighbours
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
    wanted = with_neighbours(compile_topology(placement), lab, placement)
    if ("sysctl", "", "net/ipv6/conf/all/forwarding") in wanted:
        wanted |= {each.key: each for each in machine.router_advertisements(topology.name)}
    healthy, faults = wanted, tuple(before.faults) if before is not None else ()
    if faults:
        wanted, faults = _with_faults(healthy, faults, lab)
    return _Intent(topology, placement, lab, wanted, before, tuple(new_keys), healthy, faults)


def _with_faults(healthy: State, rows: tuple[list[Any], ...], lab: Lab) -> tuple[State, tuple[list[Any], ...]]:
    """The state with the faults whose targets are still there, and those faults."""
    from podnet.lab.faults import from_rows, with_faults

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


def _observed(kernel: Kernel, intent: _Intent, *, check: bool = False) -> State:
    """What is there of the lab now, the machine's own namespace restricted to what is the lab's business.

    ``check`` is for the first look, before anything is touched: whether something foreign is in the way.
    """
    before = intent.before
    names = intent.namespaces | set(before.namespaces if before else ())
    machine_keys = {tuple(key) for key in before.machine_keys} if before else set()
    if machine_keys or intent.in_machine:
        names.add("")
    earlier = before.wanted if before else {}
    tables = tables_of(earlier | intent.wanted)
    neighbours = neighbours_of(intent.wanted) | neighbours_of(earlier)
    qdiscs = qdiscs_of(intent.wanted) | qdiscs_of(earlier)
    found = kernel.observe(names, sysctls_of(earlier | intent.wanted), tables, neighbours, qdiscs)
    if check:
        checks.foreign_in_machine(intent.in_machine, found, machine_keys, _group(intent))
    return own(found, machine_keys | set(intent.in_machine))


def _group(intent: _Intent) -> int:
    from podnet.topology.marks import group_of

    return group_of(intent.topology.name)


def _changes(intent: _Intent, found: State) -> list[Change]:
    """The difference, and the sysctls of namespaces that stay which the topology names no longer."""
    changes = diff(intent.wanted, found, _group(intent))
    before = intent.before.wanted if intent.before else {}
    left = [
        each
        for key, each in before.items()
        if isinstance(each, Sysctl) and each.netns in intent.namespaces and key not in intent.wanted and key in found
    ]
    if left:
        values = sysctl.defaults({each.name for each in left})
        for each in left:
            was, new = found[each.key], replace(each, value=values.get(each.name, each.value))
            if was != new:
                changes.append(Change("update", new, was, "not in the topology: back to the default", ("value",)))
    return changes


def _check(kernel: Kernel, intent: _Intent) -> None:
    before = intent.before
    checks.foreign_namespaces(intent.namespaces, kernel.namespaces(), set(before.namespaces if before else ()))
    checks.raise_open_files(len(intent.namespaces))


def plan(topology: Topology, kernel: Kernel) -> Outcome:
    """What ``up`` would change. Raises what ``up`` would raise before touching anything."""
    intent = _intent(topology)
    _check(kernel, intent)
    return Outcome(intent.lab, _changes(intent, _observed(kernel, intent, check=True)))


def up(topology: Topology, kernel: Kernel, progress: Callable[[int, int], None] | None = None) -> Outcome:
    """Make the kernel what the topology says.

    Raises ``LabBusyError`` while another process changes the lab, ``ConflictError`` and ``CapabilityError``
    before anything is touched; ``KernelError`` leaves a record by which the next ``up`` or ``down`` goes on.
    """
    with record.locked(topology.name):
        intent = _intent(topology)
        _check(kernel, intent)
        found = _observed(kernel, intent, check=True)
        changes = _changes(intent, found)
        if intent.before is not None and intent.before.settled and not changes and _same(intent):
            return Outcome(intent.lab, [])
        _remember(intent, settled=False)
        machine.claim(topology.name, [s for s in intent.in_machine.values() if isinstance(s, Sysctl)])
        try:
            _converge(kernel, intent, found, changes, progress)
        except KernelError as error:
            msg = f"{error}\nthe lab is half-built: 'podnet up' completes it, 'podnet down {topology.name}' removes it"
            raise KernelError(msg, error.errno) from error
        _remember(intent, settled=True)
        return Outcome(intent.lab, changes)


def _same(intent: _Intent) -> bool:
    """Whether the record says already what it would say."""
    before = intent.before
    return before is not None and before.lab == intent.lab and before.wanted == intent.wanted


def _converge(
    kernel: Kernel,
    intent: _Intent,
    found: State,
    changes: list[Change],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Apply until nothing differs. Building from nothing takes one pass; one that alters what is there may
    take along more than its own object (a route with its address), so it is looked at again."""
    ops = _half_made(kernel, intent, found) + schedule(changes)
    for _ in range(_PASSES):
        kernel.apply(ops, _told(progress, len(ops)))
        if all(change.action == "create" for change in changes):
            return
        changes = _changes(intent, _observed(kernel, intent))
        if not changes:
            return
        ops = schedule(changes)
    left = "; ".join(str(change) for change in changes[:3])
    msg = f"after {_PASSES} passes {len(changes)} differences are left, among them: {left}"
    raise KernelError(msg)


def _told(progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    return lambda done: progress(done, total)


def _half_made(kernel: Kernel, intent: _Intent, found: State) -> list[Op]:
    """Names of the lab's namespaces that a crash left without a namespace behind them."""
    before = set(intent.before.namespaces if intent.before else ())
    bare = (before & kernel.namespaces()) - {each.name for each in found.values() if isinstance(each, Netns)}
    return [Op("delete", Netns(name)) for name in sorted(bare)]


def _remember(intent: _Intent, *, settled: bool) -> None:
    from podnet.lab.targets import earlier_of

    before = intent.before
    namespaces, machine_keys = set(intent.namespaces), set(intent.in_machine)
    if before is not None and not settled:
        namespaces |= set(before.namespaces)
        machine_keys |= {tuple(key) for key in before.machine_keys}
    entry = record.Record(
        name=intent.topology.name,
        path=str(Path(intent.topology.path).resolve()) if intent.topology.path else "",
        group=_group(intent),
        settled=settled,
        namespaces=sorted(namespaces),
        machine_keys=sorted(list(key) for key in machine_keys),
        earlier=earlier_of(intent.placement),
        wanted_rows=to_rows(intent.healthy),
        lab_json=lab_to_json(intent.lab),
        since=time.time() if before is None else before.since,
        faults=list(intent.faults),
    )
    record.save(entry)
    if not settled:
        _reserve(intent)
        _name(intent)
    _keep_keys(intent, settled=settled)


def _keep_keys(intent: _Intent, *, settled: bool) -> None:
    """New private keys are there before the kernel needs them, old ones until it needs them no more."""
    used = [node.public_key for node in intent.placement.nodes if node.public_key]
    had = any(name.startswith("key/") for name in (intent.before.earlier if intent.before else ()))
    if used or had:
        from podnet.lab import keys

        if settled:
            keys.remove_others(intent.topology.name, used)
        else:
            keys.keep(intent.topology.name, intent.new_keys)


def _name(intent: _Intent) -> None:
    """Write the lab's hosts file; in place, because containers have this very file bound over /etc/hosts."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    for target in intent.lab.targets:
        first = [target.addresses(version)[:1] for version in intent.lab.versions]
        lines += [f"{address.ip} {target.name}" for addresses in first for address in addresses]
    path = Path(record.directory(intent.topology.name), HOSTS)
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    path.chmod(0o644)


def _reserve(intent: _Intent) -> None:
    boot = boot_id()
    name = intent.topology.name
    with Store(f"{record.directory(name)}/ipam.db") as store:
        store.replace(
            name,
            [
                Reservation(name, str(address), placed.pod.name, "eth0", 0, boot)
                for placed in intent.placement.pods
                for address in placed.addresses
            ],
        )


def down(name: str, kernel: Kernel, stop_processes: Callable[[], None]) -> bool:
    """Remove a lab and all that it changed; ``False`` where there is none.

    Works from the record alone, whatever has become of the topology file, and as often as it is called.
    """
    with record.locked(name):
        entry = record.load(name)
        if entry is None:
            return False
        stop_processes()
        names = set(entry.namespaces) & kernel.namespaces()
        checks.raise_open_files(len(names))
        found: State = {("netns", each): Netns(each) for each in sorted(names)}
        if entry.machine_keys:
            keys = {tuple(key) for key in entry.machine_keys}
            tables = [NftTable("", key[2], key[3], "") for key in keys if key[0] == "nft"]
            found |= own(kernel.observe([""], (), tables), keys)
        kernel.apply(schedule(diff({}, found, entry.group)))
        left = set(entry.namespaces) & kernel.namespaces()
        if left:
            msg = f"the namespaces {', '.join(sorted(left))} could not be removed"
            raise PodnetError(msg)
        machine.give_back(name)
        record.remove(name)
        return True
