"""The keys of the reference bridge and ptp plugins, read and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.cni.spec.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CNIError
from podnet.cni.spec.result import parse_dns

if TYPE_CHECKING:
    from podnet.cni.spec.config import NetworkConfig
    from podnet.cni.spec.result import DNS

__all__ = ["CHAINED", "IN_PROCESS", "Settings", "parse"]

IN_PROCESS = ("podnet", "host-local")  # the IPAM types that need no other executable

CHAINED = ("portmap", "bandwidth", "firewall")  # the modes that do one part for what another plugin has made

_MODES = ("bridge", "ptp", *CHAINED)
_BACKENDS = ("nftables", "iptables")


class Settings(NamedTuple):
    """What the plugin's own keys say. ``dns`` is ``None`` where the key is absent or empty: then IPAM's counts."""

    mode: str = "bridge"
    bridge: str = "cni0"
    gateway: bool = False
    default_gateway: bool = False
    force_address: bool = False
    masquerade: bool = False
    mtu: int = 0
    hairpin: bool = False
    promisc: bool = False
    isolated: bool = False
    dad: bool = False
    no_interface: bool = False
    dns: DNS | None = None


def parse(config: NetworkConfig) -> Settings:
    """The settings of a call. Raises ``CNIError`` 2 for what is not offered, 7 for what cannot be."""
    document = config.document
    mode = document.text("mode") or "bridge"
    if mode not in _MODES:
        raise CNIError(UNSUPPORTED_FIELD, f'mode "{mode}" is none of {", ".join(_MODES)}')
    if mode in CHAINED:
        return Settings(mode=mode)
    backend = document.text("ipMasqBackend")
    if backend and backend not in _BACKENDS:
        raise CNIError(INVALID_CONFIG, f'unknown ipmasq backend "{backend}"')
    mtu = document.integer("mtu")
    if mtu and not 68 <= mtu <= 65535:
        raise CNIError(INVALID_CONFIG, f"mtu: {mtu} is not between 68 and 65535")
    dns = document.object("dns")
    shared = Settings(
        mode=mode,
        masquerade=config.ip_masq,
        mtu=mtu,
        dns=None if dns is None or not dns.raw else parse_dns(dns),
    )
    return shared if mode == "ptp" else _bridge(config, shared)


def _bridge(config: NetworkConfig, shared: Settings) -> Settings:
    document = config.document
    vlan = document.integer("vlan")
    if not 0 <= vlan <= 4094:
        raise CNIError(INVALID_CONFIG, f"invalid VLAN ID {vlan} (must be between 0 and 4094)")
    offers = {
        "vlan": vlan,
        "vlanTrunk": document.array("vlanTrunk"),
        "preserveDefaultVlan": document.flag("preserveDefaultVlan"),
        "macspoofchk": document.flag("macspoofchk"),
    }
    for key, value in offers.items():
        if value:
            shown = str(value).lower() if isinstance(value, bool) else value
            raise CNIError(UNSUPPORTED_FIELD, f"{key}: {shown} is not yet supported")
    default_gateway = document.flag("isDefaultGateway")
    found = shared._replace(
        bridge=document.text("bridge") or "cni0",
        gateway=document.flag("isGateway") or default_gateway,
        default_gateway=default_gateway,
        force_address=document.flag("forceAddress"),
        hairpin=document.flag("hairpinMode"),
        promisc=document.flag("promiscMode"),
        isolated=document.flag("portIsolation"),
        dad=document.flag("enabledad"),
        no_interface=document.flag("disableContainerInterface"),
    )
    name = found.bridge
    if len(name.encode(errors="replace")) > 15 or name in {".", ".."} or any(c in "/:%\0" or c.isspace() for c in name):
        raise CNIError(INVALID_CONFIG, f"bridge: {name[:40]!r} is no name for an interface")
    if found.hairpin and found.promisc:
        raise CNIError(INVALID_CONFIG, "cannot set hairpin mode and promiscuous mode at the same time")
    if config.runtime.port_mappings and not found.promisc:
        # Where bridges hand their packets to netfilter (br_netfilter), one from a pod to its own host port is
        # translated while it is bridged, and must go back through the port that it came from.
        found = found._replace(hairpin=True)
    if found.no_interface and config.ipam_type:
        raise CNIError(INVALID_CONFIG, "cannot use IPAM when DisableContainerInterface flag is set")
    return found
