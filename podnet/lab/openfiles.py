"""The limit of open files, of which a lab takes one for each namespace."""

from __future__ import annotations

import resource

from podnet.errors import CapabilityError

__all__ = ["raise_open_files"]

_SPARE_FILES = 200


def raise_open_files(namespaces: int) -> None:
    """Lift the soft limit of open files to what one socket per namespace needs.

    Raises ``CapabilityError`` where the hard limit is lower.
    """
    need = namespaces + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= need or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        msg = f"this lab needs {need} open files, and the limit is {hard}: raise it with 'ulimit -Hn {need}'"
        raise CapabilityError(msg)
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
