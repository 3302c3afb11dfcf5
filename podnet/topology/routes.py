"""Checks of extra routes, and the routes as the model has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from podnet.model.topology import Address, ExtraRoute, Network
from podnet.topology import schema
from podnet.topology.context import Context
from podnet.topology.problem import did_you_mean, quote
from podnet.topology.ranges import written
from podnet.topology.tree import Path

__all__ = ["check_routes", "extra_routes"]

_DEFAULT: dict[int, Network] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def extra_routes(routes: Sequence[schema.Route], versions: Sequence[int]) -> tuple[ExtraRoute, ...]:
    """The routes of one entry; ``default`` without a next hop is one route per IP version in use."""
    found = []
    for route in routes:
        if route.dst is not None:
            targets = [route.dst]
        elif route.via is not None:
            targets = [_DEFAULT[route.via.version]]
        else:
            targets = [_DEFAULT[v] for v in versions]
        found += [ExtraRoute(dst, route.via, route.dev, route.type, route.metric, route.mtu) for dst in targets]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Owner:
    """What has routes: its networks and interfaces, none where podnet does not know them (the machine's own)."""

    path: Path
    what: str
    routes: Sequence[schema.Route]
    attached: list[Network]
    devices: tuple[str, ...]


def _owners(context: Context) -> Iterator[_Owner]:
    file = context.file
    subnets = {s.name: list(s.networks) for s in context.subnets}
    cidrs = {n.name: list(n.pod_cidr or context.pod_subnets.values()) for n in file.nodes}
    bridge = (file.networking.bridge,) if context.intact("networking", "bridge") else ()
    for path, what, host in context.hosts():
        subnet = context.subnet(host.subnet)
        attached = subnets[subnet.name] if subnet is not None else []
        devices: tuple[str, ...] = ("eth0", "lo")
        if isinstance(host, schema.Node):
            attached = [*attached, *cidrs[host.name]] if attached and not host.host else []
            devices = (*devices, *bridge) if bridge and not host.host else ()
        yield _Owner(path, what, host.routes, attached, devices)
    for i, pod in enumerate(file.pods):
        yield _Owner(("pods", i), f"pod {quote(pod.name)}", pod.routes, cidrs.get(pod.node, []), ("eth0", "lo"))
    for i, router in enumerate(file.underlay.routers):
        attached = [n for name in router.subnets for n in subnets.get(name, [])]
        devices = (*(f"eth{number}" for number in range(len(router.subnets))), "lo")
        path = ("underlay", "routers", i)
        yield _Owner(path, f"router {quote(router.name)}", router.routes, attached, devices)


def check_routes(context: Context) -> None:
    """Routes that the kernel would refuse are told before it sees them."""
    for owner in _owners(context):
        seen: dict[tuple[Network, int], int] = {}
        on_link = [r.dst for r in owner.routes if r.dev and not r.via and r.dst is not None]
        reachable = [*owner.attached, *on_link] if owner.attached else []
        for i, route in enumerate(owner.routes):
            path: Path = (*owner.path, "routes", i)
            if _versions_fit(context, path, route):
                _way(context, path, owner, route, reachable)
            for extra in extra_routes([route], context.versions):
                first = seen.setdefault((extra.dst, extra.metric), i)
                if first != i:
                    line = context.span((*owner.path, "routes", first)).line
                    message = (
                        f"{owner.what} has a route to {extra.dst} with metric {extra.metric} already, on line {line}"
                    )
                    context.report((*path, "dst"), message, "give it another `metric`, or take it out")


def _versions_fit(context: Context, path: Path, route: schema.Route) -> bool:
    dst, via = route.dst, route.via
    if dst is not None and via is not None and dst.version != via.version:
        message = f"the next hop {via} is IPv{via.version}, and the destination {dst} is IPv{dst.version}"
        context.report((*path, "via"), message, f"take an IPv{dst.version} next hop")
        return False
    for key, value in (("dst", dst), ("via", via)):
        if value is not None and value.version not in context.versions and context.intact("networking", "ipFamily"):
            message = f"{value} is IPv{value.version}, and `ipFamily` is {context.file.networking.ip_family}"
            context.report((*path, key), message, f"take {written(context.versions)}")
            return False
    return True


def _way(context: Context, path: Path, owner: _Owner, route: schema.Route, reachable: list[Network]) -> None:
    """What the route says about where packets go: next hop, interface, MTU."""
    if route.type != "unicast":
        for name in ("via", "dev", "mtu"):
            if getattr(route, name):
                message = f"a {route.type} route has no `{name}`"
                context.report((*path, name), message, f"take `{name}` or `type` out", key=True)
        return
    if route.dev is not None and owner.devices and route.dev not in owner.devices:
        message = f"{owner.what} has no interface {quote(route.dev)}"
        context.report((*path, "dev"), message, did_you_mean(route.dev, owner.devices))
    if route.via is not None and route.dev is None:
        _next_hop(context, (*path, "via"), owner, route.via, reachable)
    elif route.via is None and route.dev is None:
        hint = "write `via: ADDRESS`, `dev: INTERFACE`, or `type: blackhole`"
        context.report((*path, "dst"), f"this route of {owner.what} leads nowhere: no `via`, no `dev`", hint)
    version = next((value.version for value in (route.dst, route.via) if value is not None), min(context.versions))
    least = 1280 if version == 6 else 68
    if route.mtu and route.mtu < least:
        context.report((*path, "mtu"), f"`mtu` is {route.mtu}, and IPv{version} needs at least {least}")


def _next_hop(context: Context, path: Path, owner: _Owner, via: Address, reachable: list[Network]) -> None:
    if via.is_link_local:
        context.report(path, f"the link-local next hop {via} needs an interface", "write `dev: eth0`")
    elif reachable and not any(via.version == n.version and via in n for n in reachable):
        near = " or ".join(str(n) for n in reachable if n.version == via.version)
        message = f"{owner.what} does not reach the next hop {via} directly"
        context.report(path, message, f"take an address of {near}" if near else "")
