"""The attachments of container runtimes and the addresses that they hold, in SQLite; the layout of the whole file.

An attachment (network, container ID, interface name) is written down before anything is made for it, so that what
a crash leaves can be found. Addresses are packed, so that one look into the table's primary key finds the next
free one, however many are taken.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from podnet.errors import PodnetError
from podnet.kernel.boot import boot_id

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

if not TYPE_CHECKING:
    try:
        import _sqlite3 as sqlite3  # sqlite3 itself is this, and imports datetime: 2 ms of a cold call
    except ImportError:
        import sqlite3

__all__ = ["FILE_NAME", "BusyError", "Holder", "Ledger", "LedgerError", "Owner", "boot_id"]

FILE_NAME = "podnet.sqlite"

_PATIENCE = 10.0  # seconds that a call waits for the others
_LAYOUT = 5
_SCHEMA = """
CREATE TABLE IF NOT EXISTS holder (
    network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
    netns TEXT NOT NULL, inode INTEGER NOT NULL, boot_id TEXT NOT NULL,
    PRIMARY KEY (network, container_id, ifname)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (
    network TEXT NOT NULL, family INTEGER NOT NULL, address BLOB NOT NULL,
    container_id TEXT NOT NULL, ifname TEXT NOT NULL,
    PRIMARY KEY (network, family, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS leaseholder ON lease (network, container_id, ifname);
CREATE TABLE IF NOT EXISTS latest (
    network TEXT NOT NULL, range_set INTEGER NOT NULL, family INTEGER NOT NULL, address BLOB NOT NULL,
    PRIMARY KEY (network, range_set, family)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS imported (
    network TEXT NOT NULL, folder TEXT NOT NULL, stamp INTEGER NOT NULL, PRIMARY KEY (network, folder)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS part (
    network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL, name TEXT NOT NULL,
    data TEXT NOT NULL, netns TEXT NOT NULL, inode INTEGER NOT NULL, boot_id TEXT NOT NULL,
    PRIMARY KEY (network, container_id, ifname, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS element (
    "table" TEXT NOT NULL, map TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL, part TEXT NOT NULL,
    PRIMARY KEY ("table", map, key, network, container_id, ifname, part)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS elementholder ON element (network, container_id, ifname, part);
CREATE TABLE IF NOT EXISTS going (
    network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL, part TEXT NOT NULL,
    PRIMARY KEY (network, container_id, ifname, part)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS port (
    protocol TEXT NOT NULL, port INTEGER NOT NULL, family INTEGER NOT NULL, address TEXT NOT NULL,
    network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL, part TEXT NOT NULL,
    PRIMARY KEY (protocol, port, family, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS portholder ON port (network, container_id, ifname, part);
CREATE TABLE IF NOT EXISTS setting (
    name TEXT NOT NULL, value TEXT NOT NULL, before TEXT NOT NULL,
    network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL, part TEXT NOT NULL,
    PRIMARY KEY (name, network, container_id, ifname, part)
) WITHOUT ROWID;
"""
# Layout 1 had the masqueraded addresses in a column of the holder.
_FROM_1 = """
INSERT INTO part SELECT network, container_id, ifname, 'masquerade',
    '{"addresses": ["' || replace(masquerade, ' ', '", "') || '"]}', netns, inode, boot_id
    FROM holder WHERE masquerade != '';
CREATE TABLE holder_2 (
    network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
    netns TEXT NOT NULL, inode INTEGER NOT NULL, boot_id TEXT NOT NULL,
    PRIMARY KEY (network, container_id, ifname)
) WITHOUT ROWID;
INSERT INTO holder_2 SELECT network, container_id, ifname, netns, inode, boot_id FROM holder;
DROP TABLE holder;
ALTER TABLE holder_2 RENAME TO holder;
"""


class LedgerError(PodnetError):
    """The ledger cannot be read or written."""


class BusyError(LedgerError):
    """Others held the ledger for longer than a call waits."""


class Owner(NamedTuple):
    """What an attachment is known by."""

    network: str
    container_id: str
    ifname: str


class Holder(NamedTuple):
    """An attachment with the namespace that it was made for; ``inode`` 0 where another plugin has made it."""

    owner: Owner
    netns: str
    inode: int
    boot_id: str


def _size(family: int) -> int:
    return 4 if family == 4 else 16


class Ledger:
    """The ledger in a folder, which is made where it is missing; used as a context manager.

    Used by the thread that opens it, or with ``any_thread`` by one thread after the other. Every method raises
    ``BusyError`` or ``LedgerError`` where the file cannot be used.
    """

    def __init__(self, folder: str, patience: float = _PATIENCE, *, any_thread: bool = False) -> None:
        self._path = os.path.join(folder, FILE_NAME)
        try:
            os.makedirs(folder, mode=0o755, exist_ok=True)
            self._db = sqlite3.connect(
                self._path, timeout=patience, isolation_level=None, check_same_thread=not any_thread
            )
        except (OSError, sqlite3.Error) as error:
            msg = f"cannot open the ledger {self._path}: {error}"
            raise LedgerError(msg) from error
        try:
            with self._errors("open"):
                if self._db.execute("PRAGMA user_version").fetchone()[0] != _LAYOUT:
                    self._lay_out()
                self._db.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            self._db.close()
            raise

    def _lay_out(self) -> None:
        # Turning WAL on does not wait for others as a transaction does: one process at a time.
        from fcntl import LOCK_EX, flock

        folder = os.open(os.path.dirname(self._path) or ".", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            flock(folder, LOCK_EX)
            layout = self._db.execute("PRAGMA user_version").fetchone()[0]
            if layout > _LAYOUT:
                msg = f"cannot use the ledger {self._path}: a newer podnet has written it (layout {layout})"
                raise LedgerError(msg)
            if layout != _LAYOUT:
                self._db.execute("PRAGMA journal_mode=WAL")
                script = _SCHEMA + (_FROM_1 if layout == 1 else "")
                self._db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={_LAYOUT}; COMMIT;")
        finally:
            os.close(folder)

    @property
    def folder(self) -> str:
        """The folder that the ledger is in."""
        return os.path.dirname(self._path)

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            msg = f"cannot {verb} the ledger {self._path}: {error}"
            raise (BusyError if "locked" in str(error) else LedgerError)(msg) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing of it; no other process writes meanwhile."""
        with self._errors("write"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # -- attachments --------------------------------------------------------------------------------------

    def holders(self, network: str) -> list[Holder]:
        """All attachments of a network."""
        with self._errors("read"):
            rows = self._db.execute("SELECT * FROM holder WHERE network = ?", (network,)).fetchall()
        return [_holder(row) for row in rows]

    def holder(self, owner: Owner) -> Holder | None:
        """One attachment."""
        query = "SELECT * FROM holder WHERE network = ? AND container_id = ? AND ifname = ?"
        with self._errors("read"):
            row = self._db.execute(query, owner).fetchone()
        return None if row is None else _holder(row)

    def record(self, holder: Holder) -> None:
        """Write an attachment down, or over what is known of it."""
        values = (*holder.owner, holder.netns, holder.inode, holder.boot_id)
        with self._errors("write"):
            self._db.execute("INSERT OR REPLACE INTO holder VALUES (?, ?, ?, ?, ?, ?)", values)

    def release(self, owner: Owner) -> None:
        """Take all addresses of an attachment back."""
        with self._errors("write"):
            self._db.execute("DELETE FROM lease WHERE network = ? AND container_id = ? AND ifname = ?", owner)

    def forget(self, owner: Owner) -> None:
        """Delete an attachment with its addresses; no error if there is none."""
        self.release(owner)
        with self._errors("write"):
            self._db.execute("DELETE FROM holder WHERE network = ? AND container_id = ? AND ifname = ?", owner)

    # -- addresses ----------------------------------------------------------------------------------------

    def leases(self, owner: Owner) -> list[tuple[int, int]]:
        """The addresses of an attachment as (family, number)."""
        query = "SELECT family, address FROM lease WHERE network = ? AND container_id = ? AND ifname = ?"
        with self._errors("read"):
            return [(row[0], int.from_bytes(row[1], "big")) for row in self._db.execute(query, owner)]

    def take(self, owner: Owner, family: int, address: int) -> bool:
        """Give an address to an attachment; ``False`` where somebody has it."""
        values = (owner.network, family, address.to_bytes(_size(family), "big"), owner.container_id, owner.ifname)
        with self._errors("write"):
            return self._db.execute("INSERT OR IGNORE INTO lease VALUES (?, ?, ?, ?, ?)", values).rowcount == 1

    def give_back(self, network: str, family: int, address: int) -> None:
        """Take one address back, whoever has it."""
        values = (network, family, address.to_bytes(_size(family), "big"))
        with self._errors("write"):
            self._db.execute("DELETE FROM lease WHERE (network, family, address) = (?, ?, ?)", values)

    def imported(self, network: str, folder: str) -> int | None:
        """When a folder of reservations had changed that was read last (ns; 0: read it again); ``None`` if none was."""
        query = "SELECT stamp FROM imported WHERE (network, folder) = (?, ?)"
        with self._errors("read"):
            row = self._db.execute(query, (network, folder)).fetchone()
        return None if row is None else int(row[0])

    def note_imported(self, network: str, folder: str, stamp: int) -> None:
        """Write down that a folder of reservations was read."""
        with self._errors("write"):
            self._db.execute("INSERT OR REPLACE INTO imported VALUES (?, ?, ?)", (network, folder, stamp))

    def free(self, network: str, family: int, low: int, high: int, without: int) -> int | None:
        """The lowest address from ``low`` to ``high`` that nobody has, and that is not ``without``."""
        with self._errors("read"):

            def full(start: int, end: int) -> bool:
                taken = end - start + 1 - (start <= without <= end)
                return self._count(network, family, start, end, without) == taken

            # Whole stretches are counted, ever longer ones: reading 30,000 rows would take four times as long.
            start, step = low, 1
            while start <= high:
                end = min(start + step - 1, high)
                if not full(start, end):
                    break
                start, step = end + 1, step * 2
            if start > high:
                return None
            while start < end:
                middle = (start + end) // 2
                if full(start, middle):
                    start = middle + 1
                else:
                    end = middle
        return start

    def _count(self, network: str, family: int, low: int, high: int, without: int) -> int:
        """How many of the addresses from ``low`` to ``high`` somebody has, apart from ``without``."""
        query = """SELECT count(*) FROM lease
            WHERE network = ? AND family = ? AND address BETWEEN ? AND ? AND address != ?"""
        packed = [each.to_bytes(_size(family), "big") for each in (low, high, without)]
        found: int = self._db.execute(query, (network, family, *packed)).fetchone()[0]
        return found

    def latest(self, network: str, range_set: int, family: int) -> int | None:
        """The address that was handed out last from a range set."""
        query = "SELECT address FROM latest WHERE network = ? AND range_set = ? AND family = ?"
        with self._errors("read"):
            row = self._db.execute(query, (network, range_set, family)).fetchone()
        return None if row is None else int.from_bytes(row[0], "big")

    def note_latest(self, network: str, range_set: int, family: int, address: int) -> None:
        """Write down which address was handed out last."""
        values = (network, range_set, family, address.to_bytes(_size(family), "big"))
        with self._errors("write"):
            self._db.execute("INSERT OR REPLACE INTO latest VALUES (?, ?, ?, ?)", values)


def _holder(row: tuple[str, str, str, str, int, str]) -> Holder:
    return Holder(Owner(*row[:3]), *row[3:])
