"""Texts of the file that are more than text: networks, addresses, names of sysctls and interfaces, label values.

Each function takes what the file says and returns the value, or raises a ``PydanticCustomError`` whose context
holds ``message``, ``help`` and ``part`` (the piece of the text that is wrong, may be empty).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, ip_address, ip_network

from pydantic_core import PydanticCustomError

from podnet.model.topology import Address, Network
from podnet.topology.problem import quote

__all__ = [
    "ADDRESS_PATTERN",
    "CIDR_PATTERN",
    "DESTINATION_PATTERN",
    "ENV_PATTERN",
    "INTERFACE_PATTERN",
    "LABEL_KEY_PATTERN",
    "LABEL_VALUE_PATTERN",
    "NAME_PATTERN",
    "SOURCE_PATTERN",
    "SYSCTL_PATTERN",
    "address",
    "bridge_name",
    "destination",
    "env_name",
    "interface_name",
    "label_key",
    "label_value",
    "network",
    "networks",
    "only_true",
    "source",
    "sysctl_name",
    "sysctl_value",
    "text",
]

NAME_PATTERN = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"  # RFC 1123's label
ADDRESS_PATTERN = r"^\s*[0-9A-Fa-f:.]+\s*$"
DESTINATION_PATTERN = r"^\s*(default|[0-9A-Fa-f:.]+(/[0-9]{1,3})?)\s*$"
PERCENTAGE_PATTERN = r"^\s*[0-9]+(\.[0-9]+)?\s*%\s*$"
DURATION_PATTERN = r"^\s*[0-9]+(\.[0-9]+)?\s*(us|ms|s)\s*$"
RATE_PATTERN = r"^\s*[0-9]+(\.[0-9]+)?\s*[kmg]?bit\s*$"
SOURCE_PATTERN = r"^(own|node|any|\s*[0-9A-Fa-f:.]+\s*)$"
CIDR_PATTERN = r"^\s*[0-9A-Fa-f:.]+/[0-9]{1,3}(\s*,\s*[0-9A-Fa-f:.]+/[0-9]{1,3})?\s*$"
INTERFACE_PATTERN = r"^[^/:\s]{1,15}$"
SYSCTL_PATTERN = r"^net(\.[A-Za-z0-9_-]+)+$"
ENV_PATTERN = "^[-._a-zA-Z][-._a-zA-Z0-9]*$"
LABEL_KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"

_PREFIX = re.compile("[0-9]{1,3}")


def wrong(message: str, hint: str = "", part: str = "") -> PydanticCustomError:
    """The error that all formats raise."""
    return PydanticCustomError("format", "{message}", {"message": message, "help": hint, "part": part})


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "text expected")
    return value


def networks(value: object) -> tuple[Network, ...]:
    """``10.244.0.0/16`` or ``10.244.0.0/16,fd00:10:244::/56``: one network per IP version, IPv4 first."""
    if isinstance(value, list):
        joined = ",".join(v for v in value if isinstance(v, str))
        raise wrong("networks are written as one text, with a comma between IPv4 and IPv6", f'write "{joined}"')
    parts = [p.strip() for p in _string(value).split(",")]
    found = [network(p) for p in parts]
    for version in (4, 6):
        same = [p for p, n in zip(parts, found, strict=True) if n.version == version]
        if len(same) > 1:
            raise wrong(f"two IPv{version} networks in one value", "one IPv4 and one IPv6 network at most", same[1])
    return tuple(sorted(found, key=lambda n: n.version))


def network(value: object) -> Network:
    """One network in prefix notation, host bits clear."""
    text = _string(value).strip()
    if not text:
        raise wrong("a network is missing here", "write it like 10.244.0.0/16 or fd00:10:244::/56")
    base, slash, prefix = text.partition("/")
    host = _parse(base, text)
    if not slash:
        raise wrong(f"{quote(text)} has no prefix length", f"write {text}/{24 if host.version == 4 else 64}", text)
    if not _PREFIX.fullmatch(prefix) or int(prefix) > host.max_prefixlen:
        raise wrong(
            f"{quote(text)}: an IPv{host.version} network's prefix length is a number from 0 to {host.max_prefixlen}",
            _netmask(base, prefix),
            text,
        )
    found = ip_network(f"{host}/{int(prefix)}", strict=False)
    if found.network_address != host:
        raise wrong(f"{quote(text)} has host bits set", f"the network that holds it is {found}", text)
    return found


def _netmask(base: str, prefix: str) -> str:
    try:
        return f"write {IPv4Network(f'{base}/{prefix}', strict=False)}"
    except ValueError:
        return ""


def _parse(base: str, whole: str) -> Address:
    try:
        if "%" in base:
            raise ValueError
        return ip_address(base)
    except ValueError:
        raise wrong(
            f"{quote(whole)} is no IPv4 or IPv6 {'network' if '/' in whole else 'address'}", _why(base), whole
        ) from None


def _why(base: str) -> str:
    if "%" in base:
        return "an address is written without a zone (%interface)"
    octets = base.split(".")
    if len(octets) == 4 and all(o.isdecimal() and o.isascii() for o in octets):
        if any(int(o[:9]) > 255 for o in octets):
            return "each of the four numbers is at most 255"
        return f"leading zeros are not allowed: write {'.'.join(str(int(o)) for o in octets)}"
    return "write it like 10.244.0.0 or fd00:10:244::"


def address(value: object) -> Address:
    """One address, without prefix length."""
    text = _string(value).strip()
    base, slash, _ = text.partition("/")
    if slash:
        _parse(base, text)
        raise wrong(f"{quote(text)} has a prefix length, and an address has none", f"write {base}", text)
    return _parse(text, text)


def destination(value: object) -> Network | None:
    """A route's destination: a network, a single address, or ``default`` (``None``)."""
    text = _string(value).strip()
    if text == "default":
        return None
    if "/" in text:
        return network(text)
    return ip_network(_parse(text, text))


