"""The topology: what the file says, checked and with every default filled in, but not yet placed.

Addresses that the file leaves open (pods', nodes', gateways') are chosen later, by ``podnet.topology.place``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

__all__ = [
    "Address",
    "Client",
    "CniNetwork",
    "Container",
    "Expectation",
    "ExtraRoute",
    "Impairment",
    "Network",
    "Networking",
    "Node",
    "Pod",
    "Router",
    "Subnet",
    "Topology",
]

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class CniNetwork:
    """A CNI configuration list that attaches the pods: its file, what that holds, and the folders of the plugins."""

    file: str
    text: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Networking:
    """Cluster-wide settings; keys and defaults follow kind's cluster configuration.

    ``mtu`` is bytes, ``None`` means: derive it from the underlay and the fabric.
    ``vni``, ``fabric_port`` (0: the fabric's own), ``direct_routing``, ``as_number`` (the first of the lab) and
    ``hold_time`` (seconds) are for the fabrics that know them.
    ``node_prefix_v4``/``node_prefix_v6`` are the prefix lengths of one node's share of ``pod_subnets``.
    """

    pod_subnets: tuple[Network, ...]
    ip_family: str = "ipv4"  # ipv4 | ipv6 | dual
    fabric: str = "host-gw"
    mtu: int | None = None
    bridge: str = "podnet0"
    masquerade: bool = True
    node_prefix_v4: int = 24
    node_prefix_v6: int = 64
    cni: CniNetwork | None = None
    vni: int = 1
    fabric_port: int = 0
    direct_routing: bool = False
    as_number: int = 64512
    hold_time: int = 9

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions in use, in the order that addresses are listed: ``(4,)``, ``(6,)`` or ``(4, 6)``."""
        return {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6)}[self.ip_family]


@dataclass(frozen=True, slots=True)
class Subnet:
    """One layer-2 segment of the underlay, with at most one network per IP family."""

    name: str
    networks: tuple[Network, ...]
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class ExtraRoute:
    """A route that the file adds to one node, pod, client or router.

    ``dst`` is a prefix; ``via`` the next hop's address, or ``None`` for a ``blackhole`` or an on-link route.
    """

    dst: Network
    via: Address | None = None
    dev: str | None = None
    type: str = "unicast"  # unicast | blackhole | unreachable | prohibit
    metric: int = 0
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Router:
    """A namespace that joins underlay subnets and forwards between them.

    It takes the first host address of every subnet unless ``addresses`` says otherwise.
    """

    name: str
    subnets: tuple[str, ...]
    addresses: tuple[Address, ...] = ()
    routes: tuple[ExtraRoute, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A stand-in for a Kubernetes node: a namespace of its own, or the machine's own (``host``)."""

    name: str
    subnet: str
    host: bool = False
    addresses: tuple[Address, ...] = ()
    pod_cidrs: tuple[Network, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    routes: tuple[ExtraRoute, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Container:
    """One supervised process of a pod; it shares the pod's network namespace with the others."""

    name: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """A network namespace with ``eth0``; ``replicas`` in the file are already spread into pods of their own."""

    name: str
    node: str
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    addresses: tuple[Address, ...] = ()
    containers: tuple[Container, ...] = ()
    routes: tuple[ExtraRoute, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Client:
    """A host outside the cluster: it stands in an underlay subnet and knows no pod CIDR."""

    name: str
    subnet: str
    addresses: tuple[Address, ...] = ()
    routes: tuple[ExtraRoute, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Expectation:
    """One entry of ``expect``: these senders, these receivers, this protocol, that verdict.

    ``sources`` and ``targets`` are names of pods, nodes and clients, selectors already resolved.
    ``port`` is 0 for ICMP, ARP and ND. ``families`` are IP versions. ``source`` is the sender's address that the
    receiver must see: ``"own"`` (no NAT), ``"node"`` (masqueraded to the sender's node), an address, or ``"any"``.
    What is asked besides: ``ttl`` as the receiver sees it, ``via`` the names of what forwards, in order, ``mtu`` the
    largest packet in bytes, ``latency_ms`` of the median, ``loss`` from 0 to 1, ``within`` so many seconds.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    protocol: str  # icmp | tcp | udp | sctp | connect | http | dns | arp | nd
    verdict: str  # reach | refuse | drop
    port: int = 0
    families: tuple[int, ...] = (4, 6)
    source: str = "any"
    line: int = 0
    ttl: int | None = None
    via: tuple[str, ...] | None = None
    mtu: int | None = None
    latency_ms: float | None = None
    loss: float | None = None
    within: float = 0.0


@dataclass(frozen=True, slots=True)
class Impairment:
    """What one interface does to the packets that it sends; ``settings`` as ``podnet.kernel.impairment`` has them."""

    target: str
    interface: str
    settings: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole checked topology."""

    name: str
    networking: Networking
    subnets: tuple[Subnet, ...]
    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...] = ()
    routers: tuple[Router, ...] = ()
    clients: tuple[Client, ...] = ()
    expect: tuple[Expectation, ...] = ()
    impair: tuple[Impairment, ...] = ()
    path: str = field(default="", compare=False)
