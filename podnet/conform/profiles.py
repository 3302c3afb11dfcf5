"""How a plugin has to be configured so that it can be judged: built-in profiles, and those made from a file.

A profile is a network configuration with placeholders: ``{{name}}`` the network, ``{{subnet}}`` and ``{{gateway}}``
its pod addresses, ``{{dataDir}}`` a private directory, ``{{bridge}}`` a free interface name, ``{{uplink}}`` an
interface that is up in the runtime's namespace, ``{{hostPort}}`` a port that no other attachment uses.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from podnet.conform.model import ALL_KINDS, Kind
from podnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROFILES", "Profile", "choose", "render"]

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_NAMES = {"name", "subnet", "gateway", "dataDir", "bridge", "uplink", "hostPort"}


@dataclass(frozen=True, slots=True)
class Profile:
    """A plugin's kind and configuration.

    ``conf`` lacks ``cniVersion``, ``name`` and ``type``: the suite sets them. ``runtime_config`` is what a runtime
    would add for each attachment. ``creates`` is false for a plugin that only adjusts an interface which is there
    (``ifname``) in every namespace. ``needs`` are kinds of link that the kernel must have.
    """

    name: str
    kind: Kind
    conf: Mapping[str, Any]
    runtime_config: Mapping[str, Any] = field(default_factory=dict)
    ifname: str = "eth0"
    creates: bool = True
    needs: tuple[str, ...] = ()

    @property
    def delegates(self) -> bool:
        """Whether the plugin is an interface plugin that leaves addresses to another one."""
        ipam = self.conf.get("ipam")
        return self.kind == "interface" and isinstance(ipam, dict) and bool(ipam.get("type"))

    @property
    def pooled(self) -> bool:
        """Whether the suite chooses the pool of addresses."""
        return "{{subnet}}" in json.dumps(self.conf)


_HOST_LOCAL: dict[str, Any] = {
    "type": "host-local",
    "subnet": "{{subnet}}",
    "dataDir": "{{dataDir}}",
    "routes": [{"dst": "0.0.0.0/0"}],
}
_PORTS = [{"hostPort": "{{hostPort}}", "containerPort": 8080, "protocol": "tcp"}]
_RATES = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000}

PROFILES: dict[str, Profile] = {
    each.name: each
    for each in (
        Profile(
            "bridge",
            "interface",
            {
                "bridge": "{{bridge}}",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": _HOST_LOCAL,
                "capabilities": {"mac": True, "ips": True},
            },
        ),
        Profile("ptp", "interface", {"ipMasq": True, "ipam": _HOST_LOCAL, "capabilities": {"ips": True}}),
        Profile(
            "macvlan",
            "interface",
            {"master": "{{uplink}}", "ipam": _HOST_LOCAL, "capabilities": {"mac": True, "ips": True}},
            needs=("macvlan",),
        ),
        Profile("ipvlan", "interface", {"master": "{{uplink}}", "ipam": _HOST_LOCAL}, needs=("ipvlan",)),
        Profile("loopback", "interface", {}, ifname="lo", creates=False),
        Profile("host-local", "ipam", {"ipam": _HOST_LOCAL, "capabilities": {"ips": True}}),
        Profile(
            "portmap",
            "chained",
            {"snat": True, "capabilities": {"portMappings": True}},
            {"portMappings": _PORTS},
        ),
        Profile("bandwidth", "chained", {"capabilities": {"bandwidth": True}}, {"bandwidth": _RATES}),
        Profile("firewall", "chained", {"ingressPolicy": "open", "backend": "iptables"}),
        Profile("tuning", "chained", {"mtu": 1400, "sysctl": {"net.ipv4.conf.all.log_martians": "1"}}),
        Profile(
            "podnet",
            "interface",
            {
                "bridge": "{{bridge}}",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": _HOST_LOCAL,
                "capabilities": {"mac": True, "ips": True, "portMappings": True, "bandwidth": True},
            },
            {"portMappings": _PORTS, "bandwidth": _RATES},
        ),
    )
}


def choose(basename: str, *, conf: str = "", kind: str = "") -> Profile:
    """The profile of a plugin: from the text of a configuration file, or built in under the executable's name.

    Raises ``UsageError`` where neither is there, or the text is no network configuration.
    """
    known = PROFILES.get(basename)
    if not conf:
        if known is None:
            msg = (
                f"no built-in profile for {basename!r} (there are: {', '.join(sorted(PROFILES))}); give the network "
                "configuration to judge it with: --conf FILE [--kind interface|chained|ipam]"
            )
            raise UsageError(msg)
        return replace(known, kind=cast("Kind", kind)) if kind else known
    try:
        given = json.loads(conf)
    except ValueError as error:
        msg = f"the configuration is no JSON: {error}"
        raise UsageError(msg) from None
    if isinstance(given, dict) and isinstance(given.get("plugins"), list):
        msg = "the configuration is a list of plugins; give the configuration object of the one to judge"
        raise UsageError(msg)
    if not isinstance(given, dict):
        msg = f"the configuration must be a JSON object, found {type(given).__name__}"
        raise UsageError(msg)
    unknown = sorted(set(_PLACEHOLDER.findall(conf)) - _NAMES)
    if unknown:
        msg = f"unknown placeholder {{{{{unknown[0]}}}}}; there are: {', '.join(sorted(_NAMES))}"
        raise UsageError(msg)
    found = kind or (known.kind if known else _kind_of(given, basename))
    if found not in ALL_KINDS:
        msg = f"unknown kind {found!r}; there are: {', '.join(ALL_KINDS)}"
        raise UsageError(msg)
    body = {key: value for key, value in given.items() if key not in _SET_BY_SUITE}
    runtime = given.get("runtimeConfig", {})
    return Profile(
        name=basename,
        kind=found,
        conf=body,
        runtime_config=runtime if isinstance(runtime, dict) else {},
        ifname=known.ifname if known else "eth0",
        creates=known.creates if known else True,
    )


_SET_BY_SUITE = {"cniVersion", "name", "type", "prevResult", "runtimeConfig"}


def _kind_of(given: Mapping[str, Any], basename: str) -> str:
    ipam = given.get("ipam")
    if isinstance(ipam, dict) and ipam.get("type") == basename:
        return "ipam"
    return "chained" if "prevResult" in given else "interface"


def render(value: Any, values: Mapping[str, Any]) -> Any:
    """Fill in placeholders; a string that is one placeholder becomes its value, of whatever type."""
    if isinstance(value, dict):
        return {key: render(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [render(each, values) for each in value]
    if not isinstance(value, str):
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    if whole:
        return values[whole[1]]
    return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), value)
