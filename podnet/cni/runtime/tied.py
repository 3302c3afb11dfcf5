"""Start a process that ends with whoever started it, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["spawn"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)


def spawn(executable: str, environ: Mapping[str, str], streams: tuple[int, int, int]) -> int:
    """As ``os.posix_spawn``, in a process group of its own and killed when the calling thread ends; its process ID.

    ``streams`` become standard input, output and error. Raises ``OSError`` as execve(2) does, ``ValueError`` for a NUL.
    """
    variables = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
    if any(b"\0" in each for pair in variables.items() for each in pair):
        msg = "embedded null byte in the environment"
        raise ValueError(msg)
    parent, (failed, failure) = os.getpid(), os.pipe()
    try:
        pid = os.fork()
        if not pid:
            _become(executable, variables, streams, parent, failure)
    finally:
        os.close(failure)
    try:
        number = os.read(failed, 4)
    finally:
        os.close(failed)
    if number:
        os.waitpid(pid, 0)
        code = int.from_bytes(number, "little")
        raise OSError(code, os.strerror(code))
    return pid


def _become(
    executable: str, variables: dict[bytes, bytes], streams: tuple[int, int, int], parent: int, failure: int
) -> NoReturn:
    """The child, which never returns. It has no other thread, so it must wait for no lock that one may have held."""
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)
        os.setpgid(0, 0)
        for target, stream in enumerate(streams):
            os.set_inheritable(os.dup2(stream, target), True)  # also where it is the same
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(executable, [executable], variables)  # noqa: S606
    except OSError as error:
        os.write(failure, (error.errno or 1).to_bytes(4, "little"))
    finally:
        os._exit(127)
