"""The reservations of the reference ``host-local`` plugin, taken over where a network has some.

Whoever changes a live node's network from the reference plugins to podnet has containers whose addresses are files:
``DATADIR/NETWORK/ADDRESS``, which hold the container's ID and, on a second line, its interface's name (very old
ones do not), beside ``last_reserved_ip.N`` and ``lock``. Nothing has to be done for them. Every call looks at the
folder's time of change, and where that is new, reads the folder under its lock:

- an address with a file is held by that attachment, and handed out to nobody;
- one whose file is gone, because the reference plugin has released it since, is free;
- a range goes on after the address that was handed out last.

DEL and GC of such an attachment release the address and delete the file, so that the folder is empty when the last
of the old containers is gone. It is never written to: the way back, with podnet's containers running, is to drain the
node first. Nor can both plugins hand out addresses of one network at the same time.

An attachment that was taken over has no namespace on record (``Holder.inode`` 0). So it counts as dead only after
the machine has been started anew.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from podnet.ipam.ledger import BusyError, Holder, LedgerError, Owner, boot_id
from podnet.ipam.ranges import family_of, number, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podnet.ipam.ledger import Ledger

__all__ = ["Reservation", "forget", "import_reservations", "read"]

_LOCK, _LATEST = "lock", "last_reserved_ip."
_MOST_BYTES = 4096  # of a file: an ID and an interface's name
_PATIENCE = 10.0  # seconds that a call waits for the lock
_SETTLED = 2_000_000_000  # ns: a folder that changed this lately may change again within one tick of its clock


class Reservation(NamedTuple):
    """An address with its attachment; ``ifname`` is empty where the file is of a very old version."""

    address: str
    container_id: str
    ifname: str


def read(folder: str) -> tuple[list[Reservation], dict[int, str]]:
    """All reservations in a network's folder, and the address that each range set gave last. Raises ``LedgerError``."""
    found, latest = [], {}
    try:
        for name in sorted(os.listdir(folder)):
            kind, dot, index = name.rpartition(".")
            if kind + dot == _LATEST and index.isdigit():
                latest[int(index)] = "".join(_lines(folder, name)[:1])
            elif _is_address(name):
                lines = [*_lines(folder, name), "", ""]
                found.append(Reservation(name, lines[0], lines[1]))
    except OSError as error:
        msg = f"cannot read the reservations of host-local in {folder}: {error.strerror}"
        raise LedgerError(msg) from error
    return found, {index: each for index, each in latest.items() if _is_address(each)}


def _lines(folder: str, name: str) -> list[str]:
    try:
        with open(os.path.join(folder, name), "rb") as file:
            raw = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return []
    return [line.strip() for line in raw.decode(errors="replace").strip().splitlines()]


def _is_address(name: str) -> bool:
    try:
        number(name)
    except ValueError:
        return False
    return True


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Hold the folder's lock, as host-local does. Raises ``BusyError``."""
    from fcntl import LOCK_EX, LOCK_NB, flock

    try:
        descriptor = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        msg = f"cannot lock the reservations of host-local in {folder}: {error.strerror}"
        raise LedgerError(msg) from error
    try:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                flock(descriptor, LOCK_EX | LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    msg = f"another process has kept the reservations of host-local in {folder} for {_PATIENCE:g} s"
                    raise BusyError(msg) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def import_reservations(ledger: Ledger, network: str, folder: str) -> None:
    """Take over what has changed in a network's folder since the last look. Raises ``LedgerError``.

    No error where there is no such folder: what was taken over before is kept then.
    """
    try:
        stamp = os.stat(folder).st_mtime_ns
    except OSError:
        return
    if ledger.imported(network, folder) == stamp:
        return
    with _locked(folder), ledger.transaction():
        now = os.stat(folder).st_mtime_ns
        reservations, latest = read(folder)
        _take_over(ledger, network, reservations)
        for index, address in latest.items():
            if ledger.latest(network, index, family_of(address)) is None:
                ledger.note_latest(network, index, family_of(address), number(address))
        ledger.note_imported(network, folder, now if abs(time.time_ns() - now) > _SETTLED else 0)


def _take_over(ledger: Ledger, network: str, reservations: list[Reservation]) -> None:
    held = {(family_of(each.address), number(each.address)): each for each in reservations}
    for holder in ledger.holders(network):
        for family, address in ledger.leases(holder.owner) if not holder.inode else ():
            each = held.get((family, address))
            if each is None or (each.container_id, each.ifname) != holder.owner[1:]:
                ledger.give_back(network, family, address)
    boot = boot_id()
    for (family, address), each in held.items():
        owner = Owner(network, each.container_id, each.ifname)
        # An attachment of podnet's own that has the address, or the name, came later than the file.
        if ledger.take(owner, family, address) and ledger.holder(owner) is None:
            ledger.record(Holder(owner, "", 0, boot))


def forget(ledger: Ledger, owner: Owner, folder: str) -> None:
    """Delete an attachment that was taken over, and its files; no error if they are gone. Raises ``LedgerError``."""
    if not os.path.isdir(folder):
        with ledger.transaction():
            ledger.forget(owner)
        return
    # First the folder's lock, as in taking over: two calls never wait for each other.
    with _locked(folder), ledger.transaction():
        known = ledger.imported(owner.network, folder) == os.stat(folder).st_mtime_ns
        for family, address in ledger.leases(owner):
            name = text(family, address)
            if [*_lines(folder, name), "", ""][:2] == [owner.container_id, owner.ifname]:  # else somebody else's by now
                _unlink(os.path.join(folder, name))
        ledger.forget(owner)
        if known:
            ledger.note_imported(owner.network, folder, os.stat(folder).st_mtime_ns)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        msg = f"cannot release {path}: {error.strerror}"
        raise LedgerError(msg) from error
