"""Checks of networks: IP versions, overlaps, capacity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import ip_network

from podnet.model.topology import Address, Network
from podnet.topology.context import Context
from podnet.topology.problem import quote
from podnet.topology.tree import Path

__all__ = ["MAX_PORTS", "check_capacity", "check_ranges", "first_host", "hosts", "pod_room", "written"]

MAX_PORTS = 1023  # BR_MAX_PORTS in net/bridge/br_private.h is 1024, and port 0 is not used
_SPECIAL = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "unspecified": ("0.0.0.0/8", "::/128"),
    "broadcast": ("255.255.255.255/32",),
}
_FITS = {(4,): "ipv4", (6,): "ipv6", (4, 6): "dual"}
_MASK_KEY = {4: "nodeCIDRMaskSizeIPv4", 6: "nodeCIDRMaskSizeIPv6"}


def written(versions: Iterable[int]) -> str:
    """IP versions in words."""
    return " and ".join(f"IPv{v}" for v in versions)


def hosts(network: Network) -> int:
    """How many addresses of the network a host can have: not its own, nor IPv4's broadcast."""
    return max(0, network.num_addresses - (2 if network.version == 4 else 1))


def first_host(network: Network) -> Address | None:
    """The first address behind the network's own: of a pod CIDR the gateway, of a subnet a router."""
    return network[1] if network.num_addresses > 1 else None


def pod_room(network: Network) -> int:
    """How many pods a pod CIDR holds: its hosts without the gateway."""
    return max(0, hosts(network) - 1)


def mask(context: Context, version: int) -> int:
    """The prefix length of a node's share of the pod subnet."""
    networking = context.file.networking
    return networking.node_cidr_mask_size_ipv4 if version == 4 else networking.node_cidr_mask_size_ipv6


def check_ranges(context: Context) -> None:
    """Versions, special ranges and overlaps of everything that is a network."""
    file = context.file
    _pod_subnet(context)
    named: list[tuple[Network, Path, str]] = [
        (network, ("networking", "podSubnet"), "`podSubnet`") for network in file.networking.pod_subnet or ()
    ]
    if file.networking.pod_subnet is None and context.intact("networking"):
        named += [(n, ("networking",), f"the default `podSubnet` {n}") for n in context.pod_subnets.values()]
    for i, subnet in enumerate(file.underlay.subnets):
        path: Path = ("underlay", "subnets", i, "cidr")
        _versions(context, path, f"subnet {quote(subnet.name)}", subnet.cidr)
        named += [(n, path, f"subnet {quote(subnet.name)}") for n in subnet.cidr]
    if not file.underlay.subnets and context.intact("underlay", "subnets"):
        named += [(n, ("underlay",), f"the default underlay {n}") for n in context.subnets[0].networks]
    for network, path, what in named:
        _special(context, network, path, what)
    _overlaps(context, named)
    _pod_cidrs(context)


def _versions(context: Context, path: Path, what: str, networks: tuple[Network, ...]) -> bool:
    found = tuple(n.version for n in networks)
    if found == context.versions or not context.intact("networking", "ipFamily"):
        return True
    family = context.file.networking.ip_family
    message = f"{what} is {written(found)}, and `ipFamily` is {family}"
    missing = [v for v in context.versions if v not in found]
    extra = [v for v in found if v not in context.versions]
    if missing:
        message += f": it needs an {written(missing)} network"
        hint = 'write both, with a comma between: "IPv4,IPv6"' if not extra else f"write its {written(missing)} network"
    else:
        hint = f"take the {written(extra)} network out"
    context.report(path, message, hint, part=context.part(path, extra[0]) if extra and len(found) > 1 else "")
    return False


