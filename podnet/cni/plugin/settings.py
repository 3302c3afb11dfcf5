"""The keys of the reference bridge and ptp plugins, read and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.cni.spec.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CNIError
from podnet.cni.spec.result import parse_dns

if TYPE_CHECKING:
    from podnet.cni.spec.config import NetworkConfig
    from podnet.cni.spec.document import Document
    from podnet.cni.spec.result import DNS

__all__ = ["CHAINED", "IN_PROCESS", "Settings", "parse"]

IN_PROCESS = ("podnet", "host-local")  # the IPAM types that need no other executable

CHAINED = ("portmap", "bandwidth", "firewall")  # the modes that do one part for what another plugin has made

_MODES = ("bridge", "ptp", *CHAINED)
_BACKENDS = ("nftables", "iptables")


class Settings(NamedTuple):
    """What the plugin's own keys say. ``dns`` is ``None`` where nothing is given: then IPAM's counts."""

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
    spoof_check: bool = False
    vlan: int = 0
    trunk: tuple[int, ...] = ()
    keep_default_vlan: bool = False

    @property
    def gateway_link(self) -> str:
        """The link that has the gateways' addresses."""
        return f"{self.bridge}.{self.vlan}" if self.vlan else self.bridge

    @property
    def filters_vlans(self) -> bool:
        """Whether the bridge has to tell VLANs apart."""
        return bool(self.vlan or self.trunk)


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
    asked = config.runtime.dns
    shared = Settings(
        mode=mode,
        masquerade=config.ip_masq,
        mtu=mtu,
        dns=asked if asked and any(asked) else parse_dns(dns) if dns and dns.raw else None,
    )
    return shared if mode == "ptp" else _bridge(config, shared)


def _bridge(config: NetworkConfig, shared: Settings) -> Settings:
    document = config.document
    vlan = document.integer("vlan")
    if not 0 <= vlan <= 4094:
        raise CNIError(INVALID_CONFIG, f"invalid VLAN ID {vlan} (must be between 0 and 4094)")
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
        spoof_check=document.flag("macspoofchk"),
        vlan=vlan,
        trunk=_trunk(document),
        keep_default_vlan=document.flag("preserveDefaultVlan"),
    )
    name = found.bridge
    if len(name.encode(errors="replace")) > 15 or name in {".", ".."} or any(c in "/:%\0" or c.isspace() for c in name):
        raise CNIError(INVALID_CONFIG, f"bridge: {name[:40]!r} is no name for an interface")
    if found.vlan and found.gateway and len(found.gateway_link.encode()) > 15:
        msg = f"bridge: {name!r} is too long: its gateway of VLAN {vlan} would be {found.gateway_link!r}"
        raise CNIError(INVALID_CONFIG, msg, "an interface's name has 15 bytes at most")
    if found.hairpin and found.promisc:
        raise CNIError(INVALID_CONFIG, "cannot set hairpin mode and promiscuous mode at the same time")
    if config.runtime.port_mappings and not found.promisc:
        # Where bridges hand their packets to netfilter (br_netfilter), one from a pod to its own host port is
        # translated while it is bridged, and must go back through the port that it came from.
        found = found._replace(hairpin=True)
    if found.no_interface and config.ipam_type:
        raise CNIError(INVALID_CONFIG, "cannot use IPAM when DisableContainerInterface flag is set")
    return found


def _trunk(document: Document) -> tuple[int, ...]:
    """The VLANs that a port takes tagged, in order. Raises ``CNIError`` 7 with the reference plugin's words."""
    found: set[int] = set()
    for each in document.objects("vlanTrunk"):
        low, high, single = (each.optional(key) for key in ("minID", "maxID", "id"))
        problem = ""
        if low is None and high is not None:
            problem = "minID and maxID should be configured simultaneously, minID is missing"
        elif low is not None and high is None:
            problem = "minID and maxID should be configured simultaneously, maxID is missing"
        elif low is not None and high is not None:
            if not 1 <= low <= 4094:
                problem = "incorrect trunk minID parameter"
            elif not 1 <= high <= 4094:
                problem = "incorrect trunk maxID parameter"
            elif high < low:
                problem = "minID is greater than maxID in trunk parameter"
            else:
                found |= set(range(low, high + 1))
        if not problem and single is not None and not 1 <= single <= 4094:
            problem = "incorrect trunk id parameter"
        if problem:
            raise CNIError(INVALID_CONFIG, problem, f"{each.where}: {dict(each.raw)}"[:200])
        if single is not None:
            found.add(single)
    return tuple(sorted(found))
