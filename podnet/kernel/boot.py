"""Which boot of the machine this is."""

from __future__ import annotations

from functools import cache

__all__ = ["boot_id"]


@cache
def boot_id() -> str:
    """The kernel's id of this boot (``/proc/sys/kernel/random/boot_id``)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
