"""From a placed topology to the kernel state that it stands for; no I/O."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from podnet.cni.attachment import Attachment, mac_of, wanted
from podnet.errors import TopologyError
from podnet.fabric import Site, Terms, Way, fabric_of
from podnet.kernel.impairment import kind_of
from podnet.kernel.objects import (
    Address,
    Attached,
    Bridge,
    KernelObject,
    Loopback,
    Netns,
    NftTable,
    Process,
    Qdisc,
    Route,
    State,
    Sysctl,
    Veth,
)
from podnet.topology.marks import SWITCH, group_of, label_of, netns_of, short, table_of
from podnet.topology.paths import Underlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from podnet.model.lab import InterfaceAddress
    from podnet.model.placement import PlacedNode, PlacedPod, Placement
    from podnet.model.topology import ExtraRoute, Impairment, Network, Pod

__all__ = ["compile_topology", "node_netns", "pod_mtu", "tunnel_of", "uplink_of"]

_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
_MULTICAST = {4: ip_network("224.0.0.0/4"), 6: ip_network("ff00::/8")}


def node_netns(placement: Placement, node: PlacedNode) -> str:
    """The node's namespace; the machine's own for a host node."""
    return "" if node.node.host else netns_of(placement.topology.name, node.node.name)


def uplink_of(placement: Placement, node: PlacedNode) -> str:
    """The name of the node's underlay interface: ``eth0``, which a host node cannot use."""
    if not node.node.host:
        return "eth0"
    return short("podnet", label_of(placement.topology.name, node.node.name, "eth0"))


def tunnel_of(placement: Placement, node: PlacedNode) -> str:
    """The name of the interface that a fabric may make on a node; on a host node, other labs have theirs too."""
    fabric = placement.topology.networking.fabric
    if not node.node.host:
        return "podnet-wg" if fabric == "wireguard" else f"podnet-{fabric}"
    return short("podnet", label_of(placement.topology.name, node.node.name, fabric))


def pod_mtu(placement: Placement) -> int:
    """The MTU of pods and bridges: the file's, else the smallest underlay MTU less the fabric's overhead."""
    networking = placement.topology.networking
    smallest = min(subnet.mtu for subnet in placement.topology.subnets)
    return networking.mtu or smallest - fabric_of(networking.fabric).overhead(networking.versions)


def compile_topology(placement: Placement, plugin_state: Callable[[str], str] = str, daemons: str = "") -> State:
    """All that must be in the kernel, by key. Raises ``TopologyError`` for a next hop that leads nowhere.

    ``plugin_state`` is the folder of what CNI plugins keep on the node with that namespace, ``daemons`` that of routing
    daemons' files.
    """
    compiler = _Compiler(placement, plugin_state)
    objects = compiler.compile() + compiler.daemons(daemons)
    if compiler.problems:
        raise TopologyError(compiler.problems)
    return {each.key: each for each in objects}


