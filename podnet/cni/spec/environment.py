"""The CNI_* variables of a call, checked in the order in which the reference library checks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.cni.spec.errors import INVALID_ENVIRONMENT, CNIError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ARGUMENTS",
    "Environment",
    "arguments",
    "check_container_id",
    "check_ifname",
    "is_name",
    "parse",
]

ARGUMENTS = ("IP", "MAC", "GATEWAY")  # of CNI_ARGS; the names are exact

_NAMED = ("ADD", "CHECK", "DEL")
# In the order in which missing ones are listed.
_REQUIRED = {
    "CNI_COMMAND": ("ADD", "CHECK", "DEL", "GC", "STATUS"),
    "CNI_CONTAINERID": _NAMED,
    "CNI_NETNS": ("ADD", "CHECK"),  # on DEL it may be gone, and containerd then sends it empty
    "CNI_IFNAME": _NAMED,
    "CNI_PATH": ("ADD", "CHECK", "DEL", "GC", "STATUS"),
}


class Environment(NamedTuple):
    """The variables of one call. ``args`` is CNI_ARGS as it came; ``path`` has no empty elements."""

    command: str
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: str = ""
    path: tuple[str, ...] = ()
    netns_override: bool = False  # the plugin's own namespace may be the container's


def is_name(text: str) -> bool:
    """Whether this may be a container ID or a network's name: so it is a file name too, and no path."""
    # As ^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$, which would take 1.5 ms to compile.
    return text.isascii() and text[:1].isalnum() and all(each.isalnum() or each in "_.-" for each in text)


def check_container_id(text: str) -> None:
    """Raise ``CNIError`` 4 for what is no container ID."""
    if not is_name(text):
        raise CNIError(INVALID_ENVIRONMENT, "CNI_CONTAINERID: invalid characters in containerID", text)


def check_ifname(text: str) -> None:
    """Raise ``CNIError`` 4 for what Linux would not take as an interface's name (dev_valid_name in net/core/dev.c)."""
    if not text:
        raise CNIError(INVALID_ENVIRONMENT, "interface name is empty")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:  # no result, which is JSON, could name it
        raise CNIError(INVALID_ENVIRONMENT, "interface name is no UTF-8", ascii(text)) from None
    if length > 15:
        raise CNIError(
            INVALID_ENVIRONMENT, "interface name is too long", "interface name should be less than 16 characters"
        )
    if text in (".", ".."):
        raise CNIError(INVALID_ENVIRONMENT, "interface name is . or ..")
    if any(each in "/:\0" or each.isspace() for each in text):
        raise CNIError(INVALID_ENVIRONMENT, "interface name contains / or : or whitespace characters")


_CHECKS = {"CNI_CONTAINERID": check_container_id, "CNI_IFNAME": check_ifname}


def parse(environ: Mapping[str, str]) -> Environment:
    """The variables of a call (section 2 of the specification, "Parameters").

    Raises ``CNIError`` 4: at once for a value that is wrong, else with all that are missing. An unknown command is
    not refused here: that comes after the configuration was read (``versions.allow``).
    """
    command = environ.get("CNI_COMMAND", "")
    missing = []
    for name, commands in _REQUIRED.items():
        value = environ.get(name, "")
        if not value:
            if command in commands or name == "CNI_COMMAND":
                missing.append(name)
        elif command in commands and name in _CHECKS:
            _CHECKS[name](value)
    if missing:
        raise CNIError(INVALID_ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")
    return Environment(
        command=command,
        container_id=environ.get("CNI_CONTAINERID", ""),
        netns=environ.get("CNI_NETNS", ""),
        ifname=environ.get("CNI_IFNAME", ""),
        args=environ.get("CNI_ARGS", ""),
        path=tuple(each for each in environ.get("CNI_PATH", "").split(":") if each),
        netns_override=environ.get("CNI_NETNS_OVERRIDE", "").upper() in ("TRUE", "1"),
    )


def arguments(text: str, known: tuple[str, ...] = ARGUMENTS) -> dict[str, str]:
    """CNI_ARGS (``K=V;K2=V2``) as a mapping of the known keys.

    Raises ``CNIError`` 4 for what is no pair, and for unknown keys unless ``IgnoreUnknown`` is among them.
    """
    found: dict[str, str] = {}
    unknown = []
    ignore = False
    for pair in text.split(";") if text else ():
        parts = pair.split("=")
        if len(parts) != 2:
            raise CNIError(INVALID_ENVIRONMENT, f'CNI_ARGS: invalid pair "{pair}"')
        key, value = parts
        if key == "IgnoreUnknown":
            if value.lower() not in ("1", "true", "0", "false"):
                raise CNIError(INVALID_ENVIRONMENT, f'CNI_ARGS: error parsing value of pair "{pair}": it is no boolean')
            ignore = value.lower() in ("1", "true")
        elif key in known:
            found[key] = value
        else:
            unknown.append(pair)
    if unknown and not ignore:
        listed = " ".join(f'"{pair}"' for pair in unknown)
        raise CNIError(INVALID_ENVIRONMENT, f"CNI_ARGS: unknown args [{listed}]")
    return found
