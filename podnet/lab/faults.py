"""Faults that commands make in a running lab, and undo: kept in its record, part of what is wanted from then on.

``with_faults`` turns the wanted state of a healthy lab into that of the broken one; the rest is the usual way: what
differs from it is drift, and ``up`` keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podnet.errors import KernelError, UsageError
from podnet.kernel.diff import diff
from podnet.kernel.impairment import described, kind_of
from podnet.kernel.objects import (
    Address,
    Bridge,
    KernelObject,
    Neighbours,
    NftTable,
    Process,
    Qdisc,
    Route,
    State,
    Tunnel,
    Veth,
    replace,
)
from podnet.kernel.schedule import schedule
from podnet.lab import record
from podnet.lab.drift import neighbours_of, own, qdiscs_of, sysctls_of, tables_of
from podnet.model.fault import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podnet.kernel.interface import Kernel

__all__ = ["change", "from_rows", "named", "shown", "with_faults"]

_PASSES = 4
_SWITCH = "underlay"


def from_rows(rows: Sequence[Sequence[Any]]) -> list[Fault]:
    """The faults of a record."""
    return [
        Fault(kind, target, interface, tuple((k, v) for k, v in settings), tuple(tuple(group) for group in groups))
        for kind, target, interface, settings, groups in rows
    ]


def shown(fault: Fault) -> str:
    """A fault in words."""
    match fault.kind:
        case "impair":
            return f"{fault.where}: {described(fault.settings)}"
        case "link":
            return f"{fault.where}: down"
        case "node":
            return f"{fault.where}: stopped"
        case _:
            return f"partition: {fault.where}"


def with_faults(wanted: State, faults: Sequence[Fault], lab: dict[str, Any]) -> State:
    """``wanted`` with these faults in it; ``lab`` is what the record says of its targets. No I/O."""
    targets = {each["name"]: each for each in lab["targets"]}
    changed = dict(wanted)
    for fault in faults:
        if fault.kind == "partition":
            table = _partition(fault, lab)
            changed[table.key] = table
            continue
        netns = targets[fault.target]["netns"]
        if fault.kind == "impair":
            qdisc = Qdisc(netns, fault.interface, kind_of(fault.settings), fault.settings)
            changed[qdisc.key] = qdisc
        elif fault.kind == "link":
            _set_down(changed, netns, fault.interface)
        else:
            for each in wanted.values():
                if isinstance(each, Bridge | Veth | Tunnel) and each.netns == netns:
                    _set_down(changed, netns, each.name)
            on = {netns, *(pod["netns"] for pod in targets.values() if pod["node"] == fault.target)}
            for key in [k for k, each in changed.items() if isinstance(each, Process) and each.netns in on]:
                del changed[key]
    learned = [each for each in wanted.values() if isinstance(each, Route) and each.learned]
    if learned:
        from podnet.lab.hearsay import unheard

        for route in unheard(learned, faults, lab):
            changed.pop(route.key, None)
    return changed


def _set_down(state: State, netns: str, dev: str) -> None:
    """A link that is down, without what the kernel takes off such a link."""
    link = state.get(("link", netns, dev))
    if not isinstance(link, Bridge | Veth | Tunnel):
        return
    state[link.key] = replace(link, up=False)
    gone = [each for each in state.values() if _hangs_on(each, netns, dev)]
    sources = {each.address.partition("/")[0] for each in gone if isinstance(each, Address)}
    for each in gone:
        del state[each.key]
    for key, each in list(state.items()):
        if isinstance(each, Route) and each.netns == netns and each.src in sources:
            state[key] = replace(each, src="")  # IPv6 forgets a source that is gone


def _hangs_on(each: KernelObject, netns: str, dev: str) -> bool:
    if isinstance(each, Route | Neighbours):
        return (each.netns, each.dev) == (netns, dev)
    return isinstance(each, Address) and (each.netns, each.dev) == (netns, dev) and ":" in each.address


def _partition(fault: Fault, lab: dict[str, Any]) -> NftTable:
    """What the underlay's switches drop: all between nodes of different groups, tunnelled or not."""
    lines, rules = [], []
    for version, name in ((4, "ip"), (6, "ip6")):
        if version not in lab["versions"]:
            continue
        for number, group in enumerate(fault.groups):
            elements = ", ".join(_networks(lab, group, version))
            kind = f"type ipv{version}_addr\nflags interval\nelements = {{ {elements} }}"
            lines.append(f"set side{number}v{version} {{\n{kind}\n}}")
        rules += [
            f"{name} saddr @side{here}v{version} {name} daddr @side{there}v{version} drop"
            for here in range(len(fault.groups))
            for there in range(len(fault.groups))
            if here != there
        ]
    chain = "chain forward {\ntype filter hook forward priority filter; policy accept;\n" + "\n".join(rules) + "\n}"
    return NftTable(f"{lab['name']}.{_SWITCH}", "bridge", "podnet", "\n".join([*lines, chain]))


