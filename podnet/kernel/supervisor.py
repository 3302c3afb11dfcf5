"""The one process that holds all containers of a lab: ``python -I -m podnet.kernel.supervisor DIRECTORY``.

It is PID 1 of a PID namespace of its own. So when it ends, for whatever reason, the kernel kills every process of
every container with it, daemons too (pid_namespaces(7)); and whatever loses its parent becomes its child, so that
it can wait for it. It stays in the machine's mount namespace, so its ``/proc`` is the machine's and knows it by the
machine's number; the processes of its own namespace it sees in a ``/proc`` that is mounted nowhere.

A container (``podnet.kernel.container``) ends with its first process, as in Kubernetes: what is left of it is killed
then. Who left its mount namespace, cleared its environment and lost its parent escapes ``stop``; it still ends with
the supervisor.

``podnet.kernel.process`` is the other side: it starts this program and asks it, one JSON line each way.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path

from podnet.errors import KernelError
from podnet.kernel.process import LOCK
from podnet.kernel.supervision import Supervision

__all__ = ["main"]

_CLONE_NEWPID = 0x20000000

_libc = ctypes.CDLL(None, use_errno=True)


def _is_at(opened: int, path: str) -> bool:
    """Whether the open file still is the one at the path."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(there, os.fstat(opened))


def _locked(directory: str) -> int | None:
    """The lock of the run directory, taken for life; ``None`` where another process has it."""
    path = f"{directory}/{LOCK}"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return None
    if not _is_at(lock, path):
        msg = f"{directory} was removed meanwhile"
        raise KernelError(msg)
    return lock


def main(arguments: list[str]) -> int:
    """Make the PID namespace, and in it the supervisor; say "ready", "taken" or what went wrong, and leave it there."""
    if len(arguments) != 1 or not Path(arguments[0]).is_absolute():
        print("usage: python -I -m podnet.kernel.supervisor DIRECTORY", file=sys.stderr)
        return 2
    if _libc.unshare(_CLONE_NEWPID) != 0:
        _say(f"cannot make a PID namespace: {os.strerror(ctypes.get_errno())}")
        return 3
    # This process stays outside; only its next child is in, as number 1. The machine's init takes that one over.
    if os.fork():
        return 0
    os.umask(0o077)
    try:
        os.setsid()
        if os.getpid() != 1:
            # All that this program signals, it finds in its PID namespace. In the machine's, it must not live.
            msg = f"the supervisor is process {os.getpid()} of its PID namespace instead of the first one"
            raise KernelError(msg)
        return _supervise(arguments[0])
    except (OSError, KernelError) as error:
        _say(f"{error}")
        return 4


def _say(what: str) -> None:
    """Tell the starter, if it still is there: one that was killed meanwhile is no reason to end."""
    with suppress(BrokenPipeError):
        os.write(1, f"{what}\n".encode(errors="replace"))


def _supervise(directory: str) -> int:
    lock = _locked(directory)
    if lock is None:
        _say("taken")
        return 0
    supervision = Supervision(directory, lambda: _is_at(lock, f"{directory}/{LOCK}"))
    log = os.open(f"{directory}/supervisor.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    _say("ready")
    # From here on nobody listens to what is printed; the starter's pipe is closed, and it goes on.
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    gc.freeze()
    supervision.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
