"""What a fault does, as data that goes to disk before the kernel is touched: actions, their undoing, and looks.

An action is a row of text: ``("run", netns, input, word...)`` is a command in a namespace, ``("op", verb, row)`` an
operation on a kernel object. A look is a row that says how to see the one thing that a step changes: as long as
the look shows what it showed before, there is nothing to undo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from podnet.kernel.objects import Address, Route, replace
from podnet.lab.rows import to_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podnet.kernel.objects import KernelObject, State

__all__ = [
    "Step",
    "address_added",
    "address_deleted",
    "containers_stopped",
    "link_changed",
    "mac_pinned",
    "neighbour_fixed",
    "neighbours_refused",
    "port_changed",
    "prefix_changed",
    "route_added",
    "route_changed",
    "route_deleted",
    "rules_added",
    "rules_flushed",
    "sysctl_changed",
]

Row = list[Any]


class Step(NamedTuple):
    """One change: ``do`` and ``undo`` are actions, ``looks`` are what shows whether it is in effect."""

    do: list[Row]
    undo: list[Row]
    looks: list[Row]


def _run(netns: str, *words: str, text: str = "") -> Row:
    return ["run", netns, text, *words]


def _op(verb: str, each: KernelObject) -> Row:
    return ["op", verb, to_rows({each.key: each})[0]]


def _family(address: str) -> str:
    return "-6" if ":" in address else "-4"


def _look_route(netns: str, prefix: str) -> Row:
    return ["ip", netns, _family(prefix), "route", "show", "exact", prefix]


def sysctl_changed(netns: str, name: str, value: str, before: str) -> Step:
    """A sysctl (``net/ipv4/ip_forward``) gets another value."""
    dotted = name.replace("/", ".")
    return Step(
        [_run(netns, "sysctl", "-qw", f"{dotted}={value}")],
        [_run(netns, "sysctl", "-qw", f"{dotted}={before}")],
        [["sysctl", netns, name]],
    )


def route_deleted(route: Route) -> Step:
    """A route is taken away."""
    return Step([_op("delete", route)], [_op("set", route)], [_look_route(route.netns, route.dst)])


def route_changed(route: Route, **fields: Any) -> Step:
    """A route gets another next hop, MTU or device."""
    return Step([_op("set", replace(route, **fields))], [_op("set", route)], [_look_route(route.netns, route.dst)])


def route_added(netns: str, prefix: str, *words: str, kind: str = "unicast") -> Step:
    """A further route, as somebody would add it by hand."""
    start = ("ip", _family(prefix), "route")
    typed = () if kind == "unicast" else (kind,)
    return Step(
        [_run(netns, *start, "add", *typed, prefix, *words)],
        [_run(netns, *start, "del", *typed, prefix, *words)],
        [_look_route(netns, prefix)],
    )


def address_added(netns: str, dev: str, address: str) -> Step:
    """A further address, without duplicate detection."""
    nodad = ("nodad",) if ":" in address else ()
    return Step(
        [_run(netns, "ip", "address", "add", address, "dev", dev, *nodad)],
        [_run(netns, "ip", "address", "del", address, "dev", dev)],
        [_look_addresses(netns, dev, address)],
    )


def _look_addresses(netns: str, dev: str, address: str) -> Row:
    return ["ip", netns, _family(address), "address", "show", "dev", dev, "scope", "global"]


def address_deleted(address: Address, found: State) -> Step:
    """An address is taken away; the routes that go with it come back with it."""
    looks = [_look_addresses(address.netns, address.dev, address.address)]
    looks.append(["ip", address.netns, _family(address.address), "route", "show", "dev", address.dev])
    return Step([_op("delete", address)], [_op("add", address), *_routes_of(address, found)], looks)


def _routes_of(address: Address, found: State) -> list[Row]:
    routes = [
        each
        for each in found.values()
        if isinstance(each, Route)
        and (each.netns, each.dev) == (address.netns, address.dev)
        and (":" in each.dst) == (":" in address.address)
    ]
    return [_op("set", route) for route in sorted(routes, key=lambda route: bool(route.via))]


def prefix_changed(address: Address, length: int, found: State) -> Step:
    """An address gets another prefix length; in this order, so that the routes stay where they can."""
    other = replace(address, address=f"{address.address.partition('/')[0]}/{length}")
    do, undo = [_op("add", other), _op("delete", address)], [_op("add", address), _op("delete", other)]
    if ":" in address.address:  # IPv6 takes an address only once on a device
        do.reverse()
        undo.reverse()
    routes = _routes_of(address, found)
    looks = [_look_addresses(address.netns, address.dev, address.address)]
    looks.append(["ip", address.netns, _family(address.address), "route", "show", "dev", address.dev])
    return Step([*do, *routes], [*undo, *routes], looks)


def link_changed(netns: str, dev: str, do: tuple[str, ...], undo: tuple[str, ...], found: State | None = None) -> Step:
    """A link is set up, down, to an MTU, into a bridge; ``found`` is given where addresses and routes go with it."""
    back: list[Row] = []
    looks: list[Row] = [["link", netns, dev]]
    if found is not None:
        own = [a for a in found.values() if isinstance(a, Address) and (a.netns, a.dev) == (netns, dev)]
        back = [_op("add", a) for a in own if ":" in a.address]  # IPv4 addresses stay
        for version, sign in (("-4", "."), ("-6", ":")):
            of_version = [a for a in own if sign in a.address]
            if of_version:
                back += _routes_of(of_version[0], found)
                looks.append(["ip", netns, version, "route", "show", "dev", dev])
                looks.append(_look_addresses(netns, dev, of_version[0].address))
    return Step(
        [_run(netns, "ip", "link", "set", dev, *do)], [_run(netns, "ip", "link", "set", dev, *undo), *back], looks
    )


def port_changed(netns: str, dev: str, flag: str, value: str, before: str) -> Step:
    """A flag of a bridge port (``isolated``, ``hairpin``, ``state``) gets another value."""
    start = ("bridge", "link", "set", "dev", dev, flag)
    return Step([_run(netns, *start, value)], [_run(netns, *start, before)], [["link", netns, dev]])


def neighbour_fixed(netns: str, dev: str, address: str, mac: str, before: str = "") -> Step:
    """A permanent neighbour with a MAC; ``before`` is the permanent one that was there, written by podnet."""
    start = ("ip", "neigh", "replace", address, "dev", dev, "nud", "permanent", "lladdr")
    undo = [_run(netns, "ip", "neigh", "del", address, "dev", dev)]
    if before:
        undo = [_run(netns, *start, before, "protocol", "112")]
    look = ["ip", netns, "neigh", "show", address, "dev", dev, "nud", "permanent"]
    return Step([_run(netns, *start, mac)], undo, [look])


def neighbours_refused(namespaces: list[str], limits: Mapping[str, str]) -> Step:
    """The machine's neighbour table takes no entry more, and these namespaces forget theirs.

    ``limits`` are the sysctls as they are. At 0 the kernel takes a new entry only if it can throw away one that was not
    touched for five seconds: not two in a row, which a question and its answer need.
    """
    names = list(limits)
    return Step(
        [_run("", "sysctl", "-qw", *(f"{name.replace('/', '.')}=0" for name in names))]
        + [_run(netns, "ip", "neigh", "flush", "all") for netns in namespaces],
        [_run("", "sysctl", "-qw", *(f"{name.replace('/', '.')}={value}" for name, value in limits.items()))],
        [["sysctl", "", name] for name in names],
    )


def mac_pinned(netns: str, dev: str, mac: str) -> Step:
    """A MAC is pinned at a bridge port, whatever comes in by others."""
    return Step(
        [_run(netns, "bridge", "fdb", "replace", mac, "dev", dev, "master", "static", "sticky")],
        [_run(netns, "bridge", "fdb", "del", mac, "dev", dev, "master")],
        [["fdb", netns, dev, mac]],
    )


def rules_added(netns: str, family: str, table: str, text: str) -> Step:
    """A table of nftables rules; refused by the kernel where there is one of that name."""
    whole = f"create table {family} {table}\ntable {family} {table} {{\n{text}\n}}\n"
    return Step(
        [_run(netns, "nft", "-f", "-", text=whole)],
        [_run(netns, "nft", "delete", "table", family, table)],
        [["nft", netns, family, table]],
    )


def rules_flushed(netns: str, family: str, table: str, chain: str, listing: str) -> Step:
    """A chain loses its rules; ``listing`` is the table's text as it was."""
    text = f"delete table {family} {table}\ntable {family} {table} {{\n{listing}\n}}\n"
    return Step(
        [_run(netns, "nft", "flush", "chain", family, table, chain)],
        [_run(netns, "nft", "-f", "-", text=text)],
        [["nft", netns, family, table]],
    )


def containers_stopped(names: list[str]) -> Step:
    """Containers end, and with them their listeners."""
    return Step([["stop", *names]], [["start", *names]], [["containers", *names]])
