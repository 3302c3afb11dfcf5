"""What ``status`` shows: each target as the kernel has it now, its containers, and the drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podnet.kernel.objects import Address, Bridge, State, Veth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.kernel.diff import Change
    from podnet.kernel.process import ProcessStatus
    from podnet.lab.record import Record

__all__ = ["change_json", "document"]


def document(
    entry: Record, found: State, changes: Sequence[Change], processes: Sequence[ProcessStatus]
) -> dict[str, Any]:
    """The lab as ``podnet status -o json`` prints it.

    ``netns`` is the name under ``/run/netns``, ``null`` for a node that is the machine itself; ``interfaces``
    are those found, with ``mtu`` in bytes.
    """
    by_name = {each.process.name: each for each in processes}
    addresses: dict[tuple[str, str], list[str]] = {}
    for each in found.values():
        if isinstance(each, Address):
            addresses.setdefault((each.netns, each.dev), []).append(each.address)
    kinds: dict[str, list[dict[str, Any]]] = {"node": [], "pod": [], "client": [], "router": []}
    for target in entry.lab_json["targets"]:
        shown: dict[str, Any] = {"name": target["name"], "netns": target["netns"] or None}
        if target["kind"] == "pod":
            shown["node"] = target["node"]
        if target["labels"]:
            shown["labels"] = target["labels"]
        shown["interfaces"] = [
            _interface(link, addresses)
            for wanted in target["interfaces"]
            if isinstance(link := found.get(("link", target["netns"], wanted["name"])), Bridge | Veth)
        ]
        if target["kind"] == "pod" or target["containers"]:
            shown["containers"] = [
                _container(name, by_name.get(f"{target['name']}/{name}")) for name in target["containers"]
            ]
        kinds[target["kind"]].append(shown)
    return {
        "name": entry.name,
        "topology": entry.path,
        "state": _state(entry, changes),
        "since": entry.since,
        "nodes": kinds["node"],
        "pods": kinds["pod"],
        "clients": kinds["client"],
        "routers": kinds["router"],
        "faults": _faults(entry),
        "drift": [change_json(change) for change in changes],
    }


def _faults(entry: Record) -> list[dict[str, str]]:
    """What is broken on purpose: by the file's ``impair``, and by commands."""
    found = []
    commanded: set[tuple[str, str]] = set()
    if entry.faults:
        from podnet.lab.faults import from_rows, shown

        for fault in from_rows(entry.faults):
            found.append({"kind": fault.kind, "where": fault.where, "what": shown(fault), "by": "command"})
            if fault.kind == "impair":
                commanded.add((fault.target, fault.interface))
    qdiscs = [row for row in entry.body.content["wanted"] if row[0] == "qdisc"]
    if qdiscs:
        from podnet.kernel.impairment import described

        names = {target["netns"]: target["name"] for target in entry.lab_json["targets"]}
        for _, netns, dev, _, settings in qdiscs:
            if (names[netns], dev) not in commanded:
                where = f"{names[netns]}:{dev}"
                what = f"{where}: {described(tuple((name, value) for name, value in settings))}"
                found.append({"kind": "impair", "where": where, "what": what, "by": "topology"})
    return found


def _state(entry: Record, changes: Sequence[Change]) -> str:
    if not entry.settled:
        return "unfinished"
    return "drifted" if changes else "up"


def _interface(link: Bridge | Veth, addresses: dict[tuple[str, str], list[str]]) -> dict[str, Any]:
    return {
        "name": link.name,
        "mac": link.mac,
        "mtu": link.mtu,
        "up": link.up,
        "addresses": addresses.get((link.netns, link.name), []),
    }


def _container(name: str, status: ProcessStatus | None) -> dict[str, Any]:
    if status is None:
        return {"name": name, "state": "not running"}
    shown: dict[str, Any] = {"name": name, "state": status.state, "pid": status.pid, "started": status.started}
    if status.state != "running":
        shown |= {"exit_code": status.exit_code, "signal": status.signal}
    if status.message:
        shown["message"] = status.message
    return shown


def change_json(change: Change) -> dict[str, Any]:
    """One change as JSON: what, where, why."""
    each = change.object
    return {
        "action": change.action,
        "kind": each.kind,
        "netns": each.netns or None,
        "object": str(each),
        "reason": change.reason,
        "fields": list(change.fields),
    }
