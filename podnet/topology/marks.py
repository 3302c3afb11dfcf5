"""The names and marks that a lab's objects carry in the kernel; no I/O."""

from __future__ import annotations

from hashlib import sha1
from zlib import crc32

from podnet.kernel.objects import ALTNAME

__all__ = ["SWITCH", "group_of", "label_of", "netns_of", "short", "table_of"]

SWITCH = "underlay"  # the namespace that holds the underlay's bridges


def netns_of(lab: str, target: str) -> str:
    """The name under ``/run/netns``. Names of labs and targets hold no dot, so no two can collide."""
    return f"{lab}.{target}"


def label_of(lab: str, target: str, ifname: str) -> str:
    """The altname of the far end of a target's interface."""
    return f"{ALTNAME}{lab}.{target}.{ifname}"


def group_of(lab: str) -> int:
    """The link group that marks a lab's links, and by which they can be deleted at once."""
    return 0x70000000 | (crc32(lab.encode()) & 0xFFFFFF)


def table_of(lab: str, netns: str) -> str:
    """The nftables table of a node; in the machine's own namespace it bears the lab's name."""
    return "podnet" if netns else f"podnet-{lab}"


def short(prefix: str, label: str) -> str:
    """An interface name of at most 15 bytes, always the same for one label."""
    return prefix + sha1(label.encode(), usedforsecurity=False).hexdigest()[:8]
