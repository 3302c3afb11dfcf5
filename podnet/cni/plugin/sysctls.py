"""Sysctls of the machine that attachments share: set by each, put back by the last as they were before the first."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.ipam.ledger import boot_id
from podnet.kernel.objects import Sysctl
from podnet.kernel.schedule import Op

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podnet.cni.plugin.machine import Machine
    from podnet.ipam.book import Book, Noted, Setting

__all__ = ["put_back", "to_set", "with_before"]

_GONE = {errno.ENOENT, errno.ENODEV}  # a link's sysctls go with it, also between a look and a write


def to_set(setting: Setting) -> Op:
    """What sets it."""
    return Op("set", Sysctl("", setting.name, setting.value), ("value",))


def with_before(machine: Machine, book: Book, settings: Iterable[Setting]) -> tuple[Setting, ...]:
    """The settings with the values to go back to: what others have written down, else what is there now.

    In the transaction that writes them down.
    """
    found = []
    for each in settings:
        before = book.before(each.name)
        found.append(each._replace(before=machine.sysctl(each.name) if before is None else before))
    return tuple(found)


def put_back(machine: Machine, book: Book, struck: Iterable[Noted]) -> None:
    """Put back what nobody sets any more, in the transaction that struck it.

    What somebody has changed since, what is gone, and what is of another boot stays as it is. Raises ``KernelError``.
    """
    boot = boot_id()
    left = {each.name: each for part in struck if part.boot_id == boot for each in part.settings}
    for each in left.values():
        if each.before in ("", each.value) or book.before(each.name) is not None:
            continue
        if machine.sysctl(each.name) == each.value:
            try:
                machine.apply([to_set(each._replace(value=each.before))])
            except KernelError as error:
                if error.errno not in _GONE:
                    raise
