"""The lab's verbs that build: plan and up. Both are observe and diff, and ``up`` applies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podnet.errors import ConflictError, KernelError
from podnet.ipam.store import Reservation, Store
from podnet.kernel import sysctl
from podnet.kernel.boot import boot_id
from podnet.kernel.diff import Change, diff
from podnet.kernel.objects import Attached, Netns, State, Sysctl, replace
from podnet.kernel.process import HOSTS
from podnet.kernel.schedule import Op, schedule
from podnet.lab import checks, machine, record
from podnet.lab.attacher import Attacher
from podnet.lab.drift import in_machine, neighbours_of, own, qdiscs_of, sysctls_of, tables_of
from podnet.lab.intent import Intent, intended
from podnet.lab.openfiles import raise_open_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.kernel.interface import Kernel
    from podnet.model.lab import Lab
    from podnet.model.topology import Topology

__all__ = ["Outcome", "plan", "up"]

_PASSES = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb found and did; ``changes`` are those of the first pass."""

    lab: Lab
    changes: list[Change]


def _observed(kernel: Kernel, intent: Intent, *, check: bool = False) -> State:
    """What is there now in the lab's namespaces; in the machine's own one, also what is nobody's business here.

    ``check`` is for the first look, before anything is touched: whether something foreign is in the way.
    """
    names = intent.namespaces | set(intent.before.namespaces if intent.before else ())
    machine_keys = _machine_keys(intent)
    if in_machine([*machine_keys, *intent.in_machine]):
        names.add("")
    either = intent.earlier | intent.wanted
    qdiscs = qdiscs_of(intent.earlier) | qdiscs_of(intent.wanted)
    found = kernel.observe(names, sysctls_of(either), tables_of(either), neighbours_of(either), qdiscs)
    if check:
        checks.foreign_in_machine(intent.in_machine, found, machine_keys, intent.group)
    return found


def _machine_keys(intent: Intent) -> set[tuple[str, ...]]:
    return {tuple(key) for key in intent.before.machine_keys} if intent.before else set()


def _own(intent: Intent, found: State) -> State:
    """What of it is the lab's."""
    return own(found, _machine_keys(intent) | set(intent.in_machine), intent.earlier | intent.wanted)


def _changes(intent: Intent, found: State) -> list[Change]:
    """The difference, and the sysctls of namespaces that stay which the topology names no longer."""
    found = _own(intent, found)
    changes = diff(intent.wanted, found, intent.group)
    left = [
        each
        for key, each in intent.earlier.items()
        if isinstance(each, Sysctl) and each.netns in intent.namespaces and key not in intent.wanted and key in found
    ]
    if left:
        values = sysctl.defaults({each.name for each in left})
        for each in left:
            was, new = found[each.key], replace(each, value=values.get(each.name, each.value))
            if was != new:
                changes.append(Change("update", new, was, "not in the topology: back to the default", ("value",)))
    return changes


def _check(kernel: Kernel, intent: Intent) -> None:
    before = intent.before
    checks.foreign_namespaces(intent.namespaces, kernel.namespaces(), set(before.namespaces if before else ()))
    raise_open_files(len(intent.namespaces))
    if intent.by_plugins:
        checks.plugins(intent.wanted, intent.earlier)


def plan(topology: Topology, kernel: Kernel) -> Outcome:
    """What ``up`` would change. Raises what ``up`` would raise before touching anything."""
    intent = intended(topology)
    _check(kernel, intent)
    return Outcome(intent.lab, _changes(intent, _observed(kernel, intent, check=True)))


def up(
    topology: Topology,
    kernel: Kernel,
    progress: Callable[[int, int], None] | None = None,
    attacher: Attacher | None = None,
) -> Outcome:
    """Make the kernel what the topology says. ``attacher`` knows the results of CNI plugins; by default, the lab's.

    Raises ``LabBusyError`` while another process changes the lab, ``ConflictError`` and ``CapabilityError``
    before anything is touched; ``KernelError`` leaves a record by which the next ``up`` or ``down`` goes on.
    """
    attacher = attacher or Attacher(record.directory(topology.name))
    with record.locked(topology.name):
        intent = intended(topology)
        _check(kernel, intent)
        found = _observed(kernel, intent, check=True)
        changes = _changes(intent, found)
        if intent.by_plugins:
            intent = intent.seen(attacher.results(), found)
        if intent.before is not None and intent.before.settled and not changes and intent.unchanged:
            _name(intent)
            return Outcome(intent.lab, [])
        _remember(intent, settled=False)
        sysctls = [s for s in intent.in_machine.values() if isinstance(s, Sysctl)]
        machine.claim(topology.name, sysctls, intent.neighbours)
        try:
            _converge(kernel, intent, found, changes, progress)
        except KernelError as error:
            msg = f"{error}\nthe lab is half-built: 'podnet up' completes it, 'podnet down {topology.name}' removes it"
            raise KernelError(msg, error.errno) from error
        if intent.by_plugins:
            intent = _attached(kernel, intent, changes, attacher)
        _remember(intent, settled=True)
        return Outcome(intent.lab, changes)


