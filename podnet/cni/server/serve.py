"""The server's life: loaded once, then a thread for each call, until it is idle for long or told to end."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from _thread import start_new_thread
from typing import TYPE_CHECKING

from podnet.cni.plugin.main import STATE
from podnet.cni.server import call, protocol
from podnet.cni.server.books import KEPT_FOR, Books
from podnet.cni.server.listen import Listener, ServerError, inherited, listening
from podnet.cni.server.preload import preload
from podnet.cni.server.together import Together

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["Server", "serve"]

_AT_ONCE = 128  # calls; the others wait in the socket's queue
_SWITCH = 0.0005  # seconds that a thread may keep the interpreter; Python's 0.005 is as long as an ADD
_ENDS = (signal.SIGTERM, signal.SIGINT)
_ENDING = 200.0  # seconds: longer than any call may take


class Server:
    """Takes calls from one listening socket."""

    def __init__(self, listener: Listener, state: str = STATE, idle: float = 0) -> None:
        self._listener, self._state, self._idle = listener, state, idle
        self._together, self._books = Together(), Books()
        self._lock = threading.Condition()
        self._running = 0
        self._last = time.monotonic()
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._ending = threading.Event()

    def end(self) -> None:
        """Take no more calls; ``run`` returns when those that run are answered. Good in a signal handler."""
        self._ending.set()
        os.write(self._waker, b"e")

    def run(self) -> None:
        """Serve until told to end, or until no call came for the idle time."""
        sock = self._listener.socket
        sock.setblocking(False)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._ending.is_set():
            kept = self._books.expire()
            poll.poll(self._patience(KEPT_FOR * 1000 + 1 if kept else None))
            if self._ending.is_set() or self._is_idle():
                break
            self._take(sock)
        self._listener.hide()
        if not self._ending.is_set():
            self._take(sock)  # who connected while the name was still there
        self._listener.close()
        with self._lock:
            self._lock.wait_for(lambda: self._running == 0, _ENDING)
        self._books.close()

    def _patience(self, most: float | None) -> float | None:
        """Milliseconds to the next look at what is idle."""
        if not self._idle:
            return most
        with self._lock:
            left = self._idle if self._running else self._last + self._idle - time.monotonic()
        return min(max(0.0, left) * 1000 + 1, most or float("inf"))

    def _is_idle(self) -> bool:
        with self._lock:
            return bool(self._idle) and not self._running and time.monotonic() >= self._last + self._idle

    def _take(self, sock: socket.socket) -> None:
        """Accept all that wait, as far as there may be as many at once."""
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._running < _AT_ONCE or self._ending.is_set())
            if self._ending.is_set():
                return
            try:
                connection, _ = sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no files left: those that run will give some back
                sys.stderr.write(f"podnet: cannot accept a call: {error.strerror}\n")
                time.sleep(0.05)
                return
            if protocol.user_of(connection) != 0:
                connection.close()
                continue
            with self._lock:
                self._running += 1
            start_new_thread(self._serve, (connection,))  # threading.Thread would wait until it runs

    def _serve(self, connection: socket.socket) -> None:
        try:
            call.carry_out(connection, self._together, self._books, self._state)
        finally:
            with self._lock:
                self._running -= 1
                self._last = time.monotonic()
                self._lock.notify_all()


def serve(
    path: str = protocol.SOCKET, state: str = STATE, idle: float = 0, ready: Callable[[], None] = lambda: None
) -> None:
    """Serve at systemd's socket or at ``path``, until SIGTERM or SIGINT, or until no call came for ``idle`` seconds.

    With ``idle`` 0 it waits for ever. ``ready`` is called when the socket listens. Raises ``ServerError``.
    """
    if os.geteuid() != 0:
        msg = "the server makes pods' interfaces, which needs root; run it with sudo"
        raise ServerError(msg)
    # Kept until somebody is there who can end in order.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    try:
        listener = inherited(os.environ) or listening(path)
        server = Server(listener, state, idle)

        def end(_number: int, _frame: FrameType | None) -> None:
            server.end()

        for number in _ENDS:
            signal.signal(number, end)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
    try:
        preload()
    except BaseException:
        listener.close()
        raise
    # Delegates get this one's working folder, and must not keep a mount busy.
    os.chdir("/")
    sys.setswitchinterval(_SWITCH)
    gc.enable()  # which the command line has turned off
    gc.collect()
    gc.freeze()
    ready()
    server.run()