def _pod_subnet(context: Context) -> None:
    networking = context.file.networking
    path: Path = ("networking", "podSubnet")
    found = tuple(n.version for n in networking.pod_subnet or ())
    if found and found != context.versions and context.intact("networking", "ipFamily"):
        given = context.text(("networking", "ipFamily"))
        family = given or f"{networking.ip_family} (the default)"
        message = f"`podSubnet` is {written(found)}, and `ipFamily` is {family}"
        context.report(
            path, message, f"write `ipFamily: {_FITS[found]}`, or a `podSubnet` that is {written(context.versions)}"
        )
    for version in (4, 6):
        key: Path = ("networking", _MASK_KEY[version])
        if version not in context.versions:
            if context.text(key) and not found.count(version):
                message = f"`{key[1]}` has no meaning: `ipFamily` is {networking.ip_family}"
                context.report(key, message, "take it out", key=True)
            continue
        subnet = context.pod_subnets[version]
        size = mask(context, version)
        if size < subnet.prefixlen and subnet.version == version and context.intact("networking", "podSubnet"):
            given = context.text(key)
            where = key if given else path
            what = f"`{key[1]}` is {size}" + ("" if given else " (the default)")
            message = f"a node's share of `podSubnet` cannot be larger than {subnet}: {what}"
            most = 30 if version == 4 else 126
            hint = (
                f"write `{key[1]}: {subnet.prefixlen}` or more"
                if subnet.prefixlen <= most
                else "take a larger `podSubnet`"
            )
            context.report(where, message, hint, part="" if given else context.part(path, version))


def _special(context: Context, network: Network, path: Path, what: str) -> None:
    for kind, ranges in _SPECIAL.items():
        for text in ranges:
            special = ip_network(text)
            if special.version == network.version and special.overlaps(network):
                message = f"{what}: {network} overlaps the {kind} range {special}"
                hint = (
                    "take a private range, for example 10.0.0.0/8"
                    if network.version == 4
                    else "take a range of fd00::/8"
                )
                context.report(path, message, hint, part=context.part(path, network.version))
                return


def _overlaps(context: Context, named: list[tuple[Network, Path, str]]) -> None:
    """Report each network that overlaps one before it in address order, at the one that comes later in the file."""
    ordered = sorted(named, key=lambda n: (n[0].version, int(n[0].network_address), n[0].prefixlen))
    widest: tuple[Network, Path, str] | None = None
    for entry in ordered:
        if widest is not None and widest[0].version == entry[0].version and widest[0].overlaps(entry[0]):
            first, second = sorted((widest, entry), key=lambda e: (len(e[1]) > 1, context.span(e[1])))
            network, path, what = second
            line = context.span(first[1]).line
            where = "" if len(first[1]) == 1 else f" on line {line}"
            other = first[2] if str(first[0]) in first[2] else f"{first[2]} {first[0]}"
            message = f"{what} {network} overlaps {other}{where}"
            context.report(path, message, "give each a range of its own", part=context.part(path, network.version))
        if widest is None or widest[0].version != entry[0].version or _last(entry[0]) > _last(widest[0]):
            widest = entry


def _inside(network: Network, wide: Network) -> bool:
    return int(wide.network_address) <= int(network.network_address) and _last(network) <= _last(wide)


def _last(network: Network) -> int:
    return int(network.broadcast_address)


def _pod_cidrs(context: Context) -> None:
    named: list[tuple[Network, Path, str]] = []
    for i, node in enumerate(context.file.nodes):
        if node.pod_cidr is None:
            continue
        path: Path = ("nodes", i, "podCIDR")
        what = f"`podCIDR` of node {quote(node.name)}"
        if not _versions(context, path, what, node.pod_cidr):
            continue
        for network in node.pod_cidr:
            part = context.part(path, network.version)
            subnet = context.pod_subnets.get(network.version)
            known = subnet is not None and context.intact("networking", "podSubnet")
            if not pod_room(network):
                context.report(
                    path, f"{what}: {network} holds no pod besides the gateway", "take a larger one", part=part
                )
            elif known and subnet is not None and not _inside(network, subnet):
                message = f"{what}: {network} is not inside `podSubnet` {subnet}"
                context.report(path, message, "take a part of `podSubnet`, or widen that", part=part)
            named.append((network, path, what))
    _overlaps(context, named)


def check_capacity(context: Context) -> None:
    """Enough pod CIDRs for the nodes, addresses for the pods, ports and addresses for the subnets."""
    for version in context.versions:
        _node_shares(context, version)
    pods = Counter[str]()
    for pod in context.file.pods:
        pods[pod.node] += pod.replicas or 1
    for i, node in enumerate(context.file.nodes):
        _pods_of_node(context, i, pods[node.name])
    _subnets(context)


