"""Namespaces that podnet did not make, as a lab: each with its addresses, expected to reach all others."""

from __future__ import annotations

import os
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from podnet.errors import UsageError
from podnet.kernel.dump import addresses, links
from podnet.kernel.netlink import NetlinkSocket
from podnet.kernel.netns import exists, names
from podnet.kernel.objects import Address
from podnet.model.lab import Interface, Lab, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["surroundings"]


def surroundings(given: Sequence[str]) -> tuple[Lab, list[str]]:
    """A lab of these namespaces (names under /run/netns, paths, process numbers), and all that packets may pass.

    Each is taken as a pod without a node, so that all are expected to reach each other under their own addresses.
    Raises ``UsageError`` for what is no namespace, or one that is named twice.
    """
    targets: list[Target] = []
    inodes: dict[tuple[int, int], str] = {}
    for word in given:
        netns = _path(word)
        path = netns if netns.startswith("/") else f"/run/netns/{netns}"
        status = os.stat(path)
        key = (status.st_dev, status.st_ino)
        if key in inodes:
            msg = f"{word} is the same namespace as {inodes[key]}: name each once"
            raise UsageError(msg)
        inodes[key] = word
        targets.append(Target(_name(word), "pod", netns, _interfaces(netns)))
    versions = tuple(v for v in (4, 6) if any(_usable(target, v) for target in targets))
    if not versions:
        msg = "none of these namespaces has an address that others could send to"
        raise UsageError(msg)
    return Lab("namespaces", versions, tuple(targets)), _all_namespaces(targets, set(inodes))


def _path(word: str) -> str:
    if word.isdecimal() and not exists(word):
        path = f"/proc/{word}/ns/net"
        if not os.path.exists(path):
            msg = f"there is no process {word}"
            raise UsageError(msg)
        return path
    if "/" in word:
        path = os.path.abspath(word)
        if not exists(path):
            msg = f"{word} is no network namespace: give a path such as /run/netns/NAME or /proc/PID/ns/net"
            raise UsageError(msg)
        return path
    if not exists(word):
        from difflib import get_close_matches

        close = get_close_matches(word, names(), 1)
        hint = f"did you mean {close[0]}?" if close else "ip netns list shows those that have a name"
        msg = f"there is no namespace named {word}: {hint}"
        raise UsageError(msg)
    return word


def _name(word: str) -> str:
    return os.path.basename(word) if word.startswith(("/run/netns/", "/var/run/netns/")) else word


def _interfaces(netns: str) -> tuple[Interface, ...]:
    """Every device but lo, with its addresses."""
    asked = NetlinkSocket(netns)
    try:
        rows = links(asked)
        found = addresses(asked, netns, {index: row.name for index, row in rows.items()})
    finally:
        asked.close()
    of: dict[str, list[str]] = {}
    for each in found:
        if isinstance(each, Address):
            of.setdefault(each.dev, []).append(each.address)
    return tuple(
        Interface(row.name, row.mac, row.mtu, tuple(ip_interface(text) for text in of.get(row.name, ())))
        for row in rows.values()
        if row.name != "lo"
    )


def _usable(target: Target, version: int) -> bool:
    return any(not address.ip.is_link_local for address in target.addresses(version))


def _all_namespaces(targets: Sequence[Target], seen: set[tuple[int, int]]) -> list[str]:
    """The targets', every named one, and the machine's own: what bridges and routes is in one of them."""
    found = [target.netns for target in targets]
    for name in sorted(names()):
        if exists(name):
            status = os.stat(f"/run/netns/{name}")
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                found.append(name)
    own = os.stat("/proc/thread-self/ns/net")
    return found if (own.st_dev, own.st_ino) in seen else [*found, ""]
