"""The store of reservations: no address twice, all or nothing, and errors that name the file."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from podnet.ipam.store import Reservation, Store, StoreError
from podnet.kernel.boot import boot_id


def _held(address: str, container: str, network: str = "lab") -> Reservation:
    return Reservation(network, address, container, "eth0", 7, "boot")


def test_what_was_written_is_read_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "ipam.db"
    kept = [_held("10.0.0.2/24", "a"), _held("fd00::2/64", "a"), _held("10.0.0.3/24", "b")]
    with Store(path) as store:
        assert store.reservations("lab") == []
        store.replace("lab", kept)
    with Store(path) as store:
        assert store.reservations("lab") == kept


def test_replace_is_the_whole_truth_of_one_network_and_of_no_other(tmp_path: Path) -> None:
    with Store(tmp_path / "ipam.db") as store:
        store.replace("lab", [_held("10.0.0.2/24", "a"), _held("10.0.0.3/24", "b")])
        store.replace("other", [_held("10.0.0.2/24", "x", "other")])
        store.replace("lab", [_held("10.0.0.3/24", "c")])
        assert store.reservations("lab") == [_held("10.0.0.3/24", "c")]
        assert store.reservations("other") == [_held("10.0.0.2/24", "x", "other")]
        store.replace("lab", [])
        assert store.reservations("lab") == []


def test_one_address_for_two_is_refused_and_nothing_has_changed(tmp_path: Path) -> None:
    with Store(tmp_path / "ipam.db") as store:
        before = [_held("10.0.0.2/24", "a")]
        store.replace("lab", before)
        with pytest.raises(StoreError, match=r"reservations of network lab in .*ipam\.db"):
            store.replace("lab", [_held("10.0.0.9/24", "b"), _held("10.0.0.9/24", "c")])
        assert store.reservations("lab") == before
        store.replace("lab", [])  # no transaction was left open


def test_a_reader_sees_the_old_or_the_new_while_others_write(tmp_path: Path) -> None:
    path = tmp_path / "ipam.db"
    sets = [[_held(f"10.0.{n}.{i}/24", f"c{i}") for i in range(2, 40)] for n in (1, 2)]
    with Store(path) as store:
        store.replace("lab", sets[0])
    stop = threading.Event()

    def write() -> None:
        with Store(path) as store:
            number = 0
            while not stop.is_set():
                number += 1
                store.replace("lab", sets[number % 2])

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        with Store(path) as store:
            seen = [sorted(r.address for r in store.reservations("lab")) for _ in range(200)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    whole = [sorted(r.address for r in each) for each in sets]
    assert all(each in whole for each in seen)


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be looked at" * 50, b"\0" * 4096])
def test_a_file_that_is_no_store(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ipam.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"cannot open the reservations in .*ipam\.db"):
        Store(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open the reservations"):
        Store(tmp_path / "absent" / "ipam.db")


def test_a_locked_store_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ipam.db"
    with Store(path):
        pass
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **options: connect(path, **(options | {"timeout": 0.1})))
    holder = connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with Store(path) as store, pytest.raises(StoreError, match="locked"):
            store.replace("lab", [])
    finally:
        holder.execute("ROLLBACK")
        holder.close()


def test_the_boot_id_is_the_kernels() -> None:
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
