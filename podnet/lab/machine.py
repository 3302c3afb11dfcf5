"""What labs change on the machine itself, and how it is put back: sysctls, and ``/run/netns`` as a mount point.

Several labs may want the same sysctl. The first one's ``before`` is kept until the last one is gone.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from podnet.errors import KernelError
from podnet.kernel import netns, sysctl
from podnet.kernel.boot import boot_id
from podnet.kernel.objects import Sysctl
from podnet.lab.record import LABS_DIR, RUN_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["claim", "give_back", "neighbour_limits", "router_advertisements"]

_RTF_ADVERTISED = 0x00010000 | 0x00040000  # RTF_DEFAULT | RTF_ADDRCONF, linux/ipv6_route.h
FILE = f"{RUN_DIR}/machine.json"


@contextmanager
def _registry() -> Iterator[dict[str, Any]]:
    """The registry, locked; written back when the block ends, removed when nothing is left in it."""
    os.makedirs(RUN_DIR, mode=0o755, exist_ok=True)
    lock = os.open(RUN_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        value = _read()
        yield value
        if value["labs"]:
            with open(f"{FILE}.new", "w", encoding="utf-8") as file:
                file.write(json.dumps(value))
            os.replace(f"{FILE}.new", FILE)
        else:
            with suppress(FileNotFoundError):
                os.unlink(FILE)
            for empty in (LABS_DIR, RUN_DIR):
                with suppress(OSError):
                    os.rmdir(empty)
    finally:
        os.close(lock)


def _read() -> dict[str, Any]:
    """The registry as it is; a new one where there is none of this boot."""
    try:
        with open(FILE, "rb") as file:
            value: dict[str, Any] = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        value = {}
    if value.get("boot") != boot_id():
        value = {"boot": boot_id(), "labs": [], "netns_dir": "", "sysctls": {}, "neighbours": {}}
    return value


def claim(lab: str, sysctls: Sequence[Sysctl], neighbours: int) -> None:
    """Note that a lab runs and needs these sysctls of the machine, and what they were before any lab.

    ``neighbours`` is how many entries of the neighbour table it needs, of one IP version. Sysctls that the lab had
    claimed and no longer wants are put back. Makes ``/run/netns`` a mount point.
    """
    with _registry() as registry:
        if lab not in registry["labs"]:
            registry["labs"].append(lab)
        registry.setdefault("neighbours", {})[lab] = neighbours
        wanted = {each.name for each in sysctls}
        _drop(registry, lab, keep=wanted)
        for name in wanted:
            entry = registry["sysctls"].get(name)
            if entry is None:
                now = sysctl.read([("", name)])
                if not now:
                    continue  # it is not there; applying it says so
                entry = registry["sysctls"][name] = {"before": now[0].value, "labs": []}
            if lab not in entry["labs"]:
                entry["labs"].append(lab)
        registry["netns_dir"] = registry["netns_dir"] or netns.lacking()
    # Only now that it is written down whose doing it is.
    netns.prepare()


def router_advertisements(lab: str) -> list[Sysctl]:
    """What keeps the machine's own IPv6 default route when it begins to forward.

    A device with ``accept_ra`` 1 drops what routers advertised as soon as forwarding is on; 2 keeps it.
    """
    with _registry() as registry:
        claimed = {name for name, entry in registry["sysctls"].items() if lab in entry["labs"]}
    names = [f"net/ipv6/conf/{device}/accept_ra" for device in _with_advertised_route()]
    keep = {each.name for each in sysctl.read(("", name) for name in names) if each.value == "1"}
    keep |= {name for name in claimed if name.endswith("/accept_ra")}
    return [Sysctl("", name, "2") for name in sorted(keep)]


def neighbour_limits(lab: str, versions: Sequence[int]) -> tuple[dict[str, int], int]:
    """The limits of the neighbour table as they were before any lab, and the entries that other labs need of it.

    Without the limits that cannot be raised from here: only the machine's own namespace has them.
    """
    from podnet.lab import neighbours

    now, registry = neighbours.limits(versions), _read()
    before = {name: int(entry["before"]) for name, entry in registry["sysctls"].items() if name in now}
    others = sum(need for name, need in registry.get("neighbours", {}).items() if name != lab)
    return now | before, others


def _with_advertised_route() -> set[str]:
    """The devices over which a router's advertisement gave the machine its IPv6 default route."""
    try:
        with open("/proc/thread-self/net/ipv6_route", encoding="ascii") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return set()
    rows = [line.split() for line in lines]  # ..., flags, device: Documentation/networking/proc_net
    return {row[9] for row in rows if int(row[8], 16) & _RTF_ADVERTISED == _RTF_ADVERTISED}


def give_back(lab: str) -> None:
    """Put back what only this lab had changed on the machine."""
    with _registry() as registry:
        _drop(registry, lab, keep=set())
        if lab in registry["labs"]:
            registry["labs"].remove(lab)
        registry.get("neighbours", {}).pop(lab, None)
        if not registry["labs"] and registry["netns_dir"]:
            netns.release(registry["netns_dir"])


def _drop(registry: dict[str, Any], lab: str, keep: set[str]) -> None:
    for name, entry in list(registry["sysctls"].items()):
        if lab in entry["labs"] and name not in keep:
            entry["labs"].remove(lab)
            if not entry["labs"]:
                _put_back(Sysctl("", name, entry["before"]))
                del registry["sysctls"][name]


def _put_back(before: Sysctl) -> None:
    try:
        sysctl.write(before)
    except KernelError as error:
        # A sysctl of a device that is gone needs no putting back.
        if error.errno != errno.ENOENT:
            raise
