"""The machine's book: parts, elements that several attachments share, host ports, and files of older layouts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from podnet.ipam.book import Book, Element, Noted, Port
from podnet.ipam.ledger import Holder, LedgerError, Owner

ONE, TWO = Owner("net", "c1", "eth0"), Owner("other", "c2", "eth0")
ELEMENT = Element("inet t", "pods4", "10.1.2.2", "goto there")


def noted(owner: Owner, name: str = "masquerade", *elements: Element) -> Noted:
    return Noted(owner, name, {"addresses": ["10.1.2.2/24"]}, "/run/netns/x", 7, "boot", elements)


def test_a_part_is_read_as_it_was_written_and_goes_whole(tmp_path: Path) -> None:
    with Book(str(tmp_path)) as book:
        for name in ("masquerade", "portmap"):
            book.note(noted(ONE, name, ELEMENT))
        assert book.parts(ONE) == [noted(ONE, "masquerade", ELEMENT), noted(ONE, "portmap", ELEMENT)]
        assert book.part_owners("net") == [ONE]
        assert book.part_owners("net", "bandwidth") == []
        assert book.unused(["inet t", "inet u"]) == ["inet u"]
        book.strike(ONE, "masquerade")
        assert [each.name for each in book.parts(ONE)] == ["portmap"]
        book.strike(ONE, "portmap")
        assert (book.parts(ONE), book.unused(["inet t"])) == ([], ["inet t"])


def test_an_element_that_another_attachment_has_too_is_anothers(tmp_path: Path) -> None:
    theirs = ELEMENT._replace(value="goto elsewhere")
    with Book(str(tmp_path)) as book:
        book.note(noted(ONE, "masquerade", ELEMENT))
        assert book.others(ONE, [ELEMENT]) == []
        book.note(noted(TWO, "masquerade", theirs))
        assert book.others(ONE, [ELEMENT, ELEMENT._replace(key="10.1.2.3")]) == [theirs]


def test_who_is_being_removed_has_nothing_any_more(tmp_path: Path) -> None:
    with Book(str(tmp_path)) as book:
        for owner in (ONE, TWO):
            book.note(noted(owner, "masquerade", ELEMENT))
        assert book.going(ONE, ["masquerade"]) is False
        assert book.going(ONE, ["masquerade"]) is True
        assert book.going(ONE, ["masquerade", "portmap"]) is True, "one of them was before"
        assert book.others(TWO, [ELEMENT]) == []
        assert book.others(TWO, [ELEMENT], going=True) == [ELEMENT]
        assert book.others(ONE, [ELEMENT]) == [ELEMENT], "the other stays"
        book.note(noted(ONE, "masquerade", ELEMENT))
        assert book.others(TWO, [ELEMENT]) == [ELEMENT], "who is added again has it again"
        book.going(ONE, ["masquerade"])
        book.strike(ONE, "masquerade")
        assert book.going(ONE, ["masquerade"]) is False


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        (("tcp", "0.0.0.0", 80), ("tcp", "0.0.0.0", 80), True),
        (("tcp", "0.0.0.0", 80), ("udp", "0.0.0.0", 80), False),
        (("tcp", "0.0.0.0", 80), ("tcp", "0.0.0.0", 81), False),
        (("tcp", "0.0.0.0", 80), ("tcp", "::", 80), False),
        (("tcp", "0.0.0.0", 80), ("tcp", "192.0.2.1", 80), True),
        (("tcp", "192.0.2.1", 80), ("tcp", "0.0.0.0", 80), True),
        (("tcp", "192.0.2.1", 80), ("tcp", "192.0.2.2", 80), False),
        (("sctp", "::", 80), ("sctp", "fd00::1", 80), True),
    ],
)
def test_a_host_port_has_one_owner_on_the_machine(
    tmp_path: Path, first: tuple[str, str, int], second: tuple[str, str, int], refused: bool
) -> None:
    one, two, free = Port(*first), Port(*second), Port("tcp", "0.0.0.0", 9)
    with Book(str(tmp_path)) as book:
        with book.transaction():
            book.note(noted(ONE, "portmap")._replace(ports=(one,)))
        assert book.parts(ONE)[0].ports == (one,)
        assert book.taken(ONE, [one]) == [], "one's own is no conflict"
        assert book.taken(TWO, [free, two]) == ([(two, ONE)] if refused else [])
        if one == two:
            with pytest.raises(LedgerError, match="UNIQUE"), book.transaction():
                book.note(noted(TWO, "portmap")._replace(ports=(two,)))
            assert book.parts(TWO) == []
        book.strike(ONE, "portmap")
        assert book.taken(TWO, [two]) == []


def test_a_ledger_of_the_first_layout_is_carried_over(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "podnet.sqlite")) as db:
        db.executescript(
            """CREATE TABLE holder (
                network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
                netns TEXT NOT NULL, inode INTEGER NOT NULL, boot_id TEXT NOT NULL, masquerade TEXT NOT NULL DEFAULT '',
                PRIMARY KEY (network, container_id, ifname)
            ) WITHOUT ROWID;
            INSERT INTO holder VALUES ('net', 'c1', 'eth0', '/run/netns/x', 7, 'boot', '10.1.2.2/24 fd00::2/64');
            INSERT INTO holder VALUES ('net', 'c2', 'eth0', '/run/netns/y', 8, 'boot', '');
            PRAGMA user_version = 1;"""
        )
    for _ in range(2):
        with Book(str(tmp_path)) as book:
            assert book.holders("net") == [
                Holder(ONE, "/run/netns/x", 7, "boot"),
                Holder(Owner("net", "c2", "eth0"), "/run/netns/y", 8, "boot"),
            ]
            assert book.part_owners("net") == [ONE]
            data = {"addresses": ["10.1.2.2/24", "fd00::2/64"]}
            assert book.parts(ONE) == [Noted(ONE, "masquerade", data, "/run/netns/x", 7, "boot")]


def test_a_ledger_of_a_layout_to_come_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "podnet.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="a newer podnet has written it"):
        Book(str(tmp_path))