def source(value: object) -> str:
    """Which sender's address the receiver must see: ``own``, ``node``, ``any``, or an address."""
    text = _string(value)
    if text in ("own", "node", "any"):
        return text
    try:
        return str(address(text))
    except PydanticCustomError:
        raise wrong(f"{quote(text)} is none of own, node, any, and no address", "", text) from None


def only_true(value: bool) -> bool:
    """``true``: the key is a word that is there or not."""
    if not value:
        raise wrong("this takes only true", "take the key out where it does not hold")
    return value


def interface_name(value: str) -> str:
    """A name that the kernel takes for an interface (``dev_valid_name`` in net/core/dev.c)."""
    if not value or len(value.encode()) > 15:
        raise wrong(f"{quote(value)}: an interface name has 1 to 15 bytes, this has {len(value.encode())}")
    bad = next((c for c in value if c in "/:" or c.isspace() or not c.isprintable()), None)
    if bad is not None or value in (".", ".."):
        raise wrong(f"{quote(value)} is no interface name", f"{quote(bad)} is not allowed in it" if bad else "")
    return value


def bridge_name(value: str) -> str:
    """A name for the bridge of a node, beside the interfaces that every node has."""
    if interface_name(value) in ("eth0", "lo"):
        raise wrong(
            f"{quote(value)} is the name of another interface of every node", "take another, for example podnet0"
        )
    return value


def sysctl_name(value: str) -> str:
    """A name below ``net.``, which is the part of sysctl that a network namespace has for itself."""
    if not re.fullmatch(SYSCTL_PATTERN[1:-1], value) or len(value) > 200:
        hint = (
            "write it with dots"
            if value.startswith("net/")
            else "only names of the form net.a.b.c belong to a namespace"
        )
        raise wrong(f"{quote(value)} is no sysctl of a network namespace", hint)
    return value


def sysctl_value(value: object) -> str:
    """Text, a whole number or a boolean (1 or 0)."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int):
        return str(value)
    text = _string(value)
    if not text.isprintable() or len(text) > 200 or not text:
        raise wrong(f"{quote(text)} is no sysctl value", "one line of 1 to 200 printable characters")
    return text


def percentage(value: object) -> int:
    """A share of all packets, in parts of 2**32 - 1."""
    return _impairment("loss", value)


def duration(value: object) -> int:
    """A time, in nanoseconds."""
    return _impairment("delay", value)


def rate(value: object) -> int:
    """Bits per second, as bytes per second."""
    return _impairment("rate", value)


def _impairment(name: str, value: object) -> int:
    from podnet.kernel.impairment import parse

    example = {"loss": "5%", "delay": "20ms", "rate": "10mbit"}[name]
    if not isinstance(value, str):
        raise wrong(f"{value} has no unit", f"write it like {example}")
    try:
        return parse(name, value)
    except ValueError as error:
        what, hint = error.args
        raise wrong(what.replace("'", '"'), hint) from None


def env_name(value: str) -> str:
    """A name that Kubernetes takes for an environment variable."""
    if not re.fullmatch(ENV_PATTERN[1:-1], value) or len(value) > 200:
        raise wrong(
            f"{quote(value)} is no name of an environment variable", "letters, digits, _, - and ., no digit first"
        )
    return value


def label_key(value: str) -> str:
    """A label's or annotation's key, as in Kubernetes: ``name`` or ``prefix/name``."""
    if not re.fullmatch(LABEL_KEY_PATTERN[1:-1], value) or len(value) > 317:
        hint = (
            "at most 63 letters, digits, -, _ and ., with a letter or digit at both ends; a DNS prefix and / before it"
        )
        raise wrong(f"{quote(value)} is no key of a label or annotation", hint)
    return value


def label_value(value: str) -> str:
    """A label's value, as in Kubernetes."""
    if not re.fullmatch(LABEL_VALUE_PATTERN[1:-1], value):
        hint = "at most 63 letters, digits, -, _ and ., with a letter or digit at both ends"
        raise wrong(f"{quote(value)} is no value of a label", f"{hint}; `annotations` take any text")
    return value


def text(value: str) -> str:
    """Any text but NUL, which ends every string that the kernel gets."""
    if "\0" in value:
        raise wrong("a NUL character is not allowed here")
    return value
