"""What must hold before the kernel is touched: nothing foreign in the way."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING

from podnet.errors import CapabilityError, ConflictError, PodnetError
from podnet.kernel.objects import Address, Attached, Bridge, NftTable, Route, State, Tunnel, Veth, owned

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from podnet.kernel.objects import KernelObject
    from podnet.model.topology import Network

__all__ = ["foreign_in_machine", "foreign_namespaces", "plugins"]


def foreign_namespaces(wanted: Iterable[str], existing: Collection[str], ours: Collection[str]) -> None:
    """Refuse names that exist and are not this lab's. Raises ``ConflictError``."""
    taken = sorted(name for name in wanted if name in existing and name not in ours)
    if taken:
        shown = ", ".join(taken[:5]) + (f" and {len(taken) - 5} more" if len(taken) > 5 else "")
        msg = (
            f"namespaces that podnet did not make have the names that it needs: {shown}; "
            f"rename the lab (name:), or delete them with 'ip netns del' if nobody needs them"
        )
        raise ConflictError(msg)


def foreign_in_machine(wanted: State, found: State, ours: Collection[tuple[str, ...]], group: int) -> None:
    """Refuse what would collide in the machine's own namespace: names, and networks that overlap.

    ``ours`` are the keys that this lab put there earlier. Raises ``ConflictError``.
    """
    problems = []
    foreign = {key: each for key, each in found.items() if key not in ours}
    for key, new in wanted.items():
        was = foreign.get(key)
        if was is None or was.netns:
            continue
        if isinstance(new, Bridge | Veth | Tunnel) and not owned(was, group):
            what = ": choose another name (networking.bridge)" if isinstance(new, Bridge) else ""
            problems.append(f"{was} exists and is not this lab's{what}")
        elif isinstance(new, Route | Address | NftTable):
            problems.append(f"{was} exists and is not this lab's: delete it if nobody needs it")
    problems += _overlaps(wanted, foreign)
    if problems:
        raise ConflictError("in the machine's own namespace (host: true): " + "; ".join(problems))


def _overlaps(wanted: State, foreign: State) -> list[str]:
    ours = [(n, each) for each in wanted.values() for n in _networks(each)]
    theirs = [(n, each) for each in foreign.values() for n in _networks(each)]
    return [
        f"{new} overlaps with {was}: choose other networks (podSubnet, underlay)"
        for network, new in ours
        for other, was in theirs
        if _overlap(network, other) and new.key != was.key
    ]


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def _networks(each: KernelObject) -> list[Network]:
    if isinstance(each, Route) and not each.netns and not each.dst.endswith("/0"):
        return [ip_network(each.dst)]
    if isinstance(each, Address) and not each.netns:
        return [ip_network(each.address, strict=False)]
    return []


def plugins(wanted: State, earlier: State) -> None:
    """Refuse a lab whose plugins are not there, or whose pods somebody else attached.

    Raises ``CapabilityError``, ``ConflictError``.
    """
    from podnet.cni.runtime import invoke
    from podnet.topology.cninetwork import plugin_types

    now, then = (
        {each.config: each.path for each in state.values() if isinstance(each, Attached)} for state in (wanted, earlier)
    )
    if earlier and bool(now) != bool(then):
        msg = (
            "the lab's pods are attached in another way (networking.cni), and what that made on the nodes would stay:"
            " take the lab down first"
        )
        raise ConflictError(msg)
    for config, path in now.items():
        for each in plugin_types(config):
            try:
                invoke.find(each, tuple(path.split(":")))
            except PodnetError as error:
                msg = f"{error} (networking.cniPath says where plugins are)"
                raise CapabilityError(msg) from error
