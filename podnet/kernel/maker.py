"""Namespaces made ahead, by a process of its own, while their maker's parent does something else.

Half of the kernel's work on a pod is its namespace, most of it outside of the lock that links need (RTNL): beside
each other, namespaces and links of 1,000 pods take two thirds of the time. It is a process, not a thread: a thread
would wait for Python's lock after each call, up to 5 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from podnet.errors import KernelError
from podnet.kernel import netns

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Maker", "end_with"]

_PR_SET_PDEATHSIG = 1
_MADE, _FAILED = b".", b"!"

_libc = ctypes.CDLL(None, use_errno=True)


class Maker:
    """Makes namespaces in the order given; ``wait`` for the one that is needed next.

    Its process ends with this one, however that ends, and holds the files that this one has open (a lab's lock)
    until then. ``close`` ends it, done or not.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._number = {name: number for number, name in enumerate(names, start=1)}
        self._made = 0
        self._told = b""
        self._pipe, there = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _make(names, there, parent)
        os.close(there)

    def wait(self, name: str) -> None:
        """Until the namespace is there; at once for one that was not asked for.

        Raises ``KernelError`` where it, or one before it, cannot be made.
        """
        number = self._number.get(name, 0)
        while self._made < number:
            told = os.read(self._pipe, 1 << 16)
            if not told:
                raise self._failure()
            self._made += told.count(_MADE) if not self._told else 0
            self._told += told.lstrip(_MADE)

    def wait_for_all(self) -> None:
        """Until all are there."""
        for name in reversed(self._number):
            self.wait(name)
            break

    def failed(self) -> str:
        """The name of the one that was to be made next, of which an error of ``wait`` tells."""
        return next((name for name, number in self._number.items() if number == self._made + 1), "")

    def _failure(self) -> KernelError:
        number, _, text = self._told.removeprefix(_FAILED).decode(errors="replace").partition(" ")
        if not text:
            return KernelError("the process that makes namespaces was killed")
        return KernelError(text, int(number))

    def close(self) -> None:
        """End the process, if it has not ended, and wait for it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._pipe)


def end_with(parent: int) -> None:
    """Let the kernel kill this forked process as soon as its parent has ended."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _make(names: Sequence[str], tell: int, parent: int) -> NoReturn:
    """The forked child; never returns into the parent's code. It stays in the namespace that it made last."""
    try:
        # Ctrl-C is for the parent to handle, which ends this one.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_with(parent)
        for name in names:
            netns.create(name, stay=True)
            os.write(tell, _MADE)
    except KernelError as error:
        os.write(tell, _FAILED + f"{error.errno} {error}".encode())
    except OSError as error:
        os.write(tell, _FAILED + f"{error.errno} {error.strerror}".encode())
    finally:
        os._exit(0)
