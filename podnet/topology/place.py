"""Choose the addresses that the file leaves open; no I/O.

What an earlier run of the same lab chose is kept as long as it still fits, so that adding or removing a pod or a
node moves nobody else.
"""

from __future__ import annotations

from collections import defaultdict
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network
from itertools import chain
from typing import TYPE_CHECKING

from podnet.errors import TopologyError
from podnet.ipam.pool import Pool, PoolExhaustedError
from podnet.model.placement import PlacedClient, PlacedNode, PlacedPod, PlacedRouter, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from podnet.model.lab import InterfaceAddress
    from podnet.model.topology import Address, Client, Network, Networking, Node, Topology

__all__ = ["Earlier", "place"]

# What an earlier run chose, as text: "pod/web" -> addresses, "node/n1" -> addresses, "cidr/n1" -> pod CIDRs,
# "as/n1" -> AS number.
Earlier = dict[str, tuple[str, ...]]

_LAST_SHORT_AS, _PRIVATE_AS = 65534, 4200000000  # private are 64512 to the one, and from the other on (RFC 6996)
_AS_TRANS = 23456  # stands for numbers that a speaker does not know (RFC 6793)


def place(topology: Topology, earlier: Mapping[str, Sequence[str]] | None = None) -> Placement:
    """Give everything its addresses. Raises ``TopologyError`` naming each network that is too small."""
    earlier = earlier or {}
    problems: list[str] = []
    underlay = _Underlay(topology, earlier, problems)
    numbers = _as_numbers(topology, earlier)
    routers = tuple(PlacedRouter(r, underlay.router(r.name), numbers.get(r.name, 0)) for r in topology.routers)
    cidrs = _node_cidrs(topology, earlier, problems)
    addresses = {each.name: underlay.host(each) for each in _hosts(topology)}
    if problems:
        raise TopologyError(problems)
    nodes = tuple(
        PlacedNode(
            node,
            addresses[node.name],
            cidrs[node.name],
            tuple(Pool(c).gateway for c in cidrs[node.name]),
            as_number=numbers.get(node.name, 0),
        )
        for node in topology.nodes
    )
    clients = tuple(PlacedClient(client, addresses[client.name]) for client in topology.clients)
    pods = _pods(topology, cidrs, earlier, problems)
    if problems:
        raise TopologyError(problems)
    return Placement(topology, nodes, pods, clients, routers)


def _hosts(topology: Topology) -> list[Node | Client]:
    return [*topology.nodes, *topology.clients]


