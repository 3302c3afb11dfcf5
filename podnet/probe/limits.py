"""Limits of the machine that a run over many namespaces meets: open files, and the neighbour table."""

from __future__ import annotations

import resource
from pathlib import Path

__all__ = ["allow_files", "neighbour_overflows"]

_SPARE = 128  # what the interpreter and the caller have open


def allow_files(needed: int) -> None:
    """Raise this process's soft limit of open files if it is too low for ``needed`` more, up to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed + _SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))


def neighbour_overflows() -> int | None:
    """How often the neighbour table, one for all namespaces, was full; ``None`` where the kernel does not show it.

    Only the first namespace of the machine has ``/proc/net/stat/arp_cache`` (net/core/neighbour.c). Each line
    after the heading is a CPU, numbers are hexadecimal.
    """
    total = 0
    for cache in ("arp_cache", "ndisc_cache"):
        path = Path("/proc/thread-self/net/stat") / cache
        if not path.exists():
            return None
        names, *rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
        total += sum(int(row[names.index("table_fulls")], 16) for row in rows)
    return total
