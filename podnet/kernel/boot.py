"""Which boot of the machine this is."""

from __future__ import annotations

__all__ = ["boot_id"]


def boot_id() -> str:
    """The kernel's id of this boot (``/proc/sys/kernel/random/boot_id``)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
