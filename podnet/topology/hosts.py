"""Checks of addresses: of nodes, clients and routers on the underlay, and of pods."""

from __future__ import annotations

from bisect import bisect_right
from ipaddress import ip_network

from podnet.model.topology import Address, Network, Subnet
from podnet.topology import schema
from podnet.topology.context import Context
from podnet.topology.problem import quote
from podnet.topology.ranges import first_host, hosts, mask, written
from podnet.topology.tree import Path

__all__ = ["check_hosts", "check_joined", "check_pod_addresses"]


def check_hosts(context: Context) -> None:
    """Fixed underlay addresses: of a version in use, in their subnet, usable, and each given once."""
    taken: dict[Address, str] = {}
    _routers(context, taken)
    for path, what, entry in context.hosts():
        subnet = context.subnet(entry.subnet)
        base: Path = (*path, "addresses")
        _one_per_version(context, base, what, entry.addresses)
        for j, address in enumerate(entry.addresses):
            if subnet is not None:
                _in_subnet(context, (*base, j), what, address, subnet)
            _once(context, (*base, j), what, address, taken)


def _routers(context: Context, taken: dict[Address, str]) -> None:
    """Routers' addresses: the given ones, and the first free ones of the subnets for which none is given."""
    for i, router in enumerate(context.file.underlay.routers):
        what = f"router {quote(router.name)}"
        joined = [s for name in dict.fromkeys(router.subnets) if (s := context.subnet(name)) is not None]
        given = _given(context, ("underlay", "routers", i, "addresses"), what, router.addresses, joined)
        for path, address, subnet in given.values():
            _in_subnet(context, path, what, address, subnet)
            _once(context, path, what, address, taken)
        for subnet in joined:
            for network in subnet.networks:
                if (subnet.name, network.version) not in given:
                    for number in range(1, min(hosts(network), len(taken) + 1) + 1):
                        if taken.setdefault(network[number], what) == what:
                            break


def _given(
    context: Context, base: Path, what: str, addresses: list[Address], joined: list[Subnet]
) -> dict[tuple[str, int], tuple[Path, Address, Subnet]]:
    """A router's own addresses by subnet and IP version."""
    given: dict[tuple[str, int], tuple[Path, Address, Subnet]] = {}
    for j, address in enumerate(addresses):
        path: Path = (*base, j)
        if address.version not in context.versions:
            _unused_version(context, path, what, address)
            continue
        subnet = next((s for s in joined if any(_holds(n, address) for n in s.networks)), None)
        if subnet is None:
            if len(joined) > 1:
                names = ", ".join(quote(s.name) for s in joined)
                message = f"{address} of {what} is in none of its subnets ({names})"
                context.report(path, message, "take one of their addresses")
        elif (subnet.name, address.version) in given:
            other = given[subnet.name, address.version][1]
            message = f"{what} has two IPv{address.version} addresses in subnet {quote(subnet.name)}"
            context.report(path, message, f"keep one of {other} and {address}")
        else:
            given[subnet.name, address.version] = (path, address, subnet)
    return given


def _holds(network: Network, address: Address) -> bool:
    return network.version == address.version and address in network


def _unused_version(context: Context, path: Path, what: str, address: Address) -> None:
    if context.intact("networking", "ipFamily"):
        message = f"{address} of {what} is IPv{address.version}, and `ipFamily` is {context.file.networking.ip_family}"
        context.report(path, message, f"take an {written(context.versions)} address")


def _one_per_version(context: Context, base: Path, what: str, addresses: list[Address]) -> None:
    for j, address in enumerate(addresses):
        if any(a.version == address.version for a in addresses[:j]):
            context.report((*base, j), f"{what} has two IPv{address.version} addresses", "one per IP version")


def _in_subnet(context: Context, path: Path, what: str, address: Address, subnet: Subnet) -> None:
    if address.version not in context.versions:
        _unused_version(context, path, what, address)
        return
    network = next((n for n in subnet.networks if n.version == address.version), None)
    if network is None:
        return  # the subnet lacks the version: told there
    if address not in network:
        message = f"{address} of {what} is not in its subnet {quote(subnet.name)}, {network}"
        other = next((s for s in context.subnets if any(_holds(n, address) for n in s.networks)), None)
        hint = (
            f"it is in subnet {quote(other.name)}: write `subnet: {other.name}`"
            if other
            else f"take an address of {network}"
        )
        context.report(path, message, hint)
        return
    _usable(context, path, what, address, network)


def _usable(context: Context, path: Path, what: str, address: Address, network: Network) -> None:
    if network.num_addresses > 2 and address == network.network_address:
        context.report(path, f"{address} of {what} is the address of the network {network} itself", "take another")
    elif network.num_addresses > 2 and address.version == 4 and address == network.broadcast_address:
        context.report(path, f"{address} of {what} is the broadcast address of {network}", "take another")