def _attached(kernel: Kernel, intent: Intent, changes: list[Change], attacher: Attacher) -> Intent:
    """Clean up after attachments that a crash left, and look at what the plugins gave. Raises ``ConflictError``."""
    from podnet.lab.plugged import misplaced

    if any(isinstance(change.old, Attached) and change.old.state for change in changes):
        attacher.collect()
    intent = intent.seen(attacher.results(), _observed(kernel, intent))
    wrong = misplaced(intent.lab, intent.placement)
    if wrong:
        msg = (
            f"the plugins gave addresses that other nodes send elsewhere: {'; '.join(wrong[:3])}. Write ${{podCIDR}} "
            "for the subnet in the configuration list (networking.cni), take the lab down, and up again"
        )
        raise ConflictError(msg)
    _name(intent)
    return intent


def _converge(
    kernel: Kernel,
    intent: Intent,
    found: State,
    changes: list[Change],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Apply until nothing differs. Building from nothing takes one pass; one that alters what is there may
    take along more than its own object (a route with its address), so it is looked at again."""
    ops = _half_made(kernel, intent, found) + schedule(changes)
    for _ in range(_PASSES):
        kernel.apply(ops, _told(progress, len(ops)))
        if all(change.action == "create" or _is_limit(change) for change in changes):
            return
        changes = _changes(intent, _observed(kernel, intent))
        if not changes:
            return
        ops = schedule(changes)
    left = "; ".join(str(change) for change in changes[:3])
    msg = f"after {_PASSES} passes {len(changes)} differences are left, among them: {left}"
    raise KernelError(msg)


def _is_limit(change: Change) -> bool:
    """Whether this only changes how much the machine's neighbour table may hold."""
    each = change.object
    return isinstance(each, Sysctl) and not each.netns and "/neigh/default/" in each.name


def _told(progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    return lambda done: progress(done, total)


def _half_made(kernel: Kernel, intent: Intent, found: State) -> list[Op]:
    """Names of the lab's namespaces that a crash left without a namespace behind them."""
    before = set(intent.before.namespaces if intent.before else ())
    bare = (before & kernel.namespaces()) - {each.name for each in found.values() if isinstance(each, Netns)}
    return [Op("delete", Netns(name)) for name in sorted(bare)]


def _remember(intent: Intent, *, settled: bool) -> None:
    from podnet.lab.targets import earlier_of

    before = intent.before
    namespaces, machine_keys = set(intent.namespaces), set(intent.in_machine)
    if before is not None and not settled:
        namespaces |= set(before.namespaces)
        machine_keys |= {tuple(key) for key in before.machine_keys}
    entry = record.Record(
        name=intent.topology.name,
        path=str(Path(intent.topology.path).resolve()) if intent.topology.path else "",
        group=intent.group,
        settled=settled,
        namespaces=sorted(namespaces),
        machine_keys=sorted(list(key) for key in machine_keys),
        earlier=earlier_of(intent.placement),
        since=time.time() if before is None else before.since,
        body=intent.body,
        faults=list(intent.faults),
    )
    record.save(entry)
    if not settled:
        _reserve(intent)
        _name(intent)
    _keep_keys(intent, settled=settled)


def _keep_keys(intent: Intent, *, settled: bool) -> None:
    """New private keys are there before the kernel needs them, old ones until it needs them no more."""
    used = [node.public_key for node in intent.placement.nodes if node.public_key]
    had = any(name.startswith("key/") for name in (intent.before.earlier if intent.before else ()))
    if used or had:
        from podnet.lab import keys

        if settled:
            keys.remove_others(intent.topology.name, used)
        else:
            keys.keep(intent.topology.name, intent.new_keys)


def _name(intent: Intent) -> None:
    """Write the lab's hosts file; in place, because containers have this very file bound over /etc/hosts."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    for target in intent.lab.targets:
        first = [target.addresses(version)[:1] for version in intent.lab.versions]
        lines += [f"{address.ip} {target.name}" for addresses in first for address in addresses]
    path = Path(record.directory(intent.topology.name), HOSTS)
    text = "\n".join(lines) + "\n"
    # Truncated and written anew, it would be empty for a moment: not where it says all that already.
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="ascii")
        path.chmod(0o644)


def _reserve(intent: Intent) -> None:
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
