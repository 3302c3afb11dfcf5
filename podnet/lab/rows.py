"""Kernel objects as rows of JSON values, and back."""

from __future__ import annotations

from typing import Any

from podnet.kernel.objects import (
    Address,
    Bridge,
    KernelObject,
    Loopback,
    Neighbour,
    Netns,
    NftTable,
    Process,
    Route,
    State,
    Sysctl,
    Veth,
)

__all__ = ["from_rows", "to_rows"]

_TYPES: dict[str, Any] = {
    "netns": Netns,
    "loopback": Loopback,
    "bridge": Bridge,
    "veth": Veth,
    "address": Address,
    "route": Route,
    "neighbour": Neighbour,
    "sysctl": Sysctl,
    "nft": NftTable,
    "process": Process,
}


def to_rows(state: State) -> list[list[Any]]:
    """One row an object: its kind, then its fields in order."""
    return [[each.kind, *each] for each in state.values()]


def from_rows(rows: list[list[Any]]) -> State:
    """The state that ``to_rows`` wrote."""
    state: State = {}
    for kind, *values in rows:
        if kind == "process":
            netns, name, argv, env = values
            each: KernelObject = Process(netns, name, tuple(argv), tuple((k, v) for k, v in env))
        else:
            each = _TYPES[kind](*values)
        state[each.key] = each
    return state
