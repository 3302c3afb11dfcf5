"""The checked file as a ``Topology``: defaults filled in, replicas spread, selectors resolved."""

from __future__ import annotations

from collections.abc import Mapping

from podnet.model.topology import Address, Client, Container, Networking, Node, Pod, Router, Topology
from podnet.topology import schema
from podnet.topology.context import Context
from podnet.topology.impair import impairments
from podnet.topology.routes import extra_routes

__all__ = ["resolve"]


def resolve(context: Context, path: str) -> Topology:
    """The topology that the file means; to be called when there are no problems."""
    file = context.file
    networking = file.networking
    return Topology(
        name=file.name,
        networking=Networking(
            pod_subnets=tuple(context.pod_subnets[v] for v in context.versions),
            ip_family=networking.ip_family,
            fabric=networking.fabric,
            mtu=networking.mtu,
            bridge=networking.bridge,
            masquerade=networking.masquerade,
            node_prefix_v4=networking.node_cidr_mask_size_ipv4,
            node_prefix_v6=networking.node_cidr_mask_size_ipv6,
            cni=context.cni,
            vni=networking.vxlan.vni,
            fabric_port={"vxlan": networking.vxlan.port, "wireguard": networking.wireguard.port}.get(
                networking.fabric, 0
            ),
            direct_routing={
                "vxlan": networking.vxlan.direct_routing,
                "ipip": networking.ipip.direct_routing,
            }.get(networking.fabric, False),
            as_number=networking.bgp.as_number,
            hold_time=networking.bgp.hold_time,
        ),
        subnets=context.subnets,
        nodes=tuple(_node(context, node) for node in file.nodes),
        pods=tuple(p for pod in file.pods for p in _pods(context, pod)),
        routers=tuple(
            Router(
                name=router.name,
                subnets=tuple(router.subnets),
                addresses=tuple(router.addresses),
                routes=extra_routes(router.routes, context.versions),
                sysctls=_pairs(router.sysctls),
            )
            for router in file.underlay.routers
        ),
        clients=tuple(
            Client(
                name=client.name,
                subnet=client.subnet or context.subnets[0].name,
                addresses=_ordered(client.addresses),
                routes=extra_routes(client.routes, context.versions),
                sysctls=_pairs(client.sysctls),
            )
            for client in file.clients
        ),
        expect=tuple(context.expect),
        impair=impairments(context),
        path=path,
    )


def _node(context: Context, node: schema.Node) -> Node:
    pinned = context.pinned.get(node.name, {})
    return Node(
        name=node.name,
        subnet=node.subnet or context.subnets[0].name,
        host=node.host,
        addresses=_ordered(node.addresses),
        pod_cidrs=node.pod_cidr or tuple(pinned[v] for v in sorted(pinned)),
        labels=_pairs(node.labels),
        routes=extra_routes(node.routes, context.versions),
        sysctls=_pairs(node.sysctls),
    )


def _pods(context: Context, pod: schema.Pod) -> list[Pod]:
    names = [pod.name] if pod.replicas is None else [f"{pod.name}-{i}" for i in range(pod.replicas)]
    labels, annotations, sysctls = _pairs(pod.labels), _pairs(pod.annotations), _pairs(pod.sysctls)
    addresses = _ordered(pod.addresses)
    containers = tuple(_container(c) for c in pod.containers)
    routes = extra_routes(pod.routes, context.versions)
    return [Pod(name, pod.node, labels, annotations, addresses, containers, routes, sysctls) for name in names]


def _container(container: schema.Container) -> Container:
    env = container.env
    pairs = tuple((e.name, e.value) for e in env) if isinstance(env, list) else _pairs(env)
    return Container(container.name, (*container.command, *container.args), pairs)


def _pairs(mapping: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(mapping.items())


def _ordered(addresses: list[Address]) -> tuple[Address, ...]:
    return tuple(sorted(addresses, key=lambda a: a.version))
