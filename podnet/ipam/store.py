"""Reservations in SQLite: who holds which address, so that no address is ever held twice.

A reservation belongs to an attachment (network, container ID, interface name), as in the CNI specification. The
table's primary key makes a duplicate impossible, whoever writes. With the boot id beside it, what a crash or a
reboot left behind can be told from what is in use.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podnet.errors import PodnetError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

__all__ = ["Reservation", "Store", "StoreError"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS reservation (
    network TEXT NOT NULL,
    address TEXT NOT NULL,
    container_id TEXT NOT NULL,
    ifname TEXT NOT NULL,
    netns_inode INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    PRIMARY KEY (network, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attachment ON reservation (network, container_id, ifname);
"""


class StoreError(PodnetError):
    """The store cannot be read or written, or refuses a second reservation of an address."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """One address (canonical text with prefix length) that an attachment holds."""

    network: str
    address: str
    container_id: str
    ifname: str
    netns_inode: int = 0
    boot_id: str = ""


class Store:
    """The reservations in one database file; used as a context manager.

    Raises ``StoreError`` where the file cannot be used.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            msg = f"cannot open the reservations in {path}: {error}"
            raise StoreError(msg) from error

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def reservations(self, network: str) -> list[Reservation]:
        """All reservations of a network, ordered by attachment."""
        rows = self._db.execute(
            "SELECT network, address, container_id, ifname, netns_inode, boot_id FROM reservation"
            " WHERE network = ? ORDER BY container_id, ifname, address",
            (network,),
        )
        return [Reservation(*row) for row in rows]

    def replace(self, network: str, reservations: Iterable[Reservation]) -> None:
        """Make these the only reservations of a network, in one transaction.

        Raises ``StoreError`` where two of them hold one address; nothing has changed then.
        """
        rows = [(r.network, r.address, r.container_id, r.ifname, r.netns_inode, r.boot_id) for r in reservations]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM reservation WHERE network = ?", (network,))
            self._db.executemany("INSERT INTO reservation VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            msg = f"cannot write the reservations of network {network} in {self._path}: {error}"
            raise StoreError(msg) from error
