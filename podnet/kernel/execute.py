"""Running a command inside a network namespace: in the foreground, or as what a supervised container becomes.

``/sys`` shows the devices of the network namespace that mounted it, not of the process that reads it. So a
command gets a mount namespace of its own with a fresh ``/sys``, as ``ip netns exec`` gives it (iproute2,
lib/namespace.c). In it, the lab's hosts file lies over ``/etc/hosts``: a lookup that finds no name there asks the
machine's resolver, which a pod cannot reach, and waits for seconds.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from podnet.errors import KernelError
from podnet.kernel import netns as namespaces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import FrameType

__all__ = [
    "ETC_HOSTS",
    "NOT_EXECUTABLE",
    "NOT_FOUND",
    "default_signals",
    "isolate",
    "keep_apart",
    "replace_by",
    "run_in",
]

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells answer (POSIX.1-2017, 2.8.2)

ETC_DIR = "/etc/netns"
ETC_HOSTS = "/etc/hosts"

_TERMINAL = {signal.SIGINT, signal.SIGQUIT}
_PASSED_ON = {signal.SIGTERM, signal.SIGHUP}

_CLONE_NEWNS, _CLONE_NEWUTS = 0x00020000, 0x04000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 1 << 19
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def run_in(netns: str, argv: Sequence[str], env: Mapping[str, str] | None = None, hosts: str | None = None) -> int:
    """Run a command in a namespace, in the foreground, on this process's own stdin, stdout, stderr and terminal.

    ``env`` is the command's whole environment; without it, it is this process's own. ``hosts`` is the path of what
    the command finds at ``/etc/hosts``; where that file is missing, it is the machine's. Returns the exit code:
    128 + N where signal N ended the command, 127 where it was not found, 126 where it cannot be executed.
    The caller stays in its own namespaces. While the command runs, Ctrl-C and Ctrl-\\ are the command's alone
    (it is in the caller's process group), SIGTERM and SIGHUP are passed on to it; this needs the main thread.
    Raises ``KernelError`` where there is no such namespace.
    """
    if netns and not namespaces.exists(netns):
        msg = f"cannot run {argv[0]!r}: no namespace {netns} under {namespaces.NETNS_DIR}"
        raise KernelError(msg, errno.ENOENT)
    sys.stdout.flush()
    sys.stderr.flush()
    # What was ignored stays ignored on both sides, so that nohup means what it says.
    held = {number for number in _TERMINAL | _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        child = os.fork()
        if child == 0:
            reset = {signal.SIGPIPE, signal.SIGXFSZ} | held
            _command(netns, argv, os.environ if env is None else env, reset, hosts or "")
        pidfd = os.pidfd_open(child)
        with _handled(pidfd, held):
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _, status = os.waitpid(child, 0)
        os.close(pidfd)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _command(
    netns: str, argv: Sequence[str], env: Mapping[str, str], reset: set[signal.Signals], hosts: str
) -> NoReturn:
    """The forked child: it becomes the command or says why not, and never returns into the caller's code."""
    code = NOT_EXECUTABLE
    try:
        default_signals(reset)
        with namespaces.entered(netns):
            for complaint in isolate(netns, hosts=hosts) if netns else _name_only(hosts):
                _complain(complaint)
            replace_by(argv, env)
    except FileNotFoundError as error:
        code = NOT_FOUND
        _complain(f"cannot execute {argv[0]!r}: {error.strerror}")
    except OSError as error:
        _complain(f"cannot execute {argv[0]!r}: {error.strerror}")
    except (KernelError, ValueError) as error:
        _complain(f"cannot run {argv[0]!r}: {error}")
    finally:
        os._exit(code)


def _complain(text: str) -> None:
    os.write(2, f"podnet: {text}\n".encode(errors="surrogateescape"))


@contextmanager
def _handled(pidfd: int, held: set[signal.Signals]) -> Iterator[None]:
    """Keep this process alive until its command ended, and pass on what only this process was sent."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, signal.SIG_IGN if n in _TERMINAL else pass_on) for n in held}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def default_signals(numbers: Iterable[signal.Signals] | None = None) -> None:
    """Give signals (all, or these) their default effect and unblock all: Python ignores SIGPIPE, a command must not."""
    for number in signal.valid_signals() if numbers is None else numbers:
        if number not in {signal.SIGKILL, signal.SIGSTOP} and signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def isolate(netns: str, *, hostname: str = "", processes: bool = False, hosts: str = "") -> list[str]:
    """Give this process a mount namespace in which ``/sys`` shows the network namespace that it is in; for good.

    The file ``hosts`` is bound over ``/etc/hosts``, read-only, where it exists; then files below
    ``/etc/netns/NETNS`` over those of the same name in ``/etc`` that exist. ``hostname`` also gives a UTS
    namespace with that name; ``processes`` mounts a ``/proc`` of the caller's PID namespace.
    Returns what could not be had, one line each. Raises ``KernelError`` where the kernel gives no namespace.
    """
    _leave_mounts(_CLONE_NEWUTS if hostname else 0)
    if hostname:
        socket.sethostname(hostname)
    complaints = []
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    # Over the old one, not instead of it: where the kernel refuses, there still is a /sys. A read-only one
    # cannot be covered by a writable one.
    if error := _mount(netns, "/sys", "sysfs", flags | (os.statvfs("/sys").f_flag & os.ST_RDONLY and _MS_RDONLY)):
        complaints.append(f"/sys shows another namespace's devices: {error}")
    complaints += _bind_hosts(hosts)
    for name, error in _bind_etc(netns):
        complaints.append(f"cannot bind {ETC_DIR}/{netns}/{name} over /etc/{name}: {error}")
    if processes:
        # Every later `ip netns add` would be copied into the mount namespace of every container, and every
        # container would hold a mount of every namespace: it needs none of them.
        _libc.umount2(namespaces.NETNS_DIR.encode(), _MNT_DETACH)
        if error := _mount("proc", "/proc", "proc", flags):
            complaints.append(f"/proc shows the machine's processes: {error}")
    return complaints


def keep_apart(folders: Mapping[str, str]) -> None:
    """Give this process a mount namespace in which each of these folders is another one, its value; for good.

    Its ``/sys`` shows the network namespace that it is in. A folder that is not there is made, and stays. Raises
    ``KernelError`` where the kernel refuses.
    """
    _leave_mounts()
    _mount("sysfs", "/sys", "sysfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    for shown, kept in folders.items():
        os.makedirs(kept, mode=0o700, exist_ok=True)
        os.makedirs(shown, mode=0o755, exist_ok=True)
        if error := _mount(kept, shown, "", _MS_BIND):
            msg = f"cannot bind {kept} over {shown}: {error}"
            raise KernelError(msg)


def _name_only(hosts: str) -> list[str]:
    """As ``isolate``, in the machine's own network namespace: its ``/sys`` is right, with all that is mounted in it."""
    if not os.path.exists(hosts):
        return []
    _leave_mounts()
    return _bind_hosts(hosts)


def _leave_mounts(more: int = 0) -> None:
    """Give this process a mount namespace, and ``more`` namespaces, of its own."""
    if _libc.unshare(_CLONE_NEWNS | more) != 0:
        number = ctypes.get_errno()
        msg = f"cannot make a mount namespace: {os.strerror(number)}"
        raise KernelError(msg, number)
    # Slave, not private: what the machine unmounts goes here too, or a dead namespace's mount would live on here.
    _mount("", "/", "", _MS_REC | _MS_SLAVE)


def _bind_hosts(hosts: str) -> list[str]:
    """Bind a file over ``/etc/hosts``; returns the complaint where that is refused. No file, nothing to do.

    Read-only, because it is the file that names the lab to all of its containers, not one container's own.
    """
    if not os.path.exists(hosts):
        return []
    flags = _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    # The first call makes the mount and ignores the other flags (mount(2)).
    error = _mount(hosts, ETC_HOSTS, "", _MS_BIND) or _mount("", ETC_HOSTS, "", _MS_REMOUNT | flags)
    return [f"cannot bind {hosts} over {ETC_HOSTS} (read-only): {error}"] if error else []


def _bind_etc(netns: str) -> list[tuple[str, str]]:
    """Bind the namespace's own files over those in /etc; returns (name, error) of those that were refused."""
    try:
        names = sorted(os.listdir(f"{ETC_DIR}/{netns}")) if netns else []
    except (FileNotFoundError, NotADirectoryError):
        return []
    pairs = ((n, _mount(f"{ETC_DIR}/{netns}/{n}", f"/etc/{n}", "", _MS_BIND)) for n in names)
    return [(name, error) for name, error in pairs if error]


def _mount(source: str, target: str, kind: str, flags: int) -> str:
    """Mount; returns the kernel's complaint, empty where there is none."""
    done = _libc.mount(os.fsencode(source) or b"none", os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), None)
    return "" if done == 0 else os.strerror(ctypes.get_errno())


def replace_by(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Execute a command in place of this process, looked up in the PATH of ``env``; raises ``OSError``."""
    os.execvpe(argv[0], list(argv), dict(env))  # noqa: S606 - no shell is the point
