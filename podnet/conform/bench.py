"""A place to run one case in: private namespaces of every kind that a plugin could touch, gone when the case ends.

A case runs in a process of its own that is process 1 of a PID namespace, with a network namespace (the runtime's
"host"), and a mount namespace in which ``/run``, ``/var/lib/cni`` and whatever else a plugin keeps state in are
empty. Container namespaces are mounted under that private ``/run/netns``. Nothing has to be removed afterwards:
when process 1 ends, for whatever reason, the kernel frees all of it, processes included. Hiding ``/run`` also hides
the sockets of daemons (firewalld, a plugin's own server) that would act on the machine instead.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import selectors
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from podnet.errors import CapabilityError
from podnet.kernel import netns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["WORK_DIR", "Bench", "run_all"]

WORK_DIR = "/run/conform"  # only inside a bench: the private tmpfs

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWPID = 0x00020000, 0x08000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 1 << 18
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a case gets: ``private`` are directories that appear empty, ``keep`` paths that stay visible below them."""

    private: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


@dataclass(slots=True)
class _Running:
    number: int
    pid: int
    pipe: int
    deadline: float
    data: bytearray


def run_all(
    bench: Bench, jobs: Sequence[Callable[[], Any]], *, parallel: int, timeout: float
) -> Iterator[tuple[int, Any]]:
    """Run each job on a bench of its own, ``parallel`` at a time; yields (index, what it returned) as they end.

    A job that raised, died, or took longer than ``timeout`` seconds yields a ``RuntimeError`` that says so. Must be
    called as root, from the main thread. Raises ``CapabilityError`` where the kernel gives no namespaces.
    """
    if os.geteuid() != 0:
        msg = "judging a plugin makes network namespaces, which needs root; run it with sudo"
        raise CapabilityError(msg)
    waiting = list(enumerate(jobs))[::-1]
    running: dict[int, _Running] = {}
    try:
        with selectors.DefaultSelector() as selector:
            while waiting or running:
                while waiting and len(running) < parallel:
                    number, job = waiting.pop()
                    started = _start(bench, number, job, timeout)
                    running[started.pipe] = started
                    selector.register(started.pipe, selectors.EVENT_READ)
                ready = {key.fd for key, _ in selector.select(timeout=0.5)}
                for each in list(running.values()):
                    late = time.monotonic() > each.deadline
                    if each.pipe not in ready and not late:
                        continue
                    if not late and (chunk := os.read(each.pipe, 1 << 20)):
                        each.data += chunk
                        continue
                    selector.unregister(each.pipe)
                    del running[each.pipe]
                    yield each.number, _finish(each, timeout, late=late)
    finally:
        for each in running.values():
            _end(each)


def _start(bench: Bench, number: int, job: Callable[[], Any], timeout: float) -> _Running:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _outer(bench, job, writer)
    os.close(writer)
    return _Running(number, pid, reader, time.monotonic() + timeout, bytearray())


def _finish(each: _Running, timeout: float, *, late: bool) -> Any:
    status = _end(each)
    if late:
        return RuntimeError(f"the case did not end within {timeout:g} s")
    try:
        return pickle.loads(bytes(each.data))  # noqa: S301 - our own child wrote it
    except (EOFError, pickle.UnpicklingError):
        return RuntimeError(f"the case's process ended without an answer (status {status})")


def _end(each: _Running) -> int:
    """Kill what runs on the bench (process 1 of its PID namespace takes the rest along) and reap it."""
    with suppress(ProcessLookupError):
        os.kill(each.pid, signal.SIGKILL)
    os.close(each.pipe)
    return os.waitstatus_to_exitcode(os.waitpid(each.pid, 0)[1])


def _outer(bench: Bench, job: Callable[[], Any], writer: int) -> NoReturn:
    """The first child: makes the namespaces and waits; when it is killed, process 1 inside is too."""
    try:
        parent = os.getppid()
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWPID), "make private namespaces")
        pid = os.fork()
        if pid == 0:
            _inner(bench, job, writer)
        # Only process 1 may hold the pipe: its end is the end of the case.
        os.close(writer)
        os.waitpid(pid, 0)
    except CapabilityError as error:
        _send(writer, error)
    finally:
        os._exit(0)


def _inner(bench: Bench, job: Callable[[], Any], writer: int) -> NoReturn:
    """Process 1 of the bench: furnishes it, runs the job, sends its answer."""
    answer: Any
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with netns.anonymous():
            _furnish(bench)
            answer = job()
    except Exception as error:  # noqa: BLE001 - whatever it is must reach the report instead of a terminal
        answer = error if isinstance(error, CapabilityError) else RuntimeError(f"{type(error).__name__}: {error}")
    try:
        _send(writer, answer)
    finally:
        os._exit(0)


def _send(writer: int, answer: Any) -> None:
    data = pickle.dumps(answer)
    while data:
        data = data[os.write(writer, data) :]


def _furnish(bench: Bench) -> None:
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    kept = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in bench.keep if os.path.exists(path)}
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    # A fresh /sys shows the devices of this network namespace.
    _mount("sysfs", "/sys", "sysfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    for path in ("/run", *bench.private):
        _empty(path)
    for path in (netns.NETNS_DIR, "/run/lock", WORK_DIR):
        os.makedirs(path, exist_ok=True)
    for path, descriptor in kept.items():
        if os.path.exists(path):
            continue
        os.makedirs(path)
        _mount(f"/proc/self/fd/{descriptor}", path, "", _MS_BIND | _MS_REC)


def _empty(path: str) -> None:
    """Make a directory appear, empty and private; the machine's own is neither written to nor created."""
    path = os.path.realpath(path)
    if not os.path.isdir(path):
        parent = os.path.dirname(path)
        if os.path.isdir(parent) and parent != "/":
            _shadow(parent)
        else:
            return
        os.mkdir(path)
    _mount("podnet-conform", path, "tmpfs", _MS_NOSUID | _MS_NODEV)


def _shadow(path: str) -> None:
    """Cover a directory by a tmpfs that shows the same entries, so that a new one can be made beside them."""
    entries = [entry for entry in os.scandir(path) if not entry.is_symlink()]
    links = {entry.name: os.readlink(entry.path) for entry in os.scandir(path) if entry.is_symlink()}
    under = os.open(path, os.O_PATH | os.O_CLOEXEC)
    _mount("podnet-conform", path, "tmpfs", _MS_NOSUID | _MS_NODEV)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            os.mkdir(entry.path)
        else:
            os.close(os.open(entry.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
        _mount(f"/proc/self/fd/{under}/{entry.name}", entry.path, "", _MS_BIND | _MS_REC)
    for name, target in links.items():
        os.symlink(target, os.path.join(path, name))
    os.close(under)


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None)
    _check(done, f"mount {target}")


def _check(done: int, what: str) -> None:
    if done != 0:
        msg = f"cannot {what}: {os.strerror(ctypes.get_errno())}; judging a plugin needs root and namespaces"
        raise CapabilityError(msg)
