"""Ledgers that stay open between calls: opening one takes 0.3 ms, and closing the last one writes to the disk.

A book is used by one call at a time, and kept by the file that it is, never by its path: callers see mounts of their
own, and a file may be replaced.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from podnet.ipam.book import Book
from podnet.ipam.ledger import FILE_NAME, BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["KEPT_FOR", "Books"]

KEPT_FOR = 2.0  # seconds without use; an open file keeps its mount busy
_KEPT = 16
_PATIENCE = 10.0  # seconds that a call waits for the others

_File = tuple[int, int]  # device and inode


def _file(folder: str) -> _File | None:
    try:
        found = os.stat(os.path.join(folder, FILE_NAME))
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Kept(Book):
    """A book that goes back to where it came from."""

    def __init__(self, folder: str, books: Books) -> None:
        super().__init__(folder, any_thread=True)
        self.file = _file(folder)
        self.used = 0.0
        self._books = books
        self._turn = books.turn(self.file)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As a ledger's. SQLite waits for others by sleeping, ever longer: those of this server wait for each other."""
        if not self._turn.acquire(timeout=_PATIENCE):
            msg = f"cannot write the ledger {self._path}: others have written for {_PATIENCE:g} s"
            raise BusyError(msg)
        try:
            with super().transaction():
                yield
        finally:
            self._turn.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._books.give_back(self)


class Books:
    """Opens books, or gives one out that is open. Called with a folder as ``Book`` is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Kept] = []
        self._turns: WeakValueDictionary[_File | None, threading.Lock] = WeakValueDictionary()

    def turn(self, file: _File | None) -> threading.Lock:
        """Whose turn it is to write to a file."""
        with self._lock:
            found = self._turns.get(file)
            if found is None:
                found = self._turns[file] = threading.Lock()
        return found

    def __call__(self, folder: str) -> Book:
        file = _file(folder)
        with self._lock:
            found = next((each for each in reversed(self._idle) if each.file == file), None) if file else None
            if found is not None:
                self._idle.remove(found)
        return found or _Kept(folder, self)

    def give_back(self, book: _Kept) -> None:
        """Keep a book for the next call."""
        book.used = time.monotonic()
        with self._lock:
            surplus = [self._idle.pop(0)] if len(self._idle) >= _KEPT else []
            self._idle.append(book)
        for each in surplus:
            each.close()

    def expire(self) -> bool:
        """Close those that were not used for long; whether some are left."""
        limit = time.monotonic() - KEPT_FOR
        with self._lock:
            old = [each for each in self._idle if each.used <= limit]
            self._idle = [each for each in self._idle if each.used > limit]
            left = bool(self._idle)
        for each in old:
            each.close()
        return left

    def close(self) -> None:
        """Close all."""
        with self._lock:
            idle, self._idle = self._idle, []
        for each in idle:
            each.close()
