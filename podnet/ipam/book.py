"""What attachments have beyond their addresses, in SQLite: one book a machine, whatever the networks' own ledgers.

A part of an attachment (masquerading, its host ports, its shaping...) is written down before it is made, with the
elements of nftables maps that it consists of, so that it can be taken away by its key alone: without the namespace,
and without the configuration. A host port is claimed here for the whole machine.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from podnet.ipam.ledger import Ledger, Owner

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Book", "Element", "Noted", "Port", "Setting"]


class Element(NamedTuple):
    """An element of an nftables map or set: ``table`` with its family, ``value`` empty for a set's."""

    table: str
    map: str
    key: str
    value: str = ""


class Port(NamedTuple):
    """A host port: ``address`` is the host's, ``0.0.0.0`` or ``::`` for any of a family."""

    protocol: str
    address: str
    port: int


class Setting(NamedTuple):
    """A sysctl of the machine that attachments set, and the value that it had before the first of them."""

    name: str
    value: str
    before: str = ""


class Noted(NamedTuple):
    """A part of an attachment as it is written down, with the namespace that the attachment was made for.

    ``data`` is what its module wants to know again, as JSON values.
    """

    owner: Owner
    name: str
    data: dict[str, Any]
    netns: str
    inode: int
    boot_id: str
    elements: tuple[Element, ...] = ()
    ports: tuple[Port, ...] = ()
    settings: tuple[Setting, ...] = ()


