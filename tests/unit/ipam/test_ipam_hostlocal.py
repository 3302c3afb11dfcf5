"""The reference host-local plugin's files, taken over (requirements 2.3, 3.3, G8)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from podnet.ipam import hostlocal
from podnet.ipam.allocation import allocate
from podnet.ipam.hostlocal import Reservation, forget, import_reservations, read
from podnet.ipam.ledger import BusyError, Holder, Ledger, LedgerError, Owner, boot_id
from podnet.ipam.ranges import check, parse

OLD = Owner("net", "old", "eth0")
SETS = check([[parse("10.1.2.0/29")]])


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(str(tmp_path / "ledger")) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "networks" / "net"
    path.mkdir(parents=True)
    (path / "10.1.2.2").write_text("old\r\neth0")
    (path / "last_reserved_ip.0").write_text("10.1.2.2")
    (path / "lock").touch()
    age(path)
    return path


def age(folder: Path) -> None:
    """As if the folder had last changed long ago, each time a little later."""
    stamp = 1_000_000_000_000_000_000 + len(list(folder.iterdir())) * 1_000_000_000
    os.utime(folder, ns=(stamp, stamp))


def take(ledger: Ledger, name: str = "new") -> str:
    owner = Owner("net", name, "eth0")
    with ledger.transaction():
        ledger.record(Holder(owner, f"/run/netns/{name}", 7, boot_id()))
        return allocate(ledger, owner, SETS, [], lambda _: [])[0].address


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("10.1.2.2", "c\r\neth0", [("10.1.2.2", "c", "eth0")]),
        ("10.1.2.2", "c\neth0\n", [("10.1.2.2", "c", "eth0")]),
        ("10.1.2.2", " c \r\n eth0 \r\n", [("10.1.2.2", "c", "eth0")]),
        ("10.1.2.2", "c", [("10.1.2.2", "c", "")]),
        ("10.1.2.2", "", [("10.1.2.2", "", "")]),
        ("fd00::2", "c\r\neth0", [("fd00::2", "c", "eth0")]),
        ("lock", "c", []),
        ("notes.txt", "c", []),
        ("10.1.2.999", "c", []),
    ],
)
def test_3_3_1_3_3_4_what_a_file_says(
    tmp_path: Path, name: str, content: str, found: list[tuple[str, str, str]]
) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read(str(tmp_path)) == ([Reservation(*each) for each in found], {})


def test_a_file_that_is_no_text_or_without_end_is_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "10.1.2.2").write_bytes(b"\xff" * 100_000)
    (tmp_path / "last_reserved_ip.0").write_text("nonsense")
    (tmp_path / "last_reserved_ip.x").write_text("10.1.2.2")
    [found], latest = read(str(tmp_path))
    assert (found.address, len(found.container_id), latest) == ("10.1.2.2", 4096, {})


def test_an_address_with_a_file_is_not_handed_out_and_the_range_goes_on_behind_it(ledger: Ledger, folder: Path) -> None:
    import_reservations(ledger, "net", str(folder))
    assert ledger.leases(OLD) == [(4, 0x0A010202)]
    assert [take(ledger, name) for name in ("a", "b", "c", "d")] == [f"10.1.2.{n}/29" for n in (3, 4, 5, 6)]
    with pytest.raises(Exception, match=r"no IP addresses available in range set: 10.1.2.1-10.1.2.6"):
        take(ledger, "e")


def test_an_address_whose_file_is_gone_is_free(ledger: Ledger, folder: Path) -> None:
    import_reservations(ledger, "net", str(folder))
    (folder / "10.1.2.2").unlink()
    age(folder)
    import_reservations(ledger, "net", str(folder))
    assert ledger.leases(OLD) == []


def test_a_folder_that_is_gone_frees_nothing(ledger: Ledger, folder: Path) -> None:
    import_reservations(ledger, "net", str(folder))
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()
    import_reservations(ledger, "net", str(folder))
    assert ledger.leases(OLD) == [(4, 0x0A010202)]


def test_files_that_came_later_are_seen_and_an_unchanged_folder_is_not_read(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_reservations(ledger, "net", str(folder))
    (folder / "10.1.2.5").write_text("late\r\neth0")
    age(folder)
    import_reservations(ledger, "net", str(folder))
    assert ledger.leases(Owner("net", "late", "eth0")) == [(4, 0x0A010205)]
    monkeypatch.setattr(hostlocal, "read", lambda _: pytest.fail("read again"))
    import_reservations(ledger, "net", str(folder))


def test_a_folder_that_has_just_changed_is_read_again(ledger: Ledger, folder: Path) -> None:
    os.utime(folder)  # now
    import_reservations(ledger, "net", str(folder))
    stamp = os.stat(folder).st_mtime_ns
    (folder / "10.1.2.5").write_text("late\r\neth0")
    os.utime(folder, ns=(stamp, stamp))  # within the same tick of the file system's clock
    import_reservations(ledger, "net", str(folder))
    assert ledger.leases(Owner("net", "late", "eth0")) == [(4, 0x0A010205)]


def test_an_attachment_of_our_own_keeps_its_address(ledger: Ledger, folder: Path) -> None:
    assert take(ledger, "mine") == "10.1.2.2/29"
    import_reservations(ledger, "net", str(folder))
    assert (ledger.leases(OLD), len(ledger.leases(Owner("net", "mine", "eth0")))) == ([], 1)


def test_forgetting_deletes_the_attachments_files_and_no_others(ledger: Ledger, folder: Path) -> None:
    for name, content in (("10.1.2.3", "old\r\neth1"), ("10.1.2.4", "other\r\neth0"), ("fd00::2", "old\r\neth0")):
        (folder / name).write_text(content)
    age(folder)
    import_reservations(ledger, "net", str(folder))
    forget(ledger, OLD, str(folder))
    assert sorted(each.name for each in folder.iterdir()) == ["10.1.2.3", "10.1.2.4", "last_reserved_ip.0", "lock"]
    assert (ledger.leases(OLD), ledger.holder(OLD)) == ([], None)
    assert ledger.imported("net", str(folder)) == os.stat(folder).st_mtime_ns, "its own change needs no second look"
    forget(ledger, OLD, str(folder))


def test_a_file_that_is_somebody_elses_by_now_is_left(ledger: Ledger, folder: Path) -> None:
    import_reservations(ledger, "net", str(folder))
    (folder / "10.1.2.2").write_text("next\r\neth0")
    forget(ledger, OLD, str(folder))
    assert (folder / "10.1.2.2").read_bytes() == b"next\r\neth0"


def test_dead_after_another_boot_only(ledger: Ledger, folder: Path) -> None:
    import_reservations(ledger, "net", str(folder))
    holder = ledger.holder(OLD)
    assert holder is not None
    assert (holder.inode, holder.boot_id) == (0, boot_id())
    ledger.record(holder._replace(boot_id="before"))
    (folder / "10.1.2.3").write_text("late\r\neth0")
    age(folder)
    import_reservations(ledger, "net", str(folder))
    again = ledger.holder(OLD)
    assert again is not None
    assert again.boot_id == "before", "a second look makes nobody younger"


def test_3_3_12_the_folders_lock_is_waited_for(ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostlocal, "_PATIENCE", 0.05)
    with (folder / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another process has kept the reservations"):
            import_reservations(ledger, "net", str(folder))
    import_reservations(ledger, "net", str(folder))
    assert len(ledger.leases(OLD)) == 1


def test_a_folder_that_cannot_be_read_is_said(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=r"cannot lock the reservations of host-local in .*: Not a directory"):
        import_reservations(ledger, "net", str(tmp_path / "file"))
