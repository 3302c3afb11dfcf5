"""The result of ADD in every version of the specification, both ways.

Inside there is one shape, that of 1.1.0. What an older version cannot say is lost without a word, as in the
reference library: 0.4.0 and older have no ``mtu``, ``socketPath``, ``pciID`` of interfaces; 0.2.0 and older have
one address of each family, no interfaces, and routes without attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from podnet.cni.spec import address, versions
from podnet.cni.spec.errors import DECODING_FAILURE, INTERNAL, CNIError

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.cni.spec.document import Document

__all__ = ["DNS", "IP", "Interface", "Result", "Route", "parse", "parse_dns", "to_json"]


class Interface(NamedTuple):
    """An interface that a plugin made; without ``sandbox`` it is on the host."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = ""


class IP(NamedTuple):
    """An address with prefix length; ``interface`` is an index into the result's interfaces."""

    address: str
    gateway: str = ""
    interface: int | None = None


class Route(NamedTuple):
    """A route in the container; the numbers are the kernel's, and 0 means not given, except for the last two."""

    dst: str
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None


class DNS(NamedTuple):
    """What may go into the container's resolver configuration."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Result(NamedTuple):
    """What ADD made. An IPAM plugin's has no interfaces."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IP, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()

    def interface_of(self, ip: IP) -> Interface | None:
        """The interface of an address; ``None`` where the index is missing or points nowhere."""
        if ip.interface is None or ip.interface >= len(self.interfaces):
            return None
        return self.interfaces[ip.interface]


def parse(document: Document, version: str) -> Result:
    """A result, or ``prevResult``, of a configuration of this version.

    A ``cniVersion`` of its own decides its shape. Raises ``CNIError`` 6 with the key named.
    """
    own = document.text("cniVersion") or version
    if own not in versions.SUPPORTED:
        known = ", ".join(versions.SUPPORTED)
        raise CNIError(DECODING_FAILURE, f'{document.path("cniVersion")} is "{own}", which is none of {known}')
    if versions.parse(own) < (0, 3, 0):
        return _parse_old(document)
    interfaces = tuple(
        Interface(
            each.text("name"),
            each.text("mac"),
            each.unsigned("mtu"),
            each.text("sandbox"),
            each.text("socketPath"),
            each.text("pciID"),
        )
        for each in document.objects("interfaces")
    )
    ips = tuple(
        IP(_address(each, "address", address.prefix), _address(each, "gateway", address.ip, ""), _index(each))
        for each in document.objects("ips")
    )
    return Result(interfaces, ips, _routes(document), parse_dns(document.object("dns")))


def to_json(result: Result, version: str) -> dict[str, Any]:
    """The result in the shape of a version, with exactly that ``cniVersion``.

    Raises ``CNIError`` 1 or 6 for a version that there is not, and 999 for a result without any address in
    versions that cannot do without.
    """
    versions.reconcile(version)
    if versions.parse(version) < (0, 3, 0):
        return _to_old(result, version)
    new = versions.at_least(version, "1.0.0")
    value: dict[str, Any] = {"cniVersion": version}
    if result.interfaces:
        value["interfaces"] = [_interface_json(each, new) for each in result.interfaces]
    if result.ips:
        value["ips"] = [_ip_json(each, new) for each in result.ips]
    if result.routes:
        value["routes"] = [_route_json(each) for each in result.routes]
    dns = _dns_json(result.dns)
    if dns or not new:
        value["dns"] = dns
    return value


def parse_dns(
    document: Document | None, nameservers: str = "nameservers", search: str = "search", options: str = "options"
) -> DNS:
    """The ``dns`` object; in ``runtimeConfig`` two of its keys have other names."""
    if document is None:
        return DNS()
    return DNS(document.texts(nameservers), document.text("domain"), document.texts(search), document.texts(options))


def _parse_old(document: Document) -> Result:
    ips: list[IP] = []
    routes: list[Route] = []
    for key in ("ip4", "ip6"):
        each = document.object(key)
        if each is not None:
            ips.append(IP(_address(each, "ip", address.prefix), _address(each, "gateway", address.ip, "")))
            routes += _routes(each)
    return Result((), tuple(ips), tuple(routes), parse_dns(document.object("dns")))


def _to_old(result: Result, version: str) -> dict[str, Any]:
    value: dict[str, Any] = {"cniVersion": version}
    for family in (4, 6):
        first = next((each for each in result.ips if address.family(each.address) == family), None)
        if first is None:
            continue
        config: dict[str, Any] = {"ip": first.address}
        if first.gateway:
            config["gateway"] = first.gateway
        routes = [
            {"dst": each.dst, "gw": each.gw} if each.gw else {"dst": each.dst}
            for each in result.routes
            if address.family(each.dst) == family
        ]
        if routes:
            config["routes"] = routes
        value[f"ip{family}"] = config
    if len(value) == 1:
        raise CNIError(INTERNAL, "cannot convert: no valid IP addresses", f"version {version} needs one")
    value["dns"] = _dns_json(result.dns)
    return value


def _routes(document: Document) -> tuple[Route, ...]:
    return tuple(
        Route(
            _address(each, "dst", address.prefix),
            _address(each, "gw", address.ip, ""),
            each.unsigned("mtu"),
            each.unsigned("advmss"),
            each.unsigned("priority"),
            each.optional("table"),
            each.optional("scope"),
        )
        for each in document.objects("routes")
    )


def _address(document: Document, key: str, check: Callable[[str], str], default: str | None = None) -> str:
    text = document.text(key)
    if not text and default is not None:
        return default
    try:
        return check(text)
    except ValueError as error:
        raise CNIError(DECODING_FAILURE, f"{document.path(key)}: {error}") from None


def _index(document: Document) -> int | None:
    return None if document.get("interface") is None else document.unsigned("interface")


def _interface_json(interface: Interface, new: bool) -> dict[str, Any]:
    value: dict[str, Any] = {"name": interface.name}
    if interface.mac:
        value["mac"] = interface.mac
    if new and interface.mtu:
        value["mtu"] = interface.mtu
    if interface.sandbox:
        value["sandbox"] = interface.sandbox
    if new and interface.socket_path:
        value["socketPath"] = interface.socket_path
    if new and interface.pci_id:
        value["pciID"] = interface.pci_id
    return value


def _ip_json(ip: IP, new: bool) -> dict[str, Any]:
    value: dict[str, Any] = {} if new else {"version": str(address.family(ip.address))}
    if ip.interface is not None:
        value["interface"] = ip.interface
    value["address"] = ip.address
    if ip.gateway:
        value["gateway"] = ip.gateway
    return value


def _route_json(route: Route) -> dict[str, Any]:
    value: dict[str, Any] = {"dst": route.dst}
    if route.gw:
        value["gw"] = route.gw
    for key in ("mtu", "advmss", "priority"):
        number = getattr(route, key)
        if number:
            value[key] = number
    if route.table is not None:
        value["table"] = route.table
    if route.scope is not None:
        value["scope"] = route.scope
    return value


def _dns_json(dns: DNS) -> dict[str, Any]:
    value: dict[str, Any] = {}
    if dns.nameservers:
        value["nameservers"] = list(dns.nameservers)
    if dns.domain:
        value["domain"] = dns.domain
    if dns.search:
        value["search"] = list(dns.search)
    if dns.options:
        value["options"] = list(dns.options)
    return value