def _as_numbers(topology: Topology, earlier: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """An AS number for each router and node, in this order, where the fabric needs them."""
    if topology.networking.fabric != "bgp":
        return {}
    first = topology.networking.as_number
    names = [router.name for router in topology.routers] + [node.name for node in topology.nodes]
    chosen: dict[str, int] = {}
    for name in names:
        for text in earlier.get(f"as/{name}", ()):
            if int(text) >= first and int(text) not in chosen.values():
                chosen[name] = int(text)
    taken = {*chosen.values(), _AS_TRANS}
    wide = range(first if first > _LAST_SHORT_AS else _PRIVATE_AS, 2**32 - 1)
    free = (number for number in chain(range(first, _LAST_SHORT_AS + 1), wide) if number not in taken)
    for name in names:
        if name not in chosen:
            chosen[name] = next(free)
    return chosen


class _Underlay:
    """The addresses of nodes, clients and routers in the underlay's subnets."""

    def __init__(self, topology: Topology, earlier: Mapping[str, Sequence[str]], problems: list[str]) -> None:
        self._subnets = {subnet.name: subnet for subnet in topology.subnets}
        self._pools: dict[str, dict[int, Pool]] = {
            s.name: {n.version: Pool(n) for n in s.networks} for s in topology.subnets
        }
        self._earlier = earlier
        self._problems = problems
        self._topology = topology
        self._routers = {r.name: tuple(self._router_in(r.addresses, s) for s in r.subnets) for r in topology.routers}
        for each in _hosts(topology):
            for address in each.addresses:
                self._pools[each.subnet][address.version].claim(int(address))
        # Earlier choices are claimed before anything new is chosen, the file's own words before them.
        self._kept: dict[str, dict[int, InterfaceAddress]] = defaultdict(dict)
        for each in _hosts(topology):
            self._keep(each)

    def _router_in(self, wanted: tuple[Address, ...], subnet: str) -> tuple[InterfaceAddress, ...]:
        chosen = []
        for network in self._subnets[subnet].networks:
            pool = self._pools[subnet][network.version]
            given = next((a for a in wanted if a in network), None)
            number = int(given) if given is not None else int(network.network_address) + 1
            while given is None and not pool.claim(number):
                number += 1  # a second router in the subnet
            pool.taken.add(number)
            chosen.append(_interface(number, network))
        return tuple(chosen)

    def _keep(self, each: Node | Client) -> None:
        for text in self._earlier.get(f"host/{each.name}", ()):
            address = ip_interface(text)
            pool = self._pools[each.subnet].get(address.version)
            fixed = any(a.version == address.version for a in each.addresses)
            fits = pool is not None and address.network == pool.network and pool.holds(int(address))
            if pool is not None and fits and not fixed and pool.claim(int(address)):
                self._kept[each.name][address.version] = address

    def router(self, name: str) -> tuple[tuple[InterfaceAddress, ...], ...]:
        return self._routers[name]

    def host(self, each: Node | Client) -> tuple[InterfaceAddress, ...]:
        chosen: list[InterfaceAddress] = []
        for network in self._subnets[each.subnet].networks:
            given = next((a for a in each.addresses if a.version == network.version), None)
            kept = self._kept[each.name].get(network.version)
            if given is not None:
                chosen.append(_interface(int(given), network))
            elif kept is not None:
                chosen.append(kept)
            else:
                try:
                    chosen.append(self._pools[each.subnet][network.version].take())
                except PoolExhaustedError as error:
                    self._problems.append(
                        f"{self._topology.path}: no address for {each.name} in subnet {each.subnet}: {error}"
                    )
        return tuple(chosen)


def _interface(number: int, network: Network) -> InterfaceAddress:
    if network.version == 4:
        return IPv4Interface((number, network.prefixlen))
    return IPv6Interface((number, network.prefixlen))


def _node_cidrs(
    topology: Topology, earlier: Mapping[str, Sequence[str]], problems: list[str]
) -> dict[str, tuple[Network, ...]]:
    """Each node's share of the pod subnets: the file's, else the earlier one, else the first that is free."""
    networking = topology.networking
    taken: set[Network] = {cidr for node in topology.nodes for cidr in node.pod_cidrs}
    chosen: dict[str, list[Network]] = {node.name: [] for node in topology.nodes}
    for subnet in networking.pod_subnets:
        length = _node_prefix(networking, subnet)
        fresh: list[Node] = []
        for node in topology.nodes:
            given = next((c for c in node.pod_cidrs if c.version == subnet.version), None)
            kept = given or _kept_cidr(earlier.get(f"cidr/{node.name}", ()), subnet, length, taken)
            if kept is None:
                fresh.append(node)
                chosen[node.name].append(subnet)  # its place in the order; replaced below
            else:
                taken.add(kept)
                chosen[node.name].append(kept)
        free = _free_cidrs(subnet, length, taken)
        given_out = 0
        for node, cidr in zip(fresh, free, strict=False):
            chosen[node.name][-1] = cidr
            taken.add(cidr)
            given_out += 1
        if given_out < len(fresh):
            problems.append(
                f"{topology.path}: podSubnet {subnet} has {2 ** (length - subnet.prefixlen)} networks of /{length},"
                f" not enough for {len(topology.nodes)} nodes: widen podSubnet or lengthen nodeCIDRMaskSize"
            )
    return {name: tuple(cidrs) for name, cidrs in chosen.items()}


def _node_prefix(networking: Networking, subnet: Network) -> int:
    wanted = networking.node_prefix_v4 if subnet.version == 4 else networking.node_prefix_v6
    return max(wanted, subnet.prefixlen)


def _kept_cidr(earlier: Sequence[str], subnet: Network, length: int, taken: set[Network]) -> Network | None:
    for text in earlier:
        cidr = ip_network(text)
        if cidr.version == subnet.version and cidr.prefixlen == length and cidr not in taken:
            inside = int(subnet.network_address) <= int(cidr.network_address) <= int(subnet.broadcast_address)
            return cidr if inside else None
    return None


def _free_cidrs(subnet: Network, length: int, taken: set[Network]) -> Iterator[Network]:
    """The subnets of that length, in order, that touch none that is taken."""
    # The first of several is left to the cluster's control plane in kind; here every node counts alike.
    ranges = sorted((int(t.network_address), int(t.broadcast_address)) for t in taken if t.version == subnet.version)
    for cidr in subnet.subnets(new_prefix=length):
        low, high = int(cidr.network_address), int(cidr.broadcast_address)
        if not any(start <= high and low <= end for start, end in ranges):
            yield cidr


def _pods(
    topology: Topology,
    cidrs: Mapping[str, tuple[Network, ...]],
    earlier: Mapping[str, Sequence[str]],
    problems: list[str],
) -> tuple[PlacedPod, ...]:
    if topology.networking.cni is not None:
        return tuple(PlacedPod(pod, ()) for pod in topology.pods)  # the plugins choose
    pools: dict[tuple[str, int], Pool] = {
        (node, cidr.version): Pool(cidr) for node, networks in cidrs.items() for cidr in networks
    }
    chosen: dict[str, dict[int, InterfaceAddress]] = {pod.name: {} for pod in topology.pods}
    for pod in topology.pods:
        for address in pod.addresses:
            pool = pools[pod.node, address.version]
            if not pool.holds(int(address)):
                problems.append(
                    f"{topology.path}: pod {pod.name}: address {address} is not in the pod CIDR {pool.network}"
                    f" of {pod.node}: choose one there, or give the node this podCIDR"
                )
            pool.claim(int(address))
            chosen[pod.name][address.version] = _interface(int(address), pool.network)
    for pod in topology.pods:
        for text in earlier.get(f"pod/{pod.name}", ()):
            kept = ip_interface(text)
            pool_of = pools.get((pod.node, kept.version))
            free = pool_of is not None and kept.network == pool_of.network and pool_of.holds(int(kept))
            if pool_of and free and kept.version not in chosen[pod.name] and pool_of.claim(int(kept)):
                chosen[pod.name][kept.version] = kept
    for pod in topology.pods:
        for version in topology.networking.versions:
            if version not in chosen[pod.name]:
                try:
                    chosen[pod.name][version] = pools[pod.node, version].take()
                except PoolExhaustedError as error:
                    problems.append(f"{topology.path}: no address for pod {pod.name} on {pod.node}: {error}")
    if problems:
        return ()
    return tuple(
        PlacedPod(pod, tuple(chosen[pod.name][version] for version in topology.networking.versions))
        for pod in topology.pods
    )
