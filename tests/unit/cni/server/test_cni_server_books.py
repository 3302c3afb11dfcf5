"""Ledgers that stay open: who writes to one file waits for the others of the server, and for nobody else."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from podnet.cni.server import books
from podnet.cni.server.books import Books
from podnet.ipam.ledger import BusyError


def test_a_file_is_written_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Books()
    first, second, other = (kept(str(tmp_path / name)) for name in ("one", "one", "other"))
    order: list[str] = []

    def write() -> None:
        with second.transaction():
            order.append("second")

    with first.transaction():
        with other.transaction():
            order.append("other")
        thread = threading.Thread(target=write)
        thread.start()
        order.append("first")
    thread.join(30)
    assert order == ["other", "first", "second"]
    monkeypatch.setattr(books, "_PATIENCE", 0.01)
    with first.transaction(), pytest.raises(BusyError, match="others have written"), second.transaction():
        pass
    with second.transaction():  # and it is given back
        pass
    for each in (first, second, other):
        kept.give_back(each)  # type: ignore[arg-type]
    kept.close()
