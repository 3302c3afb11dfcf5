"""The container processes of a lab, seen from outside: ask its supervisor, or start one.

One supervisor process a lab (``podnet.kernel.supervisor``) holds all of its containers. Who it is, only the
kernel knows: the supervisor holds a POSIX write lock on ``supervisor.lock`` for its life, and F_GETLK answers with
the holder's pid, translated to the asker's PID namespace (fcntl_locking(2), fs/locks.c). A lock dies with its
holder, so unlike a pid file it is never stale.

This module imports what ``podnet status`` can afford: the standard library's light part.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from podnet.errors import KernelError
from podnet.kernel.objects import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

__all__ = ["HOSTS", "LOCK", "SOCKET", "ProcessStatus", "Supervisor", "holder"]

# What is in a run directory; the hosts file is its owner's to write, at any time.
LOCK, SOCKET, HOSTS = "supervisor.lock", "supervisor.sock", "hosts"

_FLOCK = struct.Struct("@hhqqi0q")  # struct flock of 64-bit Linux: type, whence, start, len, pid
_SPAWN_LIMIT = 10.0  # seconds that a new supervisor has until it answers
_POLL = 0.02


class ProcessStatus(NamedTuple):
    """A container as its supervisor knows it.

    ``pid`` is the machine's number of the container's first process (0 where none was made); ``state`` is
    ``running``, ``exited`` or ``failed``; ``exit_code`` or ``signal`` is set once it ended; ``started`` is Unix
    time in seconds; ``message`` says why it failed, or what it had to do without.
    """

    process: Process
    pid: int
    state: str
    exit_code: int | None
    signal: int | None
    started: float
    message: str


class Supervisor:
    """The supervisor of the lab whose run directory this is, whether or not one lives right now."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def pid(self) -> int | None:
        """The live supervisor's pid, or ``None``. Raises ``KernelError`` where it is of a PID namespace unseen here."""
        return holder(self._directory)

    def observe(self) -> list[ProcessStatus]:
        """All containers that were started and not stopped again, also those that ended by themselves.

        Empty where no supervisor lives; none is started.
        """
        reply = self._ask({"do": "status"}, 10.0)
        return [_status(one) for one in reply["containers"]] if reply else []

    def start(self, processes: Sequence[Process]) -> list[ProcessStatus]:
        """Start containers, and a supervisor where there is none; returns their states in the order asked for.

        One that runs already with the same command is left alone; one that ended is started anew. Raises
        ``KernelError`` naming every one that could not be executed; by then the others run.
        """
        if not processes:
            return []
        wanted = [{"netns": p.netns, "name": p.name, "argv": p.argv, "env": p.env} for p in processes]
        for process in processes:
            self.log_path(process.name)  # refuses a name that could not be one
        reply = None
        deadline = time.monotonic() + 3 * _SPAWN_LIMIT
        while reply is None:
            if time.monotonic() > deadline:
                msg = f"the supervisor of {self._directory} keeps ending; see {self._directory}/supervisor.log"
                raise KernelError(msg)
            if self.pid() is None:
                self._spawn()
            reply = self._ask({"do": "start", "processes": wanted}, 60.0 + len(wanted))
        states = [_status(one) for one in reply["containers"]]
        failed = [one.message for one in states if one.state == "failed"] + reply["refused"]
        if failed:
            raise KernelError("\n".join(failed))
        return states

    def stop(self, names: Sequence[str], grace: float = 2.0) -> None:
        """End these containers and every process that came from them; those that are not there are no error.

        SIGTERM first, SIGKILL after ``grace`` seconds. Raises ``KernelError`` where the kernel keeps a process.
        """
        if names:
            self._ask({"do": "stop", "names": list(names), "grace": grace}, grace + 60.0)

    def shutdown(self, grace: float = 2.0) -> None:
        """End all containers and the supervisor; no error where none lives.

        SIGTERM first; after ``grace`` seconds the supervisor ends, and the kernel kills what is left with it.
        """
        pid = self.pid()
        if pid is None:
            return
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if self.pid() != pid:
                return
            with suppress(KernelError):
                self._ask({"do": "shutdown", "grace": grace}, grace + 2.0)
            if not _ended(pidfd, 0.5):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                if not _ended(pidfd, 10.0):
                    msg = f"the supervisor of {self._directory} (pid {pid}) does not end, not even by SIGKILL"
                    raise KernelError(msg)
        finally:
            os.close(pidfd)

    def log_path(self, name: str) -> Path:
        """The file that a container's output goes to. Raises ``KernelError`` where this is no ``pod/container``."""
        from podnet.kernel.log import log_file  # pathlib costs as much as asking the supervisor

        return log_file(self._directory, name)

    def _ask(self, request: dict[str, Any], limit: float) -> dict[str, Any] | None:
        """One request, one reply; ``None`` where no supervisor lives, or it ends instead of an answer."""
        with self._connected() as (connection, asked):
            if connection is None:
                return None
            connection.settimeout(limit)
            answer = b""
            try:
                # One that is ending answers without reading, and closes: its answer is still there to read.
                with suppress(BrokenPipeError):
                    connection.sendall(json.dumps(request).encode() + b"\n")
                while chunk := connection.recv(1 << 16):
                    answer += chunk
            except ConnectionResetError:
                answer = answer if answer.endswith(b"\n") else b""
            except TimeoutError:
                msg = f"the supervisor of {self._directory} did not answer {request['do']!r} in {limit:.0f} s"
                raise KernelError(msg) from None
        if not answer.endswith(b"\n"):
            # Its containers end with it, and so is what was asked for by then: nothing runs, nothing is left to stop.
            self._wait(lambda: self.pid() != asked, _SPAWN_LIMIT)
            if self.pid() == asked:
                msg = f"the supervisor of {self._directory} (pid {asked}) hung up when it was asked to {request['do']}"
                raise KernelError(msg)
            return None
        reply: dict[str, Any] = json.loads(answer)
        if "error" in reply:
            raise KernelError(reply["error"])
        if reply.get("ending"):
            self._wait(lambda: self.pid() is None, limit)
            return None
        return reply

    @contextmanager
    def _connected(self) -> Iterator[tuple[socket.socket | None, int | None]]:
        """A connection to the live supervisor, and its pid; one that was just started is waited for."""
        deadline = time.monotonic() + _SPAWN_LIMIT
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            while (pid := self.pid()) is not None:
                try:
                    connection.connect(f"{self._directory}/{SOCKET}")
                except (FileNotFoundError, ConnectionRefusedError):
                    if time.monotonic() > deadline:
                        msg = f"the supervisor of {self._directory} (pid {pid}) does not listen on {SOCKET}"
                        raise KernelError(msg) from None
                    time.sleep(_POLL)
                except OSError as error:
                    msg = f"cannot ask the supervisor of {self._directory}: {error.strerror or error}"
                    raise KernelError(msg, error.errno or 0) from error
                else:
                    yield connection, pid
                    return
            yield None, None

    def _spawn(self) -> None:
        """Start a supervisor and wait until it answers or says why not; the loser of a race ends quietly."""
        import subprocess

        command = [sys.executable, "-I", "-m", "podnet.kernel.supervisor", self._directory]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            start_new_session=True,
            check=False,
        )
        said = done.stdout.decode(errors="replace").strip()
        if said not in {"ready", "taken"}:
            msg = f"cannot start the supervisor of {self._directory}: {said or f'exit code {done.returncode}'}"
            raise KernelError(msg)

    @staticmethod
    def _wait(true: Callable[[], bool], limit: float) -> None:
        deadline = time.monotonic() + limit
        while not true() and time.monotonic() < deadline:
            time.sleep(_POLL)


def holder(directory: str) -> int | None:
    """The pid of the process that holds the lock of a run directory, by the kernel's word."""
    try:
        lock = os.open(f"{directory}/{LOCK}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        msg = f"cannot read {directory}/{LOCK}: {error.strerror}"
        raise KernelError(msg, error.errno or 0) from error
    try:
        answer = fcntl.fcntl(lock, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(lock)
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    if kind == fcntl.F_UNLCK:
        return None
    if pid <= 0:
        msg = f"{directory} has a supervisor in a PID namespace that cannot be seen from here; ask from where it runs"
        raise KernelError(msg)
    return int(pid)


def _ended(pidfd: int, limit: float) -> bool:
    """Whether the process ends in time. A PID namespace's first process ends after all others of it."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(limit * 1000))


def _status(one: dict[str, Any]) -> ProcessStatus:
    env = tuple((key, value) for key, value in one["env"])
    process = Process(one["netns"], one["name"], tuple(one["argv"]), env)
    return ProcessStatus(
        process, one["pid"], one["state"], one["exit_code"], one["signal"], one["started"], one["message"]
    )
