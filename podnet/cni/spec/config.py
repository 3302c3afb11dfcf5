"""The network configuration as a plugin gets it: the keys that every plugin shares, typed.

A plugin reads its own keys from ``NetworkConfig.document``, and passes ``NetworkConfig.data``, which is what came
in, byte for byte, to the plugins that it delegates to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from podnet.cni.spec import address
from podnet.cni.spec.document import Document, decode
from podnet.cni.spec.environment import is_name
from podnet.cni.spec.errors import INVALID_CONFIG, CNIError
from podnet.cni.spec.result import DNS, Result, parse_dns
from podnet.cni.spec.result import parse as parse_result
from podnet.cni.spec.versions import OLDEST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Bandwidth",
    "IPRange",
    "NetworkConfig",
    "PortMapping",
    "RuntimeConfig",
    "decode_named",
    "parse",
    "parse_bandwidth",
]

_PROTOCOLS = ("tcp", "udp", "sctp")
_RATES = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")
_SUBNETS = ("unshapedSubnets", "shapedSubnets")
_VALID_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")  # the second is what 1.1.0 first said

_T = TypeVar("_T")


class PortMapping(NamedTuple):
    """A port of the host that leads to the container; an empty ``host_ip`` is any address."""

    host_port: int
    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""


class Bandwidth(NamedTuple):
    """Rates in bits per second, bursts in bits; 0 is no limit. Subnets as text, as they were given."""

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0
    unshaped_subnets: tuple[str, ...] = ()
    shaped_subnets: tuple[str, ...] = ()


class IPRange(NamedTuple):
    """A range as text, as it was given; empty means not given."""

    subnet: str
    range_start: str = ""
    range_end: str = ""
    gateway: str = ""


class RuntimeConfig(NamedTuple):
    """What the runtime asks for by capability (CONVENTIONS.md, "Dynamic Plugin specific Fields")."""

    port_mappings: tuple[PortMapping, ...] = ()
    bandwidth: Bandwidth | None = None
    ips: tuple[str, ...] = ()
    ip_ranges: tuple[tuple[IPRange, ...], ...] = ()
    mac: str = ""
    dns: DNS | None = None
    aliases: tuple[str, ...] = ()


class NetworkConfig(NamedTuple):
    """One plugin's configuration.

    ``mac`` and ``ips`` are what was asked for: ``runtimeConfig`` before ``args.cni`` before CNI_ARGS. ``ips`` are
    addresses with or without prefix length. ``dns`` and ``ipam`` are ``None`` where the key is absent: an empty one
    means something else. ``valid_attachments`` are pairs of container ID and interface name, ``None`` but for GC.
    """

    version: str
    name: str
    type: str
    document: Document
    data: bytes
    ip_masq: bool = False
    ipam: Document | None = None
    ipam_type: str = ""
    dns: DNS | None = None
    prev_result: Result | None = None
    runtime: RuntimeConfig = RuntimeConfig()
    args: Document = Document({}, "args.cni")
    mac: str = ""
    ips: tuple[str, ...] = ()
    valid_attachments: frozenset[tuple[str, str]] | None = None


def decode_named(data: bytes) -> Document:
    """Standard input as JSON with a network's name in it. Raises ``CNIError`` 6 or 7."""
    document = decode(data)
    name = document.text("name")
    if not name:
        raise CNIError(INVALID_CONFIG, "missing network name")
    if not is_name(name):
        raise CNIError(INVALID_CONFIG, "invalid characters found in network name", name)
    return document


def parse(document: Document, command: str, arguments: Mapping[str, str], data: bytes) -> NetworkConfig:
    """The configuration of a call; ``document`` has passed ``decode_named``, ``data`` is where it came from.

    Raises ``CNIError`` 6 for a wrong type, 7 for a wrong value; the message names the key. DEL is best effort: what
    ADD would have refused counts as absent there, since nothing can have been made of it.
    """

    def section(read: Callable[[], _T], default: _T) -> _T:
        try:
            return read()
        except CNIError:
            if command != "DEL":
                raise
            return default

    version = document.text("cniVersion") or OLDEST
    name = document.text("name")
    kind = document.text("type")
    if "/" in kind or "\\" in kind or "\0" in kind:
        raise CNIError(INVALID_CONFIG, f"type: {kind!r} is no file name")
    ipam = document.object("ipam")
    args = _args(document)
    runtime = section(lambda: _runtime(document.object("runtimeConfig"), name), RuntimeConfig())
    return NetworkConfig(
        version,
        name,
        kind,
        document,
        data,
        ip_masq=document.flag("ipMasq"),
        ipam=ipam,
        ipam_type=ipam.text("type") if ipam else "",
        dns=section(lambda: _dns(document), None),
        prev_result=section(lambda: _prev_result(document, version), None),
        runtime=runtime,
        args=args,
        mac=runtime.mac or section(lambda: _mac(args, arguments), ""),
        ips=runtime.ips or section(lambda: _ips(args, arguments), ()),
        valid_attachments=_valid_attachments(document) if command == "GC" else None,
    )


