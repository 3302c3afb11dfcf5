"""Why the kernel dropped a packet, in its own words: the ``skb:kfree_skb`` tracepoint, in a private tracefs instance.

The file system is never mounted anywhere: fsopen(2) and fsmount(2) give a folder that only this process has. The
instance is a folder in it, and nobody else's tracing is disturbed; it is removed afterwards. Events of the whole
machine arrive in it, so those between two marks by the very thread that sends count, and no others: a packet
through veth pairs is handled, up to its end, before the sender's system call returns.
"""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from typing import NamedTuple

from podnet.errors import KernelError

__all__ = ["Drop", "DropTracer"]

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same numbers on every architecture
_FSCONFIG_CMD_CREATE = 6
_EVENT = "events/skb/kfree_skb"
_PREFIX = "podnet-"

_LINE = re.compile(r"^.*-(?P<task>\d+)\s+\[\d+\] .*?(?P<seconds>\d+\.\d+): (?P<what>\w+): (?P<text>.*)$")
_DROP = re.compile(
    r"skbaddr=(?P<packet>\S+) .*protocol=(?P<protocol>\d+) location=(?P<where>\w+)\S* reason: (?P<why>\S+)"
)

_libc = ctypes.CDLL(None, use_errno=True)


class Drop(NamedTuple):
    """One packet that the kernel gave up: ``ethertype``, the kernel's function, and its reason (skb_drop_reason)."""

    mark: str
    ethertype: int
    function: str
    reason: str


class DropTracer:
    """The tracepoint in an instance of its own; close it. Raises ``KernelError`` where the kernel has no tracefs."""

    def __init__(self) -> None:
        self._root = _mounted()
        self._marker = -1
        self._folder = ""
        try:
            self._sweep()
            self._make()
            self._write("options/stacktrace", "0")
            self._write(f"{_EVENT}/enable", "1")
        except OSError as error:
            self.close()
            msg = f"the kernel's reasons cannot be traced: {error.strerror} ({error.filename or _EVENT})"
            raise KernelError(msg, error.errno or 0) from error

    def _sweep(self) -> None:
        """Remove what was left by processes that were killed: an instance in use refuses to go (EBUSY)."""
        folder = os.open("instances", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        try:
            for name in os.listdir(folder):
                if name.startswith(_PREFIX):
                    with suppress(OSError):
                        os.rmdir(name, dir_fd=folder)
        finally:
            os.close(folder)

    def _make(self) -> None:
        """An instance of its own, in use from then on."""
        for last in (False, False, True):
            folder = f"instances/{_PREFIX}{os.getpid()}-{os.urandom(3).hex()}"
            os.mkdir(folder, dir_fd=self._root)
            try:
                path = f"{folder}/trace_marker"
                self._marker = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._root)
            except FileNotFoundError:
                # Another podnet swept it away in between.
                if last:
                    raise
            else:
                self._folder = folder
                return

    def _write(self, name: str, value: str) -> None:
        fd = os.open(f"{self._folder}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._root)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)

    def mark(self, text: str) -> None:
        """Write a mark into the trace; what this thread causes from here on belongs to it. An empty one ends it."""
        os.write(self._marker, f"podnet={text}".encode())

    def read(self) -> list[Drop]:
        """The drops that this thread caused, each with its mark."""
        fd = os.open(f"{self._folder}/trace", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._root)
        with os.fdopen(fd, encoding="utf-8", errors="replace") as file:
            return _drops(file.read())

    def close(self) -> None:
        """Remove the instance."""
        if self._marker >= 0:
            os.close(self._marker)
            self._marker = -1
        if self._folder:
            with suppress(OSError):
                self._write(f"{_EVENT}/enable", "0")
            with suppress(FileNotFoundError):  # swept away by another podnet, since it is no longer in use
                os.rmdir(self._folder, dir_fd=self._root)
            self._folder = ""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1


def _mounted() -> int:
    """A file descriptor of tracefs' root; the mount is gone when it is closed."""
    context = _libc.syscall(_FSOPEN, b"tracefs", 1)
    if context < 0:
        number = ctypes.get_errno()
        msg = f"this kernel gives no tracefs: {os.strerror(number)}"
        raise KernelError(msg, number)
    try:
        root = -1
        if _libc.syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0) == 0:
            root = _libc.syscall(_FSMOUNT, context, 1, 0)
        if root < 0:
            number = ctypes.get_errno()
            msg = f"tracefs cannot be mounted: {os.strerror(number)}"
            raise KernelError(msg, number)
        return int(root)
    finally:
        os.close(context)


def _drops(text: str) -> list[Drop]:
    """The drops in a trace, as its text file shows it, of the tasks that set marks."""
    marks: dict[str, str] = {}
    found = []
    for line in text.splitlines():
        event = _LINE.match(line)
        if event is None:
            continue
        if event["text"].startswith("podnet="):
            marks[event["task"]] = event["text"].removeprefix("podnet=")
        elif event["what"] == "kfree_skb" and marks.get(event["task"]) and (drop := _DROP.search(event["text"])):
            found.append(Drop(marks[event["task"]], int(drop["protocol"]), drop["where"], drop["why"]))
    return found
