"""Kernel objects as rows of JSON values, and back."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from podnet.kernel import objects

__all__ = ["from_rows", "to_rows"]

_TYPES: dict[str, Any] = {
    each.kind: each
    for each in (
        objects.Netns,
        objects.Loopback,
        objects.Bridge,
        objects.Veth,
        objects.Address,
        objects.Route,
        objects.Neighbour,
        objects.Sysctl,
        objects.NftTable,
        objects.Process,
    )
}
_NAMES = {kind: tuple(f.name for f in fields(each)) for kind, each in _TYPES.items()}


def to_rows(state: objects.State) -> list[list[Any]]:
    """One row an object: its kind, then its fields in order."""
    return [[each.kind, *(getattr(each, name) for name in _NAMES[each.kind])] for each in state.values()]


def from_rows(rows: list[list[Any]]) -> objects.State:
    """The state that ``to_rows`` wrote."""
    state: objects.State = {}
    for kind, *values in rows:
        if kind == "process":
            netns, name, argv, env = values
            each: objects.KernelObject = objects.Process(netns, name, tuple(argv), tuple((k, v) for k, v in env))
        else:
            each = _TYPES[kind](*values)
        state[each.key] = each
    return state