class _Compiler:
    def __init__(self, placement: Placement, plugin_state: Callable[[str], str]) -> None:
        self.placement = placement
        self._plugin_state = plugin_state
        self._config: dict[str, tuple[str, str]] = {}  # node -> its CNI network's name and configuration
        self.topology = placement.topology
        self.lab = placement.topology.name
        self.group = group_of(self.lab)
        self.mtu = pod_mtu(placement)
        self.underlay = Underlay(placement)
        self.mtu_of = {subnet.name: subnet.mtu for subnet in self.topology.subnets}
        self.versions = self.topology.networking.versions
        self.fabric = fabric_of(self.topology.networking.fabric)
        self.sites = {node.node.name: self._site(node) for node in placement.nodes}
        self.problems: list[str] = []

    def compile(self) -> list[KernelObject]:
        objects = self._switch()
        for router in self.placement.routers:
            objects += self._router(router.router.name)
        for node in self.placement.nodes:
            objects += self._node(node)
        for client in self.placement.clients:
            netns = netns_of(self.lab, client.client.name)
            objects += [Netns(netns), Loopback(netns)]
            objects += self._plug(netns, "eth0", client.client.name, client.client.subnet, client.addresses)
            objects += self._default_routes(netns, "eth0", client.client.subnet)
            objects += self._extras(client.client.name, netns, client.client.routes, [("eth0", client.addresses)])
            objects += _sysctls(netns, client.client.sysctls)
        nodes = {node.node.name: node for node in self.placement.nodes}
        for pod in self.placement.pods:
            objects += self._pod(pod, nodes[pod.pod.node])
        return objects + [self._impairment(each) for each in self.topology.impair]

    def daemons(self, folder: str) -> list[KernelObject]:
        """What speaks BGP, and what it is to learn, where that is the fabric."""
        networking = self.topology.networking
        if networking.fabric != "bgp":
            return []
        from podnet.fabric import bgp
        from podnet.topology.sessions import speakers

        found, problems = speakers(self.placement)
        self.problems += problems
        networks = networking.pod_subnets
        return [each for one in found for each in bgp.speaker(one, networks, networking.hold_time, folder)]

    def _impairment(self, impairment: Impairment) -> KernelObject:
        node = next((n for n in self.placement.nodes if n.node.name == impairment.target), None)
        netns, dev = netns_of(self.lab, impairment.target), impairment.interface
        if node is not None:
            netns = node_netns(self.placement, node)
            dev = uplink_of(self.placement, node) if dev == "eth0" else dev
        return Qdisc(netns, dev, kind_of(impairment.settings), impairment.settings)

    # -- the underlay -------------------------------------------------------------------------------------

    def _switch(self) -> list[KernelObject]:
        """A namespace with one bridge for each subnet: the cables and switches between the nodes."""
        netns = netns_of(self.lab, SWITCH)
        objects: list[KernelObject] = [Netns(netns), Loopback(netns)]
        for subnet in self.topology.subnets:
            label = label_of(self.lab, SWITCH, subnet.name)
            mac = "0a:5a:" + bytes.fromhex(short("", label)).hex(":")
            objects.append(
                Bridge(netns, self._bridge_of(subnet.name), mac, subnet.mtu, group=self.group, altname=label)
            )
        return objects

    @staticmethod
    def _bridge_of(subnet: str) -> str:
        return subnet if len(subnet) <= 15 else short("br", subnet)

    def _plug(
        self, netns: str, dev: str, target: str, subnet: str, addresses: Iterable[InterfaceAddress]
    ) -> list[KernelObject]:
        """A cable from a target to its subnet's bridge, and the target's addresses on it."""
        switch = netns_of(self.lab, SWITCH)
        label = label_of(self.lab, target, dev if netns else "eth0")
        port = short("port", label)
        texts = [str(address) for address in addresses]
        mac = mac_of(texts)
        mtu = self.mtu_of[subnet]
        near = Veth(
            netns, dev, switch, port, mac, mtu, addrgen=6 in self.versions, group=self.group,
            altname="" if netns else label,
        )  # fmt: skip
        far = Veth(
            switch, port, netns, dev, "0a:59" + mac[5:], mtu,
            master=self._bridge_of(subnet), group=self.group, altname=label,
        )  # fmt: skip
        return [near, far, *self._without_dad(netns, dev), *(Address(netns, dev, text) for text in texts)]

    def _without_dad(self, netns: str, dev: str) -> list[KernelObject]:
        """No duplicate detection of the link-local address on what forwards.

        A router asks for its neighbours from that address, and cannot for the second or two that detection takes:
        what it forwards over IPv6 right after ``up`` would be lost.
        """
        return [Sysctl(netns, f"net/ipv6/conf/{dev}/accept_dad", "0")] if 6 in self.versions else []

    def _default_routes(self, netns: str, dev: str, subnet: str) -> list[KernelObject]:
        router = self.underlay.gateway(subnet)
        if router is None:
            return []
        hops = self.underlay.addresses_in(router, subnet)
        return [Route(netns, _DEFAULT[version], hops[version], dev) for version in self.versions]

    def _underlay_routes(self, netns: str, dev: str, subnet: str, *, default: bool) -> list[KernelObject]:
        """Routes to the other subnets, as far as the default route does not lead there."""
        routes: list[KernelObject] = []
        for other in self.topology.subnets:
            router = self.underlay.next_router(subnet, other.name)
            if other.name == subnet or router is None or (default and router == self.underlay.gateway(subnet)):
                continue
            hops = self.underlay.addresses_in(router, subnet)
            routes += [Route(netns, str(network), hops[network.version], dev) for network in other.networks]
        return routes

    def _router(self, name: str) -> list[KernelObject]:
        placed = next(r for r in self.placement.routers if r.router.name == name)
        netns = netns_of(self.lab, name)
        objects: list[KernelObject] = [Netns(netns), Loopback(netns), *self._forwarding(netns)]
        devices = []
        for number, (subnet, addresses) in enumerate(zip(placed.router.subnets, placed.addresses, strict=True)):
            dev = f"eth{number}"
            devices.append((dev, addresses))
            objects += self._plug(netns, dev, name, subnet, addresses)
        for other in self.topology.subnets:
            if other.name not in placed.router.subnets:
                dev, hops = self._towards(placed.router.subnets, other.name)
                if dev:
                    objects += [Route(netns, str(n), hops[n.version], dev) for n in other.networks]
        for node in self.placement.nodes:
            objects += self._fabric_from_router(netns, placed.router.subnets, node)
        objects += self._extras(name, netns, placed.router.routes, devices)
        return objects + _sysctls(netns, placed.router.sysctls)

    def _towards(self, subnets: Sequence[str], there: str) -> tuple[str, dict[int, str]]:
        """From a router in ``subnets``: the interface and the next router's addresses on the way to a subnet."""
        for number, here in enumerate(subnets):
            following = self.underlay.next_router(here, there)
            if following is not None and not set(subnets) <= set(following.router.subnets):
                return f"eth{number}", self.underlay.addresses_in(following, here)
        return "", {}

    def _fabric_from_router(self, netns: str, subnets: Sequence[str], node: PlacedNode) -> list[KernelObject]:
        site = self.sites[node.node.name]
        if node.node.subnet in subnets:
            return self.fabric.router(netns, f"eth{subnets.index(node.node.subnet)}", site, site.addresses)
        dev, hops = self._towards(subnets, node.node.subnet)
        return self.fabric.router(netns, dev, site, hops) if dev else []

    # -- nodes and pods -----------------------------------------------------------------------------------

    def _forwarding(self, netns: str) -> list[KernelObject]:
        return [Sysctl(netns, _FORWARDING[version], "1") for version in self.versions]

    def _node(self, node: PlacedNode) -> list[KernelObject]:
        netns = node_netns(self.placement, node)
        dev = uplink_of(self.placement, node)
        bridge = self.topology.networking.bridge
        gateways = [str(gateway) for gateway in node.gateways]
        objects: list[KernelObject] = [] if node.node.host else [Netns(netns), Loopback(netns)]
        objects += self._forwarding(netns)
        devices = [(dev, node.addresses)]
        if self.topology.networking.cni is None:
            label = label_of(self.lab, node.node.name, bridge)
            objects.append(Bridge(netns, bridge, mac_of(gateways), self.mtu, group=self.group, altname=label))
            objects += self._without_dad(netns, bridge)
            objects += [Address(netns, bridge, gateway) for gateway in gateways]
            devices.append((bridge, node.gateways))
        objects += self._plug(netns, dev, node.node.name, node.node.subnet, node.addresses)
        if not node.node.host:
            objects += self._default_routes(netns, dev, node.node.subnet)
        objects += self._underlay_routes(netns, dev, node.node.subnet, default=not node.node.host)
        objects += self._fabric(node)
        if self.topology.networking.masquerade:
            objects.append(self._masquerade(netns, node))
        objects += self._extras(node.node.name, netns, node.node.routes, devices)
        return objects + _sysctls(netns, node.node.sysctls)

    def _site(self, node: PlacedNode) -> Site:
        netns = node_netns(self.placement, node)
        label = label_of(self.lab, node.node.name, self.topology.networking.fabric)
        gateway = next((str(each) for each in node.gateways if each.version == 4), "")
        # All tunnels' ends are one segment, and IPv6 gateways of different nodes may end in the same bytes.
        mac = mac_of([gateway])[5:] if gateway else ":" + bytes.fromhex(short("", label)).hex(":")
        return Site(
            netns=netns,
            dev=uplink_of(self.placement, node),
            addresses={address.version: str(address.ip) for address in node.addresses},
            cidrs=node.pod_cidrs,
            gateways={gateway.version: str(gateway.ip) for gateway in node.gateways},
            tunnel=tunnel_of(self.placement, node),
            label=label,
            mac="0a:5b" + mac,
            key=node.public_key,
        )

    def _fabric(self, node: PlacedNode) -> list[KernelObject]:
        networking = self.topology.networking
        if networking.fabric in {"none", "bgp"}:
            return []
        ways = []
        for other in self.placement.nodes:
            if other is node:
                continue
            site, direct = self.sites[other.node.name], other.node.subnet == node.node.subnet
            hops = site.addresses
            if not direct:
                router = self.underlay.next_router(node.node.subnet, other.node.subnet)
                if router is None:
                    self.problems.append(
                        f"{self.topology.path}: no router joins {node.node.name} and {other.node.name}"
                    )
                    continue
                hops = self.underlay.addresses_in(router, node.node.subnet)
            ways.append(Way(site, hops, direct))
        terms = Terms(
            self.versions, self.mtu, self.group, networking.vni, networking.fabric_port, networking.direct_routing
        )
        return self.fabric.node(terms, self.sites[node.node.name], ways)

    def _masquerade(self, netns: str, node: PlacedNode) -> NftTable:
        """One rule per family over one set, never a rule per pod."""
        lines = []
        for version in self.versions:
            inside: list[Network] = [n for n in self.topology.networking.pod_subnets if n.version == version]
            hosts = [a.ip for n in self.placement.nodes for a in n.addresses if a.version == version]
            inside += [ip_network(host) for host in hosts]
            inside.append(_MULTICAST[version])
            # In the order in which nft lists a set of intervals, addresses without their length.
            inside.sort(key=lambda network: int(network.network_address))
            elements = ", ".join(str(n.network_address) if n.prefixlen == n.max_prefixlen else str(n) for n in inside)
            lines.append(
                f"set cluster{version} {{\ntype ipv{version}_addr\nflags interval\nelements = {{ {elements} }}\n}}"
            )
        lines.append("chain postrouting {\ntype nat hook postrouting priority srcnat; policy accept;")
        for cidr in node.pod_cidrs:
            ip = "ip" if cidr.version == 4 else "ip6"
            lines.append(
                f'{ip} saddr {cidr} {ip} daddr != @cluster{cidr.version} masquerade comment "pods leaving the cluster"'
            )
        lines.append("}")
        return NftTable(netns, "inet", table_of(self.lab, netns), "\n".join(lines))

    def _pod(self, placed: PlacedPod, node: PlacedNode) -> list[KernelObject]:
        pod = placed.pod
        netns = netns_of(self.lab, pod.name)
        if self.topology.networking.cni is not None:
            made: list[KernelObject] = [Netns(netns), Loopback(netns), self._by_plugins(netns, node)]
            return [*made, *_sysctls(netns, pod.sysctls), *self._processes(pod, netns)]
        addresses = tuple(str(address) for address in placed.addresses)
        attachment = Attachment(
            node_netns=node_netns(self.placement, node),
            bridge=self.topology.networking.bridge,
            netns=netns,
            ifname="eth0",
            label=label_of(self.lab, pod.name, "eth0"),
            addresses=addresses,
            gateways=tuple(str(gateway.ip) for gateway in node.gateways),
            mac=mac_of(addresses),
            mtu=self.mtu,
            group=self.group,
        )
        objects: list[KernelObject] = [Netns(netns), Loopback(netns), *wanted(attachment)]
        if pod.routes:
            objects += self._extras(pod.name, netns, pod.routes, [("eth0", placed.addresses)])
        objects += _sysctls(netns, pod.sysctls)
        return objects + self._processes(pod, netns)

    def _by_plugins(self, netns: str, node: PlacedNode) -> Attached:
        cni = self.topology.networking.cni
        assert cni is not None  # noqa: S101 - asked by the caller
        where = node_netns(self.placement, node)
        if where not in self._config:
            from podnet.topology.cninetwork import config_of

            self._config[where] = config_of(cni, node, self.mtu, self._plugin_state(where))
        return Attached(netns, "eth0", where, *self._config[where], ":".join(cni.path))

    @staticmethod
    def _processes(pod: Pod, netns: str) -> list[KernelObject]:
        return [Process(netns, f"{pod.name}/{c.name}", c.command, c.env) for c in pod.containers]

    # -- what the file adds -------------------------------------------------------------------------------

    def _extras(
        self,
        target: str,
        netns: str,
        routes: Iterable[ExtraRoute],
        devices: Sequence[tuple[str, Sequence[InterfaceAddress]]],
    ) -> list[KernelObject]:
        objects: list[KernelObject] = []
        for route in routes:
            dev = route.dev or ""
            if route.via is not None and not dev:
                dev = next((d for d, own in devices for a in own if route.via in a.network), "")
                if not dev:
                    self.problems.append(
                        f"{self.topology.path}: {target}: next hop {route.via} of route {route.dst} is in none of its"
                        f" networks ({', '.join(str(a.network) for _, own in devices for a in own)})"
                    )
                    continue
            if route.via is None and not dev and route.type == "unicast":
                dev = devices[0][0]
            metric = 0 if route.dst.version == 6 and route.metric == 1024 else route.metric
            objects.append(
                Route(
                    netns, str(route.dst), str(route.via or ""), dev,
                    type=route.type, metric=metric, mtu=route.mtu,
                )
            )  # fmt: skip
        return objects


def _sysctls(netns: str, sysctls: Iterable[tuple[str, str]]) -> list[KernelObject]:
    return [Sysctl(netns, name if "/" in name else name.replace(".", "/"), value) for name, value in sysctls]
