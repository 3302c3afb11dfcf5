"""How the kernel differs from what a lab's last ``up`` made; nothing is changed.

Apart from ``converge`` because ``status`` must be quick: no topology, no SQLite is imported here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from podnet.kernel.diff import Change, diff
from podnet.kernel.objects import Attached, Neighbours, NftTable, Process, Qdisc, Route, State, Sysctl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from podnet.kernel.interface import Kernel
    from podnet.kernel.process import ProcessStatus
    from podnet.lab.record import Record

__all__ = ["by_plugins", "drift", "in_machine", "neighbours_of", "own", "qdiscs_of", "sysctls_of", "tables_of"]


# Limits that labs raise together: more than this one asked for is no difference.
_AT_LEAST = ("/gc_thresh2", "/gc_thresh3")


def own(found: State, machine_keys: set[tuple[str, ...]], wanted: State) -> State:
    """Leave out what other labs and other people have in the machine's own namespace.

    Where CNI plugins attach pods, namespaces hold what is theirs: then only what is ``wanted`` counts. A limit that
    is higher than ``wanted`` is what is wanted.
    """
    if by_plugins(wanted):
        ours = {key: each for key, each in found.items() if key in wanted or isinstance(each, Attached | Process)}
    else:
        ours = {key: each for key, each in found.items() if each.netns or key in machine_keys}
    for key in machine_keys:
        new, was = wanted.get(key), ours.get(key)
        if isinstance(new, Sysctl) and isinstance(was, Sysctl) and new.name.endswith(_AT_LEAST):
            with suppress(ValueError):
                ours[key] = new if int(was.value) >= int(new.value) else was
    return ours


def by_plugins(wanted: State) -> bool:
    """Whether pods are attached by CNI plugins."""
    return any(isinstance(each, Attached) for each in wanted.values())


def in_machine(machine_keys: Iterable[Sequence[str]]) -> bool:
    """Whether a lab has anything in the machine's own namespace to look for, other than sysctls."""
    return any(key[0] != "sysctl" for key in machine_keys)


def sysctls_of(wanted: State) -> list[tuple[str, str]]:
    """The (netns, name) of the sysctls to observe."""
    return [(each.netns, each.name) for each in wanted.values() if isinstance(each, Sysctl)]


def neighbours_of(wanted: State) -> set[str]:
    """The namespaces in which to look for permanent neighbours."""
    return {each.netns for each in wanted.values() if isinstance(each, Neighbours)}


def qdiscs_of(wanted: State) -> set[str]:
    """The namespaces in which to look for impairments."""
    return {each.netns for each in wanted.values() if isinstance(each, Qdisc)}


def tables_of(wanted: State) -> list[NftTable]:
    """The nftables tables to observe."""
    return [each for each in wanted.values() if isinstance(each, NftTable)]


def drift(
    entry: Record,
    kernel: Kernel,
    processes: Sequence[ProcessStatus] = (),
    sessions: Callable[[str], str] | None = None,
) -> tuple[list[Change], State]:
    """How the kernel differs from what the lab's last ``up`` made, and what was found; nothing is changed.

    ``sessions`` tells of the routing daemon in a namespace, in words; it is asked where a route was not learned.
    """
    wanted = entry.wanted
    names = set(entry.namespaces) | ({""} if in_machine(entry.machine_keys) else set())
    found = kernel.observe(names, sysctls_of(wanted), tables_of(wanted), neighbours_of(wanted), qdiscs_of(wanted))
    keys = {tuple(key) for key in entry.machine_keys}
    ours = own(found, keys, wanted)
    changes = diff(wanted, ours, entry.group)
    ended = {each.process.name: each for each in processes if each.state != "running"}
    changes = [_with_end(change, ended) for change in changes]
    return (_with_sessions(changes, sessions) if sessions else changes), found


def _with_sessions(changes: list[Change], sessions: Callable[[str], str]) -> list[Change]:
    told: dict[str, str] = {}
    found = []
    for change in changes:
        new = change.new
        if isinstance(new, Route) and new.learned and change.action == "create":
            if new.netns not in told:
                told[new.netns] = sessions(new.netns)
            found.append(change._replace(reason=f"is not learned; {told[new.netns]}"))
        else:
            found.append(change)
    return found


def _with_end(change: Change, ended: dict[str, ProcessStatus]) -> Change:
    new = change.new
    if not isinstance(new, Process) or change.action != "create":
        return change
    status = ended.get(new.name)
    if status is None:
        return change._replace(reason="is not running")
    if status.message:
        return change._replace(reason=status.message)
    how = f"signal {status.signal}" if status.signal else f"code {status.exit_code}"
    return change._replace(reason=f"has ended with {how}")
