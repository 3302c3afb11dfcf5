"""What an attachment is to be, as data: from settings and addresses to kernel objects and the result. No effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.cni.attachment import Attachment, host_mac, mac_of, wanted
from podnet.cni.plugin.masquerade import subnet_of
from podnet.cni.spec.errors import INVALID_CONFIG, CNIError
from podnet.cni.spec.result import IP, Interface, Result, Route
from podnet.ipam.ranges import family_of, number, text
from podnet.kernel import objects
from podnet.kernel.objects import MAIN_TABLE, Address, KernelObject, Sysctl, Veth

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.cni.plugin.settings import Settings

__all__ = [
    "DEFAULT_MTU",
    "Plan",
    "beyond_link",
    "container_routes",
    "container_sysctls",
    "gateways_of",
    "make",
    "of_result",
]

DEFAULT_MTU = 1500  # ETH_DATA_LEN: what the kernel gives a veth
_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
_HOST_BITS = {4: 32, 6: 128}
_SCOPE_LINK = 253  # RT_SCOPE_LINK, linux/rtnetlink.h


class Plan(NamedTuple):
    """An attachment that is to be made.

    ``objects`` are its links, sysctls, routes, and the addresses that need nothing special; ``addresses`` those
    that go on one by one, because of duplicate detection or without the kernel's route to their network;
    ``routes`` those that come after them. ``gateways`` go on the bridge.
    """

    attachment: Attachment
    objects: tuple[KernelObject, ...]
    addresses: tuple[Address, ...]
    routes: tuple[objects.Route, ...]
    gateways: tuple[Address, ...]
    families: tuple[int, ...]
    result: Result


def make(
    settings: Settings,
    ipam: Result,
    netns: str,
    ifname: str,
    names: tuple[str, str],
    mac: str,
    random: Callable[[], str],
) -> Plan:
    """The plan of an ADD; ``names`` are the host end's name and its altname. Raises ``CNIError`` 7."""
    ips = tuple(_with_gateway(ip, settings)._replace(interface=1 if settings.mode == "ptp" else 2) for ip in ipam.ips)
    routes = ipam.routes
    for family in _families(ips) if settings.default_gateway else ():
        gateway = next(ip.gateway for ip in ips if family_of(ip.address) == family)
        if not any(route.dst == _DEFAULT[family] and route.gw for route in routes):
            routes = (
                *(r for r in routes if r.dst != _DEFAULT[family] or r.priority or r.table),
                Route(_DEFAULT[family], gateway),
            )
    addresses = [ip.address for ip in ips]
    v4 = [each for each in addresses if family_of(each) == 4]
    mtu = settings.mtu or DEFAULT_MTU
    attachment = Attachment(
        node_netns="",
        bridge="" if settings.mode == "ptp" else settings.bridge,
        netns=netns,
        ifname=ifname,
        label=names[1],
        addresses=(),
        gateways=(),
        mac=mac or (mac_of(v4) if v4 else random()),
        mtu=mtu,
        group=0,
        hairpin=settings.hairpin,
        host=names[0],
        host_end_mac=host_mac(v4) if v4 else random(),
        addrgen=True,
        up=not settings.no_interface,
    )
    result = Result(
        (
            *([Interface(settings.bridge)] if settings.mode == "bridge" else []),
            Interface(names[0], attachment.host_end_mac, mtu),
            Interface(ifname, attachment.mac, mtu, netns),
        ),
        ips,
        routes,
        ipam.dns if settings.dns is None else settings.dns,
    )
    return of_result(settings, result, attachment)


def beyond_link(made: Plan, there: Attachment) -> Plan:
    """What of a plan is still to be made where the link is there already, with the MACs that it has."""
    macs = {there.host: there.host_end_mac, there.ifname: there.mac}
    interfaces = tuple(each._replace(mac=macs.get(each.name, each.mac)) for each in made.result.interfaces)
    return made._replace(
        attachment=made.attachment._replace(mac=there.mac, host_end_mac=there.host_end_mac),
        objects=tuple(each for each in made.objects if not isinstance(each, Veth)),
        result=made.result._replace(interfaces=interfaces),
    )


