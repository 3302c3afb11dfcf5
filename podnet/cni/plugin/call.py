"""What every verb needs to know about its call: settings, names, the ledger's folder, which attachments are dead."""

from __future__ import annotations

import os
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from podnet.cni.attachment import label_of, plugin_host_name
from podnet.cni.plugin import ipam
from podnet.cni.spec.errors import IO_FAILURE, TRY_AGAIN_LATER, CNIError
from podnet.ipam.book import Book
from podnet.ipam.ledger import Owner, boot_id
from podnet.model.digest import sha1

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from podnet.cni.plugin.machine import LinkSeen, Machine
    from podnet.cni.plugin.settings import Settings
    from podnet.cni.spec.config import NetworkConfig
    from podnet.cni.spec.environment import Environment
    from podnet.ipam.ledger import Holder

__all__ = ["Call", "Lock", "host_end", "host_end_of", "locked", "stale", "turn"]

_F_WRLCK = 1
_PATIENCE = 10.0  # seconds that a call waits for a lock


class Call(NamedTuple):
    """One call, on one machine; ``state`` is the folder of ledgers and locks where the network names none."""

    machine: Machine
    environment: Environment
    environ: Mapping[str, str]
    config: NetworkConfig
    settings: Settings
    state: str
    passed: Callable[[str], None] = lambda _phase: None  # told the name of a phase that has ended
    books: Callable[[str], Book] = Book  # opens the book in a folder

    @property
    def owner(self) -> Owner:
        return Owner(self.config.name, self.environment.container_id, self.environment.ifname)

    @property
    def names(self) -> tuple[str, str]:
        """The name of the host end, and its altname."""
        label = label_of(*self.owner)
        return plugin_host_name(label), label

    def ledger(self) -> Book:
        """The ledger of this network, with the reservations that host-local has left it."""
        book = self.books(self._folder())
        try:
            if os.path.isdir(self.reservations):
                from podnet.ipam.hostlocal import import_reservations

                import_reservations(book, self.config.name, self.reservations)
        except BaseException:
            book.close()
            raise
        return book

    @property
    def reservations(self) -> str:
        """The folder in which host-local would keep this network's reservations; empty without our own IPAM."""
        try:
            return ipam.reservation_folder(self.config, self.state)
        except CNIError:
            if self.environment.command != "DEL":
                raise
            return ""

    def _folder(self) -> str:
        try:
            return ipam.state_folder(self.config, self.state)
        except CNIError:
            if self.environment.command != "DEL":
                raise
            return self.state  # no ADD has passed with this configuration: DEL finds nothing, and that is no error

    @contextmanager
    def book(self, ledger: Book) -> Iterator[Book]:
        """The machine's book: the network's ledger itself, where that is in the same folder."""
        if self._folder() == self.state:
            yield ledger
            return
        with self.books(self.state) as book:
            yield book

    def refuse_abandoned(self) -> None:
        """Raise ``CNIError`` 11 where nobody waits for the answer: a DEL may have been here already.

        Asked when it is this attachment's turn: whoever was killed later sends its DEL later, and that waits for us.
        """
        if self.machine.abandoned():
            raise CNIError(TRY_AGAIN_LATER, "the caller was killed before its turn came", "nothing was made")

    def stale(self, holders: Iterable[Holder]) -> list[Holder]:
        """Those attachments whose namespace is gone, or is of another boot."""
        return stale(self.machine, holders)


def host_end(machine: Machine, owner: Owner) -> LinkSeen | None:
    """The host end of an attachment; also the one that a crash left without its altname."""
    return host_end_of(machine, label_of(*owner))


def host_end_of(machine: Machine, label: str) -> LinkSeen | None:
    """As ``host_end``, by the altname."""
    found = machine.link("", label)
    if found is not None:
        return found
    unnamed = machine.link("", plugin_host_name(label))
    if unnamed is None or unnamed.kind != "veth" or any(each.startswith("podnet.") for each in unnamed.altnames):
        return None
    return unnamed


def stale(machine: Machine, holders: Iterable[Holder]) -> list[Holder]:
    """Those attachments that nothing uses: of another boot, or without their namespace and host end.

    A namespace whose path leads elsewhere may live on by another path: then the host end is still there. Of one that
    was taken over from host-local, no namespace is known.
    """
    boot = boot_id()
    return [
        each
        for each in holders
        if each.boot_id != boot
        or (each.inode and machine.inode(each.netns) != each.inode and host_end(machine, each.owner) is None)
    ]


class Lock:
    """A lock that many calls share; ``alone`` tells whether this one is the only one now."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def alone(self) -> bool:
        """Make the lock this call's own, if no other has a share of it."""
        from fcntl import LOCK_EX, LOCK_NB, flock

        try:
            flock(self._descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        return True


_FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, owner


@contextmanager
def turn(
    state: str, owner: Owner, patience: float = _PATIENCE, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Be the only call for an attachment, of this server and of all other processes.

    A runtime makes no two at once, but it may give one up, and call DEL while the server still carries out its ADD.
    The lock is one byte of a file, at the attachment's hash: nothing remains of it. Raises ``CNIError`` as ``locked``.
    """
    from fcntl import F_OFD_SETLK, fcntl

    place = int.from_bytes(sha1("/".join(owner).encode(), usedforsecurity=False).digest()[:7], "big")
    request = _FLOCK.pack(_F_WRLCK, os.SEEK_SET, place, 1, 0)
    descriptor = _lock_file(state, "attachments")
    try:
        until = clock() + patience
        while True:
            try:
                fcntl(descriptor, F_OFD_SETLK, request)
                break
            except BlockingIOError:
                if clock() > until:
                    msg = f"another call for {owner.ifname} of {owner.container_id} has run for {patience:g} s"
                    raise CNIError(TRY_AGAIN_LATER, msg, f"in network {owner.network}") from None
                time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


def _lock_file(state: str, name: str) -> int:
    path, flags = os.path.join(state, f"{name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(state, mode=0o755, exist_ok=True)
            return os.open(path, flags, 0o600)
    except OSError as error:
        raise CNIError(IO_FAILURE, f"cannot lock {name} in {state}: {error.strerror}") from None


@contextmanager
def locked(
    state: str, name: str, patience: float = _PATIENCE, clock: Callable[[], float] = time.monotonic
) -> Iterator[Lock]:
    """Hold a share of a lock. Raises ``CNIError`` 11 where another keeps it for itself too long, 5 without a file."""
    from fcntl import LOCK_NB, LOCK_SH, flock

    descriptor = _lock_file(state, name)
    try:
        until = clock() + patience
        while True:
            try:
                flock(descriptor, LOCK_SH | LOCK_NB)
                break
            except BlockingIOError:
                if clock() > until:
                    msg = f"another call has kept {name} for {patience:g} s"
                    raise CNIError(TRY_AGAIN_LATER, msg, os.path.join(state, f"{name}.lock")) from None
                time.sleep(0.01)
        yield Lock(descriptor)
    finally:
        os.close(descriptor)