def _once(context: Context, path: Path, what: str, address: Address, taken: dict[Address, str]) -> None:
    other = taken.setdefault(address, what)
    if other != what:
        context.report(path, f"{address} of {what} is the address of {other} already", "take another")


def check_pod_addresses(context: Context) -> None:
    """Fixed pod addresses; where a node has no ``podCIDR``, they tell which share of ``podSubnet`` it gets."""
    nodes = {node.name: node for node in context.file.nodes}
    taken: dict[Address, str] = {}
    shares = _Shares(context)
    for i, pod in enumerate(context.file.pods):
        base: Path = ("pods", i, "addresses")
        what = f"pod {quote(pod.name)}"
        if pod.addresses and pod.replicas is not None:
            message = f"{what} has `replicas` and `addresses`, and replicas cannot share an address"
            context.report(base, message, "take one of the two out", key=True)
            continue
        _one_per_version(context, base, what, pod.addresses)
        for j, address in enumerate(pod.addresses):
            if address.version not in context.versions:
                _unused_version(context, (*base, j), what, address)
                continue
            node = nodes.get(pod.node)
            network = _pod_network(context, (*base, j), what, address, node, shares) if node else None
            if network is not None:
                _usable(context, (*base, j), what, address, network)
                if address == first_host(network):
                    context.report(
                        (*base, j),
                        f"{address} of {what} is the gateway of its node's pod CIDR {network}",
                        "take another",
                    )
            _once(context, (*base, j), what, address, taken)


def _pod_network(
    context: Context, path: Path, what: str, address: Address, node: schema.Node, shares: _Shares
) -> Network | None:
    """The pod CIDR that holds the address, ``None`` where there is none (which is told)."""
    explicit = next((n for n in node.pod_cidr or () if n.version == address.version), None)
    if explicit is not None:
        if address in explicit:
            return explicit
        message = f"{address} of {what} is not in `podCIDR` {explicit} of node {quote(node.name)}"
        context.report(path, message, f"take an address of {explicit}")
        return None
    subnet, size = context.pod_subnets[address.version], mask(context, address.version)
    if not _holds(subnet, address) or subnet.prefixlen > size:
        if context.intact("networking"):
            context.report(path, f"{address} of {what} is not in `podSubnet` {subnet}", f"take an address of {subnet}")
        return None
    share: Network = ip_network(f"{address}/{size}", strict=False)
    pinned = context.pinned.setdefault(node.name, {}).setdefault(address.version, share)
    if pinned != share:
        message = f"{address} of {what} is not in {pinned}, where another pod of node {quote(node.name)} is"
        context.report(path, message, "a node has one pod CIDR: take an address of it, or write `podCIDR` of the node")
        return None
    owner = shares.owner(share, node.name)
    if owner != node.name:
        message = (
            f"{address} of {what} is in the pod CIDR of node {quote(owner)}, and the pod runs on {quote(node.name)}"
        )
        context.report(path, message, f"write `node: {owner}`, or take another address")
        return None
    return share


class _Shares:
    """Which node a pod CIDR belongs to: by its ``podCIDR``, or because of a fixed address in it."""

    def __init__(self, context: Context) -> None:
        found = [
            (n.version, int(n.network_address), int(n.broadcast_address), node.name)
            for node in context.file.nodes
            for n in node.pod_cidr or ()
        ]
        self._explicit = sorted(found)
        self._pinned: dict[Network, str] = {}

    def owner(self, share: Network, node: str) -> str:
        """The owner of the share, which is the node from now on if it was nobody's."""
        start, end = int(share.network_address), int(share.broadcast_address)
        at = bisect_right(self._explicit, (share.version, end, 1 << 128, ""))
        if at:
            version, _, last, name = self._explicit[at - 1]
            if version == share.version and last >= start:
                return name
        return self._pinned.setdefault(share, node)


def check_joined(context: Context) -> None:
    """With a fabric, every node and client stands where routers lead to from every other."""
    if context.file.networking.fabric == "none" or not context.intact("underlay"):
        return
    group = {subnet.name: [subnet.name] for subnet in context.subnets}
    for router in context.file.underlay.routers:
        joined = list(dict.fromkeys(name for own in router.subnets for name in group.get(own, ())))
        group.update(dict.fromkeys(joined, joined))
    first: tuple[str, str] | None = None
    for path, what, entry in context.hosts():
        subnet = context.subnet(entry.subnet)
        if subnet is None:
            continue
        first = first or (subnet.name, what)
        if group[subnet.name] is not group[first[0]]:
            message = (
                f"{what} stands in subnet {quote(subnet.name)}, and no router joins that with {quote(first[0])}, "
                f"where {first[1]} stands"
            )
            hint = f"add to `underlay.routers`: {{name: router, subnets: [{first[0]}, {subnet.name}]}}"
            context.report((*path, "subnet") if entry.subnet is not None else (*path, "name"), message, hint)
