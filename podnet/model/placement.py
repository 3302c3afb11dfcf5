"""A topology with every address chosen: the input of compile, and of the lab's record."""

from __future__ import annotations

from dataclasses import dataclass

from podnet.model.lab import InterfaceAddress
from podnet.model.topology import Client, Network, Node, Pod, Router, Topology

__all__ = ["PlacedClient", "PlacedNode", "PlacedPod", "PlacedRouter", "Placement"]


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """A node with its underlay addresses, its pod CIDRs and, on its bridge, their gateways.

    ``public_key`` is WireGuard's, base64, where the fabric has keys; ``as_number`` is its own where it speaks BGP,
    else 0.
    """

    node: Node
    addresses: tuple[InterfaceAddress, ...]
    pod_cidrs: tuple[Network, ...]
    gateways: tuple[InterfaceAddress, ...]
    public_key: str = ""
    as_number: int = 0


@dataclass(frozen=True, slots=True)
class PlacedPod:
    """A pod with its addresses, one for each IP family; none where CNI plugins choose them."""

    pod: Pod
    addresses: tuple[InterfaceAddress, ...]


@dataclass(frozen=True, slots=True)
class PlacedClient:
    """A client with its underlay addresses."""

    client: Client
    addresses: tuple[InterfaceAddress, ...]


@dataclass(frozen=True, slots=True)
class PlacedRouter:
    """A router with its addresses in each of its subnets, in the order of ``router.subnets``.

    ``as_number`` is as a node's.
    """

    router: Router
    addresses: tuple[tuple[InterfaceAddress, ...], ...]
    as_number: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """Everything that has an address, in file order."""

    topology: Topology
    nodes: tuple[PlacedNode, ...]
    pods: tuple[PlacedPod, ...]
    clients: tuple[PlacedClient, ...]
    routers: tuple[PlacedRouter, ...]

    def node(self, name: str) -> PlacedNode:
        """The node of that name."""
        return next(n for n in self.nodes if n.node.name == name)