def of_result(settings: Settings, result: Result, attachment: Attachment) -> Plan:
    """The plan that has this result."""
    ips = tuple(ip for ip in result.ips if result.interface_of(ip) == _own(result, attachment))
    families = _families(ips)
    mine = tuple(Address(attachment.netns, attachment.ifname, ip.address) for ip in ips)
    sysctls = container_sysctls(attachment.netns, attachment.ifname, families, dad=settings.dad)
    routes = container_routes(attachment.netns, attachment.ifname, result._replace(ips=ips))
    if settings.mode == "ptp":
        host, inside = _ptp(attachment, ips)
        return Plan(attachment, (*wanted(attachment), *sysctls, *host), mine, (*inside, *routes), (), families, result)
    gateways = gateways_of(settings, ips)
    if settings.dad and 6 in families:
        return Plan(attachment, (*wanted(attachment), *sysctls), mine, routes, gateways, families, result)
    return Plan(attachment, (*wanted(attachment), *sysctls, *mine), (), routes, gateways, families, result)


def _own(result: Result, attachment: Attachment) -> Interface | None:
    return next((i for i in result.interfaces if i.name == attachment.ifname and i.sandbox == attachment.netns), None)


def gateways_of(settings: Settings, ips: tuple[IP, ...]) -> tuple[Address, ...]:
    """What stands on the bridge or its way into a VLAN, in the order of the addresses."""
    if settings.mode != "bridge" or not settings.gateway:
        return ()
    found = [Address("", settings.gateway_link, f"{ip.gateway}/{ip.address.partition('/')[2]}") for ip in ips]
    return tuple(dict.fromkeys(found))


def _with_gateway(ip: IP, settings: Settings) -> IP:
    if ip.gateway:
        return ip
    if settings.mode == "ptp":
        raise CNIError(INVALID_CONFIG, f"the address {ip.address} comes without a gateway, which ptp needs")
    if not settings.gateway:
        return ip
    network = subnet_of(ip.address).partition("/")[0]
    return ip._replace(gateway=text(family_of(network), number(network) + 1))


def _families(ips: tuple[IP, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(family_of(ip.address) for ip in ips))


def container_sysctls(netns: str, ifname: str, families: tuple[int, ...], *, dad: bool) -> list[Sysctl]:
    """What the container's device is given before it comes up."""
    found = [Sysctl(netns, f"net/ipv4/conf/{ifname}/arp_notify", "1")]
    if 6 in families:
        values = {"disable_ipv6": "0", "keep_addr_on_down": "1"}
        values |= {"enhanced_dad": "1", "accept_dad": "1"} if dad else {"accept_dad": "0"}
        found += [Sysctl(netns, f"net/ipv6/conf/{ifname}/{name}", value) for name, value in values.items()]
    return found


def container_routes(netns: str, ifname: str, result: Result) -> tuple[objects.Route, ...]:
    """The result's routes in the container; one without gateway goes by that of its family, but on its own link."""
    gateways = {family_of(ip.address): ip.gateway for ip in reversed(result.ips) if ip.gateway}
    found: dict[objects.Key, objects.Route] = {}
    for route in result.routes:
        family = family_of(route.dst)
        # What is no farther away than the link has no gateway: the kernel refuses the two together.
        via = route.gw or ("" if (route.scope or 0) >= _SCOPE_LINK else gateways.get(family, ""))
        each = objects.Route(
            netns, subnet_of(route.dst), via, ifname,
            metric=route.priority, mtu=route.mtu, table=route.table or MAIN_TABLE, advmss=route.advmss,
            scope=-1 if route.scope is None or family == 6 else route.scope,
        )  # fmt: skip
        found.setdefault(each.key, each)
    return tuple(found.values())


def _ptp(a: Attachment, ips: tuple[IP, ...]) -> tuple[list[KernelObject], list[objects.Route]]:
    """The host's addresses and routes, and the container's: all it sends goes by the host's end."""
    host: list[KernelObject] = []
    inside: list[objects.Route] = []
    for ip in ips:
        bits = _HOST_BITS[family_of(ip.address)]
        pod = ip.address.partition("/")[0]
        near = Address("", a.host, f"{ip.gateway}/{bits}")
        if near not in host:
            host.append(near)
            inside.append(objects.Route(a.netns, f"{ip.gateway}/{bits}", "", a.ifname, src=pod))
        host.append(objects.Route("", f"{pod}/{bits}", "", a.host))
        inside.append(objects.Route(a.netns, subnet_of(ip.address), ip.gateway, a.ifname, src=pod))
    return host, inside
