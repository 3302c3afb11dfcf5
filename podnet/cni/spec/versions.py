"""The versions of the specification, what each of them allows, and the answer to VERSION."""

from __future__ import annotations

from typing import Any

from podnet.cni.spec.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT, CNIError

__all__ = ["COMMANDS", "NEWEST", "OLDEST", "SUPPORTED", "about", "allow", "answer", "at_least", "parse", "reconcile"]

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
OLDEST = SUPPORTED[0]  # what a document without cniVersion is taken to be
NEWEST = SUPPORTED[-1]

COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
_SINCE = {"CHECK": (0, 4, 0), "GC": (1, 1, 0), "STATUS": (1, 1, 0)}


def parse(version: str) -> tuple[int, int, int]:
    """A version as numbers; empty is 0.1.0, absent parts are 0. Raises ``CNIError`` 6."""
    if not version:
        version = OLDEST
    parts = version.split(".")
    if len(parts) > 3:
        raise CNIError(DECODING_FAILURE, f'invalid version "{version}": too many parts')
    for part in parts:
        if not (part.isascii() and part.isdigit()) or len(part) > 9:
            raise CNIError(DECODING_FAILURE, f'invalid version "{version}": "{part[:40]}" is no number')
    major, minor, micro = [int(part) for part in parts] + [0] * (3 - len(parts))
    return major, minor, micro


def at_least(version: str, other: str) -> bool:
    """Whether a version is the other one or newer. Raises ``CNIError`` 6."""
    return parse(version) >= parse(other)


def reconcile(version: str, supported: tuple[str, ...] = SUPPORTED) -> None:
    """Raise ``CNIError`` 6 for what is no version, 1 for a version that is not supported."""
    if version in supported:
        return
    parse(version)
    known = " ".join(f'"{each}"' for each in supported)
    raise CNIError(
        INCOMPATIBLE_VERSION, "incompatible CNI versions", f'config is "{version}", plugin supports [{known}]'
    )


def allow(command: str, version: str) -> None:
    """Raise ``CNIError`` unless a configuration of this version may be used with this command.

    In the order of the reference library: an unknown command (4), no version (6), a command that this version
    does not have (1), a version that is not supported (1).
    """
    if command not in COMMANDS:
        raise CNIError(INVALID_ENVIRONMENT, f"unknown CNI_COMMAND: {command}")
    if parse(version) < _SINCE.get(command, (0, 0, 0)):
        raise CNIError(INCOMPATIBLE_VERSION, f"config version does not allow {command}")
    reconcile(version)


def answer(version: str = "") -> dict[str, Any]:
    """What VERSION prints; ``version`` is the one that the runtime sent, and is echoed."""
    return {"cniVersion": version or NEWEST, "supportedVersions": list(SUPPORTED)}


def about(plugin: str) -> str:
    """What a plugin says on standard error when it is started without a command, to a human."""
    return f"{plugin}\nCNI protocol versions supported: {', '.join(SUPPORTED)}\n"
