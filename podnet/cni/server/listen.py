"""The server's socket: handed over by systemd, or made here, by one server at a time."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from podnet.errors import PodnetError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Listener", "ServerError", "inherited", "listening"]

_FIRST = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
_BACKLOG = 512


class ServerError(PodnetError):
    """The server cannot be started, or ended."""

    exit_code = 2


class Listener:
    """A listening socket, and its undo: ``hide`` takes the name away, ``close`` the rest."""

    def __init__(self, sock: socket.socket, path: str = "", lock: int = -1) -> None:
        self.socket, self._path, self._lock = sock, path, lock

    @property
    def own(self) -> bool:
        """Whether the socket ends with this server; systemd keeps its own."""
        return bool(self._path)

    def hide(self) -> None:
        """Take the name away: who comes now finds no server, who has connected is still served."""
        if self._path:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            self._path = ""

    def close(self) -> None:
        """Stop listening, and let the next server start."""
        self.hide()
        self.socket.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def inherited(environ: Mapping[str, str]) -> Listener | None:
    """The socket that systemd has opened for this process (``LISTEN_PID``, ``LISTEN_FDS``); raises ``ServerError``."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    if environ.get("LISTEN_FDS") != "1":
        msg = f"systemd hands over {environ.get('LISTEN_FDS')} sockets, and the server serves one"
        raise ServerError(msg)
    sock = socket.socket(fileno=_FIRST)
    if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        msg = "the socket that systemd hands over is none of ListenSequentialPacket="
        raise ServerError(msg)
    os.set_inheritable(_FIRST, False)
    return Listener(sock)


def listening(path: str) -> Listener:
    """A socket at ``path``, for root only. Raises ``ServerError`` where another server listens there."""
    if not os.path.isabs(path) or len(os.fsencode(path)) > 107:  # sun_path, unix(7)
        msg = f"--socket {path}: it must be an absolute path of at most 107 bytes"
        raise ServerError(msg)
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        msg = f"cannot serve at {path}: {error.strerror}"
        raise ServerError(msg) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sock = _made(path)
    except OSError as error:
        os.close(lock)
        taken = isinstance(error, BlockingIOError)
        msg = f"a server listens at {path} already" if taken else f"cannot serve at {path}: {error.strerror}"
        raise ServerError(msg) from error
    return Listener(sock, path, lock)


def _made(path: str) -> socket.socket:
    """The lock is ours, so whatever has the name is a dead server's. In place at once with its right mode."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    fresh = f"{path}.new"
    try:
        with suppress(FileNotFoundError):
            os.unlink(fresh)
        sock.bind(fresh)
        os.chmod(fresh, 0o600)
        sock.listen(_BACKLOG)
        os.rename(fresh, path)
    except OSError:
        sock.close()
        raise
    return sock
