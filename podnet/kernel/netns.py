"""Named network namespaces: make, delete, list, and the one place that enters them.

A thread enters a namespace with ``setns`` and leaves it again (0.013 ms); forking a helper for it costs 8 to
49 ms. A socket stays in the namespace where it was opened, so callers open sockets inside and use them outside.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from podnet.errors import KernelError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

__all__ = [
    "NETNS_DIR",
    "anonymous",
    "create",
    "delete",
    "entered",
    "exists",
    "lacking",
    "names",
    "open_socket",
    "path_of",
    "prepare",
    "release",
    "stay",
]

NETNS_DIR = "/run/netns"

_CLONE_NEWNET, _CLONE_FS = 0x40000000, 0x200
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_SHARED = 0x1000, 0x4000, 1 << 18, 1 << 20
_MNT_DETACH = 2
_OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        msg = f"{what}: {os.strerror(number)}"
        raise KernelError(msg, number)


def path_of(name: str) -> str:
    """The file of a namespace: a name is one under ``/run/netns``, a name that begins with ``/`` is the path itself.

    The empty name is the calling thread's own.
    """
    if name.startswith("/"):
        return name
    return f"{NETNS_DIR}/{name}" if name else _OWN


def names() -> set[str]:
    """The names of all namespaces under ``/run/netns``, also those that lost their mount."""
    try:
        return set(os.listdir(NETNS_DIR))
    except FileNotFoundError:
        return set()


def exists(name: str) -> bool:
    """Whether the name (or path) is a live namespace: a file of nsfs, not what a crash left between open and mount."""
    if name.startswith("/"):
        try:
            return os.stat(name).st_dev == os.stat(_OWN).st_dev
        except (OSError, ValueError):  # gone, no folder on the way, a NUL in it
            return False
    # nsfs and the directory's own file system are different devices; a bare file is on the directory's.
    try:
        return os.stat(f"{NETNS_DIR}/{name}").st_dev != os.stat(NETNS_DIR).st_dev
    except FileNotFoundError:
        return False


def lacking() -> str:
    """What ``prepare`` will have to do to ``/run/netns``: ``make``, ``bind`` or ``share`` it, or nothing (``""``)."""
    if not os.path.isdir(NETNS_DIR):
        return "make"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        rows = [line.split(" - ")[0].split() for line in mounts]
    # mount id, parent, device, root, mount point, options, then optional fields such as shared:N (proc(5))
    found = [row for row in rows if row[4] == NETNS_DIR]
    if not found:
        return "bind"
    return "" if any(field.startswith("shared:") for field in found[-1][6:]) else "share"


def prepare() -> None:
    """Make ``/run/netns`` a shared mount point, as ``ip netns add`` does.

    Without it, the first ``ip netns add`` on the machine binds the directory over itself, and every
    namespace made before exists twice from then on.
    """
    target = NETNS_DIR.encode()
    todo = lacking()
    os.makedirs(NETNS_DIR, mode=0o755, exist_ok=True)
    if todo in {"make", "bind"}:
        _check(_libc.mount(target, target, b"none", _MS_BIND | _MS_REC, None), f"cannot bind {NETNS_DIR} to itself")
    if todo:
        _check(_libc.mount(b"", target, b"none", _MS_SHARED | _MS_REC, None), f"cannot share {NETNS_DIR}")


def release(done: str) -> None:
    """Undo what ``prepare`` did (see ``lacking``) where nothing is left there; anybody's namespace keeps it."""
    if names() or not done:
        return
    target = NETNS_DIR.encode()
    if done == "share":
        _check(_libc.mount(b"", target, b"none", _MS_PRIVATE, None), f"cannot make {NETNS_DIR} private")
        return
    _libc.umount2(target, 0)
    if done == "make":
        with suppress(OSError):
            os.rmdir(NETNS_DIR)


def create(name: str, *, stay: bool = False) -> None:
    """Make a namespace and give it its name; the caller stays where it is, or with ``stay`` in the new one.

    Raises ``KernelError`` with EEXIST where the name is taken. A bare file that a crash left is taken over.
    """
    path = path_of(name)
    if exists(name):
        msg = f"namespace {name} exists"
        raise KernelError(msg, 17)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
    home = -1 if stay else os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET), f"cannot make namespace {name}")
        try:
            _check(_libc.mount(_OWN.encode(), path.encode(), b"none", _MS_BIND, None), f"cannot mount namespace {name}")
        finally:
            if not stay:
                _return(home)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise
    finally:
        if not stay:
            os.close(home)


def delete(name: str) -> None:
    """Take a namespace's name away; the kernel frees it when nothing uses it. No error if it is gone."""
    path = path_of(name)
    while _libc.umount2(path.encode(), _MNT_DETACH) == 0:
        pass
    with suppress(FileNotFoundError):
        os.unlink(path)


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Run the block inside a namespace, on this thread; the empty name stays where it is.

    Raises ``KernelError`` (ENOENT) where there is no such namespace. Never awaits, never hands to another thread.
    """
    if not name:
        yield
        return
    try:
        there = os.open(path_of(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        msg = f"no namespace {name}" if name.startswith("/") else f"no namespace {name} under {NETNS_DIR}"
        raise KernelError(msg, 2) from None
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(there, _CLONE_NEWNET), f"cannot enter namespace {name}")
        try:
            yield
        finally:
            _return(home)
    finally:
        os.close(there)
        os.close(home)


@contextmanager
def anonymous() -> Iterator[None]:
    """Run the block inside a new namespace without a name, on this thread; it ends with the block."""
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET), "cannot make a namespace")
        try:
            yield
        finally:
            _return(home)
    finally:
        os.close(home)


def stay(namespace: int, root: int) -> None:
    """Let this thread live in a network namespace and below a root folder, given as open files, for good.

    A folder of another mount namespace brings that namespace's mounts along. Only this thread: threads share root and
    working folder until one of them asks for its own. Raises ``KernelError`` also where no proc is mounted below the
    root that knows this process; the thread is good for nothing else then.
    """
    _check(_libc.unshare(_CLONE_FS), "cannot give a thread a root folder of its own")
    try:
        os.fchdir(root)
        os.chroot(".")
        _check(_libc.setns(namespace, _CLONE_NEWNET), "cannot enter the caller's network namespace")
        known = os.stat(_OWN).st_ino == os.fstat(namespace).st_ino
    except OSError as error:
        msg = f"cannot live below the caller's root folder: {error}"
        raise KernelError(msg, error.errno or 0) from error
    if not known:
        msg = f"cannot live below the caller's root folder: its {_OWN} is another's"
        raise KernelError(msg, 2)


def _return(home: int) -> None:
    """Go back; a thread that cannot must not live on in the wrong namespace."""
    if _libc.setns(home, _CLONE_NEWNET) != 0:
        os.write(2, b"podnet: cannot return to the own network namespace, ending\n")
        os._exit(4)


def open_socket(name: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that lives in a namespace, whoever uses it later."""
    import socket

    with entered(name):
        return socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