def _node_shares(context: Context, version: int) -> None:
    """podSubnet has a free share for every node that brings none."""
    subnet, size = context.pod_subnets[version], mask(context, version)
    if subnet.prefixlen > size:
        return
    explicit = [n for node in context.file.nodes for n in node.pod_cidr or () if n.version == version]
    shift = subnet.max_prefixlen - size
    narrow = {int(n.network_address) >> shift for n in explicit if n.prefixlen >= size}
    taken = len(narrow) + sum(1 << (size - n.prefixlen) for n in explicit if n.prefixlen < size)
    free = (1 << (size - subnet.prefixlen)) - taken
    open_nodes = sum(1 for node in context.file.nodes if not node.pod_cidr)
    if open_nodes <= free or not context.intact("networking"):
        return
    path: Path = ("networking", "podSubnet")
    total = free + taken
    message = f"`podSubnet` {subnet} holds {total} {'node' if total == 1 else 'nodes'} of /{size}"
    message += f", {taken} of them taken by `podCIDR`" if taken else ""
    message += f", and {open_nodes} nodes need one" if taken else f", and there are {open_nodes} nodes"
    bits = (open_nodes + taken - 1).bit_length()
    hint = f"take a `podSubnet` of /{max(0, size - bits)} or larger"
    if subnet.prefixlen + bits <= (30 if version == 4 else 126):
        hint += f", or `{_MASK_KEY[version]}: {subnet.prefixlen + bits}`"
    given = bool(context.text(path))
    context.report(path if given else ("nodes",), message, hint, part=context.part(path, version), key=not given)


def _pods_of_node(context: Context, index: int, count: int) -> None:
    node = context.file.nodes[index]
    path: Path = ("nodes", index, "name")
    if count > MAX_PORTS:
        message = f"node {quote(node.name)} has {count:,} pods, and a bridge has at most {MAX_PORTS:,} ports"
        context.report(path, message, "move pods to another node")
        return
    explicit = {n.version: n for n in node.pod_cidr or ()}
    for version in context.versions:
        size = explicit[version].prefixlen if version in explicit else mask(context, version)
        room = pod_room(ip_network((0, size)) if version == 4 else ip_network((1 << 127, size), strict=False))
        if count <= room:
            continue
        message = f"node {quote(node.name)} has {count:,} pods, and its pod CIDR of /{size} holds {max(0, room):,}"
        wider = (32 if version == 4 else 128) - (count + 2).bit_length()
        if version in explicit:
            context.report(
                ("nodes", index, "podCIDR"),
                message,
                f"take a /{wider}",
                part=context.part(("nodes", index, "podCIDR"), version),
            )
        else:
            hint = f"write `networking.{_MASK_KEY[version]}: {wider}`, or move pods to another node"
            if wider < context.pod_subnets[version].prefixlen:
                hint = "take a larger `podSubnet`, or move pods to another node"
            context.report(path, message, hint)


def _subnets(context: Context) -> None:
    """A subnet is a bridge, too: its ports and its addresses are for nodes, clients and routers."""
    file = context.file
    users = Counter(s.name for _, _, host in context.hosts() if (s := context.subnet(host.subnet)) is not None)
    routers = Counter(name for router in file.underlay.routers for name in set(router.subnets))
    fixed = {address for _, _, host in context.hosts() for address in host.addresses}
    for i, subnet in enumerate(context.subnets):
        count = users[subnet.name] + routers[subnet.name]
        given = bool(file.underlay.subnets)
        path: Path = ("underlay", "subnets", i, "cidr") if given else ("nodes",)
        what = f"subnet {quote(subnet.name)}"
        if count > MAX_PORTS:
            message = f"{what} has {count:,} nodes, clients and routers, and a bridge has at most {MAX_PORTS:,} ports"
            context.report(path, message, "spread them over several subnets", key=not given)
            continue
        for network in subnet.networks:
            # the first address is a router's: without one it stays free, unless somebody asks for it
            kept = not routers[subnet.name] and first_host(network) not in fixed
            if count + kept > hosts(network):
                wider = network.max_prefixlen - (count + kept + 1).bit_length()
                first = ", its first address left to a router" if kept else ""
                message = f"{what}: {network} has {max(0, hosts(network) - kept):,} addresses for hosts{first}"
                part = context.part(path, network.version)
                context.report(path, f"{message}; {count:,} stand in it", f"take a /{wider} or larger", part=part)