def _networks(lab: dict[str, Any], group: Sequence[str], version: int) -> list[str]:
    """The nodes' underlay addresses and pod CIDRs, in the order in which nft lists them."""
    from ipaddress import ip_interface, ip_network

    found = []
    for target in lab["targets"]:
        if target["name"] in group:
            uplink, *others = target["interfaces"]
            found += [ip_network(ip_interface(text).ip) for text in uplink["addresses"]]
            found += [ip_interface(text).network for each in others for text in each["addresses"]]
    mine = sorted((n for n in found if n.version == version), key=lambda n: int(n.network_address))
    return [str(n.network_address) if n.prefixlen == n.max_prefixlen else str(n) for n in mine]


def change(name: str, kernel: Kernel, edit: Callable[[list[Fault], record.Record], list[Fault]]) -> list[Fault]:
    """Change a lab's faults and make the kernel follow; returns those that there are now.

    Only what the change is about is touched: other drift stays as it is. Raises what ``edit`` raises, and
    ``KernelError`` where the kernel refused; ``podnet up`` then completes it.
    """
    with record.locked(name):
        before = record.find(name)
        faults = edit(from_rows(before.faults), before)
        after = before._replace(faults=[list(fault) for fault in faults])
        old, new = before.wanted, after.wanted
        keys = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        meanwhile = _in_machine(old) | _in_machine(new) | {tuple(key) for key in before.machine_keys}
        record.save(after._replace(settled=False, machine_keys=sorted(map(list, meanwhile))))
        _follow(kernel, after, old, new, keys)
        record.save(after._replace(machine_keys=sorted(map(list, _in_machine(new)))))
        return faults


def _in_machine(state: State) -> set[tuple[str, ...]]:
    """The keys of what is in the machine's own namespace."""
    return {key for key, each in state.items() if not each.netns}


def _follow(kernel: Kernel, entry: record.Record, old: State, new: State, keys: set[tuple[str, ...]]) -> None:
    both = old | new
    names = set(entry.namespaces) | ({""} if entry.machine_keys else set())
    mine = {tuple(key) for key in entry.machine_keys} | {key for key in keys if key[1] == ""}
    for _ in range(_PASSES):
        found = kernel.observe(names, sysctls_of(both), tables_of(both), neighbours_of(both), qdiscs_of(both))
        changes = [each for each in diff(new, own(found, mine, both), entry.group) if each.object.key in keys]
        if not changes:
            return
        kernel.apply(schedule(changes))
    msg = f"after {_PASSES} passes differences are left, among them: {changes[0]}"
    raise KernelError(msg)


def named(entry: record.Record, name: str, kinds: Sequence[str]) -> dict[str, Any]:
    """A target of these kinds. Raises ``UsageError`` saying which there are."""
    found = [each for each in entry.lab_json["targets"] if each["kind"] in kinds]
    for each in found:
        if each["name"] == name:
            chosen: dict[str, Any] = each
            return chosen
    there = ", ".join(each["name"] for each in found[:10]) or "none"
    msg = f"lab {entry.name} has no {' or '.join(kinds)} {name}: there are {there}"
    raise UsageError(msg)
