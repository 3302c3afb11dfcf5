"""Sysctls of namespaces: files below ``/proc/sys`` that show the namespace of the thread that opens them."""

from __future__ import annotations

import os
from itertools import groupby
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.kernel.netns import anonymous, entered
from podnet.kernel.objects import Sysctl

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["defaults", "read", "writable", "write"]


def read(wanted: Iterable[tuple[str, str]]) -> list[Sysctl]:
    """The values of (netns, name) pairs; a sysctl that is not there is left out. White space is folded."""
    found: list[Sysctl] = []
    for netns, pairs in groupby(sorted(wanted), key=lambda pair: pair[0]):
        with entered(netns):
            for _, name in pairs:
                try:
                    with open(f"/proc/sys/{name}", encoding="ascii") as file:
                        found.append(Sysctl(netns, name, " ".join(file.read().split())))
                except FileNotFoundError:
                    continue
    return found


def defaults(names: Iterable[str]) -> dict[str, str]:
    """The values that a new namespace has; for a device's sysctl, those that a new device gets."""
    found: dict[str, str] = {}
    with anonymous():
        for name in names:
            parts = name.split("/")
            if len(parts) == 5 and parts[2] in {"conf", "neigh"}:
                parts[3] = "default"
            for each in read([("", "/".join(parts))]):
                found[name] = each.value
    return found


def writable(name: str) -> bool:
    """Whether a sysctl of the thread's own namespace is there and can be set: containers have them read-only."""
    return os.access(f"/proc/sys/{name}", os.W_OK)


def write(sysctl: Sysctl) -> None:
    """Set one sysctl. Raises ``KernelError`` with the kernel's errno."""
    try:
        with entered(sysctl.netns):
            file = os.open(f"/proc/sys/{sysctl.name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, sysctl.value.encode("ascii"))
            finally:
                os.close(file)
    except OSError as error:
        msg = f"{error.strerror} (/proc/sys/{sysctl.name})"
        raise KernelError(msg, error.errno or 0) from error
