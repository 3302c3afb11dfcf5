"""The caller's side of the protocol in Python, for machines without a compiler; ``cni/podnet.c`` is the same in C."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from podnet.cni.server import protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Answer", "LateError", "LostError", "ask"]


class Answer(NamedTuple):
    """What the server answers."""

    code: int
    stdout: bytes
    stderr: bytes


class LostError(Exception):
    """The server took the call, and ended before it answered."""


class LateError(Exception):
    """The server took the call, and does not answer."""


def ask(path: str, environ: Mapping[str, str], stdin: bytes) -> Answer | None:
    """Let the server at ``path`` carry out a call; ``None`` where it did not take it, and nothing has happened.

    Raises ``LostError`` and ``LateError``.
    """
    connection = _connected(path)
    if connection is None:
        return None
    files: list[int] = []
    with connection:
        try:
            for content in (protocol.packed(dict(environ)), stdin, b"", b""):
                files.append(os.memfd_create("podnet-cni"))
                protocol.write_all(files[-1], content)
            files.append(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            files.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            if not _taken(connection, files):
                return None
            code = _done(connection)
            return Answer(code, _content(files[2]), _content(files[3]))
        finally:
            for each in files:
                os.close(each)


def _connected(path: str) -> socket.socket | None:
    """A connection to a server that is root's; ``None`` where there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    connection.settimeout(protocol.READY_PATIENCE)
    try:
        connection.connect(path)
        if protocol.user_of(connection) == 0:
            return connection
    except (OSError, ValueError):  # a path that is none
        pass
    connection.close()
    return None


def _taken(connection: socket.socket, files: list[int]) -> bool:
    try:
        socket.send_fds(connection, [protocol.HELLO], files)
        if connection.recv(2) != protocol.READY:
            return False
        connection.send(protocol.GO)
    except OSError:
        return False
    return True


def _done(connection: socket.socket) -> int:
    connection.settimeout(protocol.DONE_PATIENCE)
    try:
        word = connection.recv(2)
    except TimeoutError:
        raise LateError from None
    except OSError:
        raise LostError from None
    if len(word) != 2 or word[:1] != protocol.DONE:
        raise LostError
    return word[1]


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
