"""Kernel objects as rows of JSON values, and back."""

from __future__ import annotations

from typing import Any

from podnet.kernel.objects import (
    Address,
    Attached,
    BirdConf,
    Bridge,
    KernelObject,
    Loopback,
    Neighbours,
    Netns,
    NftTable,
    Peer,
    Process,
    Qdisc,
    Route,
    State,
    Sysctl,
    Tunnel,
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
    "sysctl": Sysctl,
    "nft": NftTable,
    "process": Process,
    "attachment": Attached,
    "bird": BirdConf,
}


_TUNNELS = {"vxlan", "wireguard", "ipip"}


def to_rows(state: State) -> list[list[Any]]:
    """One row an object: its kind, then its fields in order.

    Neighbours that several links share are written once: a row ``shared``, and its number in their place.
    """
    numbers: dict[tuple[tuple[str, str], ...], int] = {}
    rows: list[list[Any]] = []
    for each in state.values():
        if isinstance(each, Neighbours):
            number = numbers.setdefault(each.entries, len(numbers))
            rows.append(["neighbours", each.netns, each.dev, each.version, number])
        else:
            rows.append([each.kind, *each])
    return [*(["shared", *entries] for entries in numbers), *rows]


def from_rows(rows: list[list[Any]]) -> State:
    """The state that ``to_rows`` wrote."""
    state: State = {}
    shared: list[tuple[tuple[str, str], ...]] = []
    for kind, *values in rows:
        if kind == "shared":
            shared.append(tuple((address, mac) for address, mac in values))
            continue
        each = _object(kind, values, shared)
        state[each.key] = each
    return state


def _object(kind: str, values: list[Any], shared: list[tuple[tuple[str, str], ...]]) -> KernelObject:
    if kind == "process":
        netns, name, argv, env = values
        return Process(netns, name, tuple(argv), tuple((k, v) for k, v in env))
    if kind in _TUNNELS:
        netns, name, kind, options, *rest = values
        return Tunnel(netns, name, kind, tuple((k, v) for k, v in options), *rest)
    if kind == "qdisc":
        netns, dev, kind, settings = values
        return Qdisc(netns, dev, kind, tuple((k, v) for k, v in settings))
    if kind == "peer":
        netns, dev, kind, name, endpoint, allowed = values
        return Peer(netns, dev, kind, name, endpoint, tuple(allowed))
    if kind == "neighbours":
        netns, dev, version, number = values
        return Neighbours(netns, dev, version, shared[number])
    made: KernelObject = _TYPES[kind](*values)
    return made
