"""From a placed topology to the lab that the probes and ``status`` see; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.cni.attachment import mac_of
from podnet.model.lab import Interface, InterfaceAddress, Lab, Target
from podnet.topology.compile import node_netns, pod_mtu, uplink_of
from podnet.topology.marks import netns_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.model.placement import Placement

__all__ = ["earlier_of", "lab_of"]


def lab_of(placement: Placement) -> Lab:
    """Every pod, node, client and router with its namespace and interfaces; nodes first.

    Where CNI plugins attach pods, what they make is missing (see ``podnet.lab.plugged``).
    """
    topology = placement.topology
    by_plugins = topology.networking.cni is not None
    mtu = {subnet.name: subnet.mtu for subnet in topology.subnets}
    pods_mtu = pod_mtu(placement)
    daemons = ("bird",) if topology.networking.fabric == "bgp" else ()
    targets = [
        Target(
            name=n.node.name,
            kind="node",
            netns=node_netns(placement, n),
            interfaces=(
                _interface(uplink_of(placement, n), mtu[n.node.subnet], n.addresses),
                *([] if by_plugins else [_interface(topology.networking.bridge, pods_mtu, n.gateways)]),
            ),
            labels=n.node.labels,
            containers=daemons,
        )
        for n in placement.nodes
    ]
    targets += [
        Target(
            name=p.pod.name,
            kind="pod",
            netns=netns_of(topology.name, p.pod.name),
            interfaces=() if by_plugins else (_interface("eth0", pods_mtu, p.addresses),),
            node=p.pod.node,
            labels=p.pod.labels,
            containers=tuple(container.name for container in p.pod.containers),
        )
        for p in placement.pods
    ]
    targets += [
        Target(
            name=c.client.name,
            kind="client",
            netns=netns_of(topology.name, c.client.name),
            interfaces=(_interface("eth0", mtu[c.client.subnet], c.addresses),),
        )
        for c in placement.clients
    ]
    targets += [
        Target(
            name=r.router.name,
            kind="router",
            netns=netns_of(topology.name, r.router.name),
            interfaces=tuple(
                _interface(f"eth{i}", mtu[subnet], addresses)
                for i, (subnet, addresses) in enumerate(zip(r.router.subnets, r.addresses, strict=True))
            ),
            containers=daemons,
        )
        for r in placement.routers
    ]
    return Lab(topology.name, topology.networking.versions, tuple(targets), topology.expect)


def _interface(name: str, mtu: int, addresses: Sequence[InterfaceAddress]) -> Interface:
    return Interface(name, mac_of([str(address) for address in addresses]), mtu, tuple(addresses))


def earlier_of(placement: Placement) -> dict[str, list[str]]:
    """What the next ``up`` must keep: addresses of nodes and clients, and nodes' pod CIDRs."""
    earlier = {f"host/{n.node.name}": [str(a) for a in n.addresses] for n in placement.nodes}
    earlier |= {f"host/{c.client.name}": [str(a) for a in c.addresses] for c in placement.clients}
    earlier |= {f"as/{n.node.name}": [str(n.as_number)] for n in placement.nodes if n.as_number}
    earlier |= {f"as/{r.router.name}": [str(r.as_number)] for r in placement.routers if r.as_number}
    earlier |= {f"key/{n.node.name}": [n.public_key] for n in placement.nodes if n.public_key}
    return earlier | {f"cidr/{n.node.name}": [str(c) for c in n.pod_cidrs] for n in placement.nodes}