def _prev_result(document: Document, version: str) -> Result | None:
    found = document.object("prevResult")
    return None if found is None else parse_result(found, version)


def _dns(document: Document) -> DNS | None:
    found = document.object("dns")
    return parse_dns(found) if found is not None and found.raw else None


def _args(document: Document) -> Document:
    # The specification lets anything stand in "args", and no plugin may fail on what it does not understand.
    args = document.get("args")
    cni = Document(args).get("cni") if isinstance(args, dict) else None
    return Document(cni if isinstance(cni, dict) else {}, "args.cni")


def _mac(args: Document, arguments: Mapping[str, str]) -> str:
    text = args.text("mac")
    if text:
        return _checked(address.mac, text, "args.cni.mac")
    text = arguments.get("MAC", "")
    return _checked(address.mac, text, "CNI_ARGS MAC") if text else ""


def _ips(args: Document, arguments: Mapping[str, str]) -> tuple[str, ...]:
    found = args.texts("ips")
    if found:
        return tuple(_checked(_ip_or_prefix, each, "args.cni.ips") for each in found)
    return tuple(
        _checked(_ip_or_prefix, each.strip(), "CNI_ARGS IP") for each in arguments.get("IP", "").split(",") if each
    )


def _runtime(document: Document | None, network: str) -> RuntimeConfig:
    if document is None:
        return RuntimeConfig()
    mac = document.text("mac")
    dns = document.object("dns")
    return RuntimeConfig(
        tuple(_port_mapping(each) for each in document.objects("portMappings")),
        parse_bandwidth(document.object("bandwidth")),
        tuple(_checked(_ip_or_prefix, each, document.path("ips")) for each in document.texts("ips")),
        _ip_ranges(document),
        _checked(address.mac, mac, document.path("mac")) if mac else "",
        None if dns is None else parse_dns(dns, "servers", "searches"),
        _aliases(document, network),
    )


def _port_mapping(document: Document) -> PortMapping:
    protocol = document.text("protocol").lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise CNIError(
            INVALID_CONFIG, f'{document.path("protocol")}: "{protocol[:40]}" is none of {", ".join(_PROTOCOLS)}'
        )
    host_ip = document.text("hostIP")
    return PortMapping(
        _port(document, "hostPort", "host"),
        _port(document, "containerPort", "container"),
        protocol,
        _checked(address.ip, host_ip, document.path("hostIP")) if host_ip else "",
    )


def _port(document: Document, key: str, what: str) -> int:
    port = document.integer(key)
    if not 1 <= port <= 65535:
        raise CNIError(INVALID_CONFIG, f"Invalid {what} port number: {port}", document.path(key))
    return port


def parse_bandwidth(document: Document | None) -> Bandwidth | None:
    """The keys of the bandwidth plugin; ``None`` where there is none of them. Raises ``CNIError`` 6."""
    if document is None or all(document.get(key) is None for key in (*_RATES, *_SUBNETS)):
        return None
    unshaped, shaped = (document.texts(key) for key in _SUBNETS)
    ingress, ingress_burst, egress, egress_burst = (document.unsigned(key) for key in _RATES)
    return Bandwidth(ingress, ingress_burst, egress, egress_burst, unshaped, shaped)


def _ip_ranges(document: Document) -> tuple[tuple[IPRange, ...], ...]:
    # The outer list has one element for each address that is wanted.
    sets = Document({str(i): each for i, each in enumerate(document.array("ipRanges"))}, document.path("ipRanges"))
    return tuple(
        tuple(
            IPRange(each.text("subnet"), each.text("rangeStart"), each.text("rangeEnd"), each.text("gateway"))
            for each in sets.objects(key)
        )
        for key in sets.raw
    )


def _aliases(document: Document, network: str) -> tuple[str, ...]:
    # A list by the conventions; podman sends a map from the network's name to the list.
    by_network: Any = document.get("aliases")
    if isinstance(by_network, dict):
        return Document(by_network, document.path("aliases")).texts(network)
    return document.texts("aliases")


def _valid_attachments(document: Document) -> frozenset[tuple[str, str]]:
    key = next((each for each in _VALID_ATTACHMENTS if document.has(each)), None)
    if key is None:
        raise CNIError(
            INVALID_CONFIG,
            f"missing {_VALID_ATTACHMENTS[0]}",
            "an empty list would mean that nothing is valid; a missing one cannot be meant so",
        )
    return frozenset((each.text("containerID"), each.text("ifname")) for each in document.objects(key))


def _ip_or_prefix(text: str) -> str:
    return address.prefix(text) if "/" in text else address.ip(text)


def _checked(check: Callable[[str], str], text: str, where: str) -> str:
    try:
        return check(text)
    except ValueError as error:
        raise CNIError(INVALID_CONFIG, f"{where}: {error}") from None