class Book(Ledger):
    """A ledger with the parts of attachments in it. Every method raises as those of ``Ledger``."""

    def note(self, part: Noted) -> None:
        """Write a part down that is not written down yet, in the caller's transaction.

        Raises ``LedgerError`` where another attachment has one of its host ports: ``taken`` comes first.
        """
        row = (*part.owner, part.name, json.dumps(part.data), part.netns, part.inode, part.boot_id)
        with self._errors("write"):
            self._db.execute("DELETE FROM going WHERE (network, container_id, ifname, part) = (?, ?, ?, ?)", row[:4])
            self._db.execute("INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            rows = [(*element, *part.owner, part.name) for element in part.elements]
            self._db.executemany("INSERT OR REPLACE INTO element VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            ports = [(p.protocol, p.port, _family(p), p.address, *part.owner, part.name) for p in part.ports]
            self._db.executemany("INSERT INTO port VALUES (?, ?, ?, ?, ?, ?, ?, ?)", ports)
            settings = [(*setting, *part.owner, part.name) for setting in part.settings]
            self._db.executemany("INSERT OR REPLACE INTO setting VALUES (?, ?, ?, ?, ?, ?, ?)", settings)

    def parts(self, owner: Owner) -> list[Noted]:
        """What is written down of an attachment."""
        with self._errors("read"):
            query = "SELECT * FROM part WHERE (network, container_id, ifname) = (?, ?, ?)"
            rows = self._db.execute(query, owner).fetchall()
            return [
                Noted(
                    owner,
                    r[3],
                    json.loads(r[4]),
                    r[5],
                    r[6],
                    r[7],
                    self._elements(owner, r[3]),
                    self._ports(owner, r[3]),
                    self._settings(owner, r[3]),
                )
                for r in rows
            ]

    def data(self, network: str, name: str) -> list[dict[str, Any]]:
        """What is written down of the parts of this name in a network."""
        query = "SELECT data FROM part WHERE network = ? AND name = ? ORDER BY container_id, ifname"
        with self._errors("read"):
            return [json.loads(row[0]) for row in self._db.execute(query, (network, name))]

    def part_owners(self, network: str, name: str = "") -> list[Owner]:
        """The attachments of a network that have a part, or the part of this name."""
        query = "SELECT DISTINCT network, container_id, ifname FROM part WHERE network = ?"
        values: tuple[str, ...] = (network,)
        if name:
            query, values = f"{query} AND name = ?", (network, name)
        with self._errors("read"):
            return [Owner(*row) for row in self._db.execute(query, values)]

    def going(self, owner: Owner, names: Iterable[str]) -> bool:
        """Write down that these parts are being removed, in the caller's transaction; whether one of them was before.

        From then on their elements are no longer counted as theirs, until they are struck or noted again.
        """
        rows = [(*owner, name) for name in names]
        with self._errors("write"):
            new = self._db.executemany("INSERT OR IGNORE INTO going VALUES (?, ?, ?, ?)", rows).rowcount
        return new < len(rows)

    def others(self, owner: Owner, elements: Iterable[Element], *, going: bool = False) -> list[Element]:
        """Those of the elements that another attachment has, as it has them; with ``going``, also who is being removed.

        Another part of the same attachment is no other.
        """
        query = """SELECT value FROM element WHERE "table" = ? AND map = ? AND key = ?
            AND (network, container_id, ifname) != (?, ?, ?)"""
        if not going:
            query += " AND (network, container_id, ifname, part) NOT IN (SELECT * FROM going)"
        with self._errors("read"):
            rows = [(each, self._db.execute(f"{query} LIMIT 1", (*each[:3], *owner)).fetchone()) for each in elements]
        return [each._replace(value=row[0]) for each, row in rows if row is not None]

    def unused(self, tables: Iterable[str]) -> list[str]:
        """Those of the nftables tables that nobody has an element in."""
        query = 'SELECT 1 FROM element WHERE "table" = ? LIMIT 1'
        with self._errors("read"):
            return [each for each in tables if self._db.execute(query, (each,)).fetchone() is None]

    def before(self, name: str) -> str | None:
        """The value that a sysctl had before the first attachment set it; ``None`` where none has set it."""
        with self._errors("read"):
            row = self._db.execute("SELECT before FROM setting WHERE name = ? LIMIT 1", (name,)).fetchone()
        return None if row is None else str(row[0])

    def strike(self, owner: Owner, name: str) -> None:
        """Delete a part of an attachment, with its elements and host ports, in the caller's transaction."""
        where = (*owner, name)
        with self._errors("write"):
            self._db.execute("DELETE FROM part WHERE (network, container_id, ifname, name) = (?, ?, ?, ?)", where)
            self._db.execute("DELETE FROM going WHERE (network, container_id, ifname, part) = (?, ?, ?, ?)", where)
            self._db.execute("DELETE FROM element WHERE (network, container_id, ifname, part) = (?, ?, ?, ?)", where)
            self._db.execute("DELETE FROM port WHERE (network, container_id, ifname, part) = (?, ?, ?, ?)", where)
            self._db.execute("DELETE FROM setting WHERE (network, container_id, ifname, part) = (?, ?, ?, ?)", where)

    def taken(self, owner: Owner, ports: Iterable[Port]) -> list[tuple[Port, Owner]]:
        """What others have of these host ports. A port of any address stands against the same port of each address."""
        query = """SELECT network, container_id, ifname FROM port WHERE protocol = ? AND port = ? AND family = ?
            AND (address = ? OR address IN ('0.0.0.0', '::') OR ? IN ('0.0.0.0', '::'))
            AND (network, container_id, ifname) != (?, ?, ?) LIMIT 1"""
        found = []
        with self._errors("read"):
            for each in ports:
                values = (each.protocol, each.port, _family(each), each.address, each.address, *owner)
                row = self._db.execute(query, values).fetchone()
                if row is not None:
                    found.append((each, Owner(*row)))
        return found

    def _elements(self, owner: Owner, name: str) -> tuple[Element, ...]:
        query = """SELECT "table", map, key, value FROM element
            WHERE (network, container_id, ifname) = (?, ?, ?) AND part = ?"""
        return tuple(Element(*row) for row in self._db.execute(query, (*owner, name)))

    def _ports(self, owner: Owner, name: str) -> tuple[Port, ...]:
        query = "SELECT protocol, address, port FROM port WHERE (network, container_id, ifname, part) = (?, ?, ?, ?)"
        return tuple(Port(*row) for row in self._db.execute(query, (*owner, name)))

    def _settings(self, owner: Owner, name: str) -> tuple[Setting, ...]:
        query = "SELECT name, value, before FROM setting WHERE (network, container_id, ifname, part) = (?, ?, ?, ?)"
        return tuple(Setting(*row) for row in self._db.execute(query, (*owner, name)))


def _family(port: Port) -> int:
    return 6 if ":" in port.address else 4
