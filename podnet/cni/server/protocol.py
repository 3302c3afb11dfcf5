"""What the plugin's executable and the server say to each other, packet by packet, over a Unix socket.

1. The caller sends ``HELLO`` with six open files: its environment (``NAME=value``, each ended by a NUL), its standard
   input, two empty files in memory for standard output and error, its root folder, its network namespace.
2. The server says ``READY`` when it stands in that root and namespace. Where it ends the connection instead, or is
   late, nothing has happened: the caller does the work itself.
3. The caller says ``GO``. From here on the call is carried out, and the caller must not carry it out as well.
4. The server says ``DONE`` and the exit code.

A caller that was late never says ``GO``, so no call is carried out twice. ``cni/podnet.c`` is the other party.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

__all__ = [
    "DONE",
    "DONE_PATIENCE",
    "GO",
    "HELLO",
    "MAX_ENVIRON",
    "READY",
    "READY_PATIENCE",
    "SOCKET",
    "Files",
    "environ_of",
    "limit",
    "packed",
    "user_of",
    "write_all",
]

SOCKET = "/run/podnet/cni.sock"
HELLO, READY, GO, DONE = b"podnet-cni 2", b"R", b"G", b"D"
READY_PATIENCE, DONE_PATIENCE = 5.0, 180.0  # seconds; a delegate may take 120
MAX_ENVIRON = 4 << 20  # bytes; execve takes less


class Files(NamedTuple):
    """The files of a call, in the order in which they are passed."""

    environ: int
    stdin: int
    stdout: int
    stderr: int
    root: int
    netns: int


def limit(connection: socket.socket, seconds: float) -> None:
    """Let the kernel end what waits for long: with a timeout of Python's own, every word would be a poll more."""
    patience = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, patience)


def user_of(connection: socket.socket) -> int:
    """The user ID of the other party, from the kernel (SO_PEERCRED, unix(7))."""
    _, user, _ = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)


def environ_of(data: bytes) -> dict[str, str]:
    """An environment from its packed form. The first of a name counts, as with getenv(3)."""
    found: dict[str, str] = {}
    for each in data.split(b"\0"):
        name, equals, value = each.partition(b"=")
        if equals:
            found.setdefault(os.fsdecode(name), os.fsdecode(value))
    return found


def packed(environ: dict[str, str]) -> bytes:
    """An environment in its packed form."""
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environ.items())


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, however small the pieces that are taken."""
    while data:
        data = data[os.write(descriptor, data) :]
