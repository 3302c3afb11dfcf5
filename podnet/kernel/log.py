"""The log of a container: where it is, how it is written and how it is read.

It is two files of at most ``LOG_HALF`` bytes, the newest bytes always kept: ``CONTAINER.log`` and, before it,
``CONTAINER.log.1``. One process writes (``Log``), any number read; a reader sees one stream, also while the
writer turns the files. This module imports what ``podnet status`` can afford: the standard library's light part.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from podnet.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LOG_HALF", "Log", "follow_log", "log_file", "previous_log", "read_log", "split_at_line"]

LOG_HALF = 5 << 20  # bytes; the directory is on a tmpfs, so a log costs memory


class Log:
    """A container's log: two files of at most ``LOG_HALF`` bytes each, turned at the end of a line."""

    def __init__(self, path: Path, half: int = LOG_HALF) -> None:
        self._path, self._half = path, half
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open(path)

    def _open(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self._size = os.fstat(self._file).st_size

    def write(self, data: bytes) -> None:
        """Append; raises ``OSError`` where the disk is full."""
        while data:
            now, data = split_at_line(data, self._half - self._size, fresh=self._size == 0)
            while now:
                written = os.write(self._file, now)
                self._size += written
                now = now[written:]
            if data:
                self._turn()

    def _turn(self) -> None:
        """Make the newest half the older one. At each moment there is a file at the path."""
        new = self._path.with_name(self._path.name + ".new")
        with suppress(FileNotFoundError):
            new.unlink()
        os.close(self._file)
        self._open(new)
        with suppress(FileNotFoundError):
            previous_log(self._path).unlink()
        previous_log(self._path).hardlink_to(self._path)
        new.rename(self._path)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def split_at_line(data: bytes, room: int, *, fresh: bool) -> tuple[bytes, bytes]:
    """What of ``data`` still goes into a file with ``room`` bytes left, and the rest.

    The cut is after a line where there is one; a line that does not even fit a ``fresh`` file is cut anywhere.
    """
    if len(data) <= room:
        return data, b""
    cut = data.rfind(b"\n", 0, max(room, 0)) + 1
    if cut == 0 and fresh:
        cut = room
    return data[:cut], data[cut:]


def log_file(directory: str, name: str) -> Path:
    """Where the output of container ``pod/container`` goes: ``logs/POD/CONTAINER.log``."""
    parts = name.split("/")
    if len(parts) != 2 or any(part in {"", ".", ".."} or "\0" in part for part in parts):
        msg = f"{name!r} names no container; it would be pod/container"
        raise KernelError(msg)
    return Path(directory, "logs", parts[0], f"{parts[1]}.log")


def previous_log(path: Path) -> Path:
    """The older half of a log."""
    return path.with_name(path.name + ".1")


def read_log(path: Path, tail: int | None = None) -> bytes:
    """What a container wrote last, up to 10 MiB; with ``tail``, only that many lines of it.

    Raises ``KernelError`` (ENOENT) where the container was never started.
    """
    return _last_lines(b"".join(_read_and_close(opened) for opened in _opened(path)), tail)


def follow_log(
    path: Path, tail: int | None = None, until: Callable[[], bool] = lambda: False, poll: float = 0.1
) -> Iterator[bytes]:
    """What a container wrote (its last ``tail`` lines where given), and then what it writes, as it comes.

    Ends when ``until`` says so and all was read. Looks every ``poll`` seconds. What is written faster than it is
    read is lost beyond the log's size. Raises ``KernelError`` (ENOENT) where the container was never started.
    """
    *older, current = _opened(path)
    try:
        history = b"".join(map(_read_and_close, older)) + _rest(current)
        if shown := _last_lines(history, tail):
            yield shown
        while True:
            over = until()
            if new := _rest(current):
                yield new
            gone = not path.exists()
            if gone or not _turned(path, current):
                if over or gone:
                    return
                time.sleep(poll)
                continue
            # The writer left this file with its last byte written, so it is read to its end, then the next one.
            if new := _rest(current):
                yield new
            *older, following = _opened(path)
            skipped = [one for one in older if not os.path.sameopenfile(one, current)]
            for one in older:
                if one not in skipped:
                    os.close(one)
            os.close(current)
            current = following
            for one in skipped:
                yield _read_and_close(one)
    finally:
        os.close(current)


def _turned(path: Path, current: int) -> bool:
    """Whether the writer has gone on to another file than this one."""
    try:
        return not os.path.samestat(os.stat(path), os.fstat(current))
    except FileNotFoundError:
        return False


def _last_lines(data: bytes, count: int | None) -> bytes:
    if count is None:
        return data
    start = len(data) - data.endswith(b"\n")
    for _ in range(count):
        start = data.rfind(b"\n", 0, start)
        if start < 0:
            return data
    return data[start + 1 :] if count > 0 else b""


def _rest(descriptor: int) -> bytes:
    """From where the descriptor stands to the file's end."""
    chunks = []
    while chunk := os.read(descriptor, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def _read_and_close(descriptor: int) -> bytes:
    try:
        return _rest(descriptor)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> list[int]:
    """Descriptors of both halves of a log, oldest first; a turn of the log in between loses nothing."""
    try:
        newest = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        msg = f"no log {path}: that container was never started"
        raise KernelError(msg, errno.ENOENT) from None
    try:
        older = os.open(previous_log(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return [newest]
    if os.path.sameopenfile(older, newest):
        # The log was turned since, or is just being turned: what is older now is what was newest.
        os.close(newest)
        newest = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if os.path.sameopenfile(older, newest):
            os.close(older)
            return [newest]
    return [older, newest]
