"""A container: one process made by ``become``, and all that come from it.

Each has a mount namespace of its own, and that marks its processes: it is inherited, and neither a daemon's two
forks and new session nor a cleared environment changes it. A process that left that mount namespace is found by its
environment or its parent. Its ``/proc`` is one of the lab's PID namespace: the numbers in it are those that its own
calls use, and it shows the processes of all containers of the lab, and nobody else's.

This is the supervisor's side, in its PID namespace; what others see of a container is a ``ProcessStatus``.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from podnet.errors import KernelError
from podnet.kernel import netns as namespaces
from podnet.kernel.execute import default_signals, isolate, replace_by

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Container", "Processes", "Seen", "become", "owners"]

MARK = "PODNET_CONTAINER"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # one number on all architectures but alpha (Linux 5.2)
_FSCONFIG_CMD_CREATE = 6

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Container:
    """One container and what became of it. ``pid`` is its number in here, ``machine_pid`` outside."""

    netns: str
    name: str
    argv: list[str]
    env: list[list[str]]
    pid: int = 0
    machine_pid: int = 0
    mounts: int = 0  # the inode of its mount namespace
    started: float = 0.0
    state: str = "starting"
    status: int | None = None  # as waitpid gave it
    message: str = ""
    said: bytes = field(default=b"", repr=False)  # what its process told before it became the command

    def same_command(self, other: Container) -> bool:
        """Whether both would run the same."""
        return (self.netns, self.argv, self.env) == (other.netns, other.argv, other.env)

    def told(self) -> None:
        """Settle what became of it: its process said its numbers first, then errors, and now no more."""
        numbers, *notes = self.said.decode(errors="replace").split("\n")
        if numbers:
            self.machine_pid, self.mounts = map(int, numbers.split())
        failures = [note[1:] for note in notes if note.startswith("!")]
        self.message = "; ".join(failures or [note for note in notes if note])
        if failures or self.mounts == 0:
            self.state, self.machine_pid = "failed", 0
            self.message = self.message or f"{self.name}: ended before it became its command"
        elif self.state == "starting":
            self.state = "running" if self.pid else "exited"

    def report(self) -> dict[str, Any]:
        """What ``podnet.kernel.process`` makes a ``ProcessStatus`` of."""
        ended = self.state == "exited" and self.status is not None
        code = os.waitstatus_to_exitcode(self.status or 0)
        return {
            "netns": self.netns,
            "name": self.name,
            "argv": self.argv,
            "env": self.env,
            "pid": self.machine_pid,
            "state": self.state,
            "exit_code": code if ended and code >= 0 else None,
            "signal": -code if ended and code < 0 else None,
            "started": self.started,
            "message": self.message,
        }


def become(one: Container, out: int, tell: int, files: tuple[int, int], hosts: str) -> NoReturn:
    """The forked child: it enters the pod, becomes the command, or tells why not; never returns into the loop.

    ``out`` takes what the command writes, ``tell`` what ``Container.told`` reads; ``files`` is the limit of open
    files, ``hosts`` the file that names the lab.
    """
    try:
        signal.set_wakeup_fd(-1)
        default_signals()
        os.setsid()
        os.umask(0o022)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        machine_pid = os.readlink("/proc/self")
        pod = one.name.partition("/")[0]
        env = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "HOSTNAME": pod, MARK: one.name} | dict(one.env)
        with namespaces.entered(one.netns):
            notes = isolate(one.netns, hostname=pod[:63], processes=True, hosts=hosts)
            mounts = os.stat("/proc/self/ns/mnt").st_ino
            said = "\n".join([f"{machine_pid} {mounts}", *(f"{one.name}: {note}" for note in notes)])
            os.write(tell, said.encode(errors="replace"))
            replace_by(one.argv, env)
    except OSError as error:
        _tell(tell, f"{one.name}: cannot execute {one.argv[0]!r}: {error.strerror}")
    except (KernelError, ValueError, IndexError) as error:
        _tell(tell, f"{one.name}: {error}")
    finally:
        os._exit(127)


def _tell(tell: int, failure: str) -> None:
    os.write(tell, f"\n!{failure}".encode(errors="replace"))


def owners(
    seen: dict[int, Seen], containers: Iterable[Container], known: Iterable[tuple[int, str, str]] = ()
) -> dict[int, str]:
    """Which container each process is of; who is of none is left out.

    By its mount namespace; else it is the container's first process, or says so in its environment, or its
    parent is one of that container, or it was ``known`` before, as (pid, start time, container): who is about
    to end has lost its other marks.
    """
    by_mounts = {c.mounts: c.name for c in containers if c.mounts}
    found = {c.pid: c.name for c in containers if c.pid}
    found.update({pid: name for pid, began, name in known if pid in seen and seen[pid].began == began})
    names = set(by_mounts.values()) | set(found.values())
    for pid, process in seen.items():
        if (name := by_mounts.get(process.mounts, process.mark)) in names:
            found[pid] = name
    # Parents may come later in the listing than their children (numbers wrap), so until nothing is new.
    grew = True
    while grew:
        adopted = {pid: found[p.parent] for pid, p in seen.items() if pid not in found and p.parent in found}
        found.update(adopted)
        grew = bool(adopted)
    return {pid: name for pid, name in found.items() if pid in seen}


@dataclass(frozen=True, slots=True)
class Seen:
    """A live process of the lab: its parent, its start time in clock ticks, its mount namespace, its mark."""

    parent: int
    began: str
    mounts: int
    mark: str


class Processes:
    """The processes of this PID namespace, read from a ``/proc`` of it that is mounted nowhere."""

    def __init__(self) -> None:
        if os.getpid() != 1:
            msg = "only the first process of a PID namespace may answer for all of it"
            raise KernelError(msg)
        self._proc = _proc_of_own()
        self._mounts = os.stat("/proc/self/ns/mnt").st_ino

    def seen(self) -> dict[int, Seen]:
        """All that live, but for this one; who ended in between or is a zombie is left out.

        Who is about to end counts, and has mount namespace 0: its sockets are closed last of all (do_exit calls
        exit_task_work after exit_nsproxy_namespaces), so its port is not free yet.
        """
        found = {}
        for entry in os.listdir(self._proc):
            if entry.isdigit() and entry != "1" and (one := self._look(entry)):
                found[int(entry)] = one
        return found

    def _look(self, pid: str) -> Seen | None:
        try:
            # The name, in parentheses, may hold anything. After it: 0 state, 1 parent, 17 threads, 19 start time.
            after = self._read(f"{pid}/stat").rpartition(b")")[2].split()
            # Of a zombie, other threads may still run.
            if after[0] in {b"Z", b"X"} and int(after[17]) <= 1:
                return None
            mounts = self._mounts_of(pid)
            mark = self._mark_of(pid) if mounts not in {0, self._mounts} else ""
            return Seen(int(after[1]), after[19].decode(), mounts, mark)
        except (FileNotFoundError, ProcessLookupError):
            return None

    def _mounts_of(self, pid: str) -> int:
        try:
            return os.stat(f"{pid}/ns/mnt", dir_fd=self._proc).st_ino
        except (FileNotFoundError, PermissionError):  # EACCES: it was waited for between two steps of this path
            return 0

    def _mark_of(self, pid: str) -> str:
        prefix = f"{MARK}=".encode()
        try:
            entries = self._read(f"{pid}/environ").split(b"\0")
        except ProcessLookupError:
            # It has lost its memory (exit_mm), and not its mount namespace yet: it is about to end, but still there.
            # Linux answers so since 6.16; before, its environment was empty.
            return ""
        return next((one[len(prefix) :].decode(errors="replace") for one in entries if one.startswith(prefix)), "")

    def _read(self, path: str) -> bytes:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc), "rb") as file:
            return file.read()

    def signal(self, pid: int, seen: Seen, number: int) -> None:
        """Send a signal to the very process that was seen, not to a later one of the same number."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            now = self._look(str(pid))
            if now is not None and now.began == seen.began:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def _proc_of_own() -> int:
    """A directory descriptor of a new ``/proc`` of this PID namespace."""

    def call(number: int, *arguments: int | bytes | None) -> int:
        widened = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
        result: int = _libc.syscall(ctypes.c_long(number), *widened)
        if result < 0:
            error = ctypes.get_errno()
            msg = f"cannot make a /proc of the lab: {os.strerror(error)}"
            raise KernelError(msg, error)
        return result

    context = call(_FSOPEN, b"proc", 1)
    call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
    mount = call(_FSMOUNT, context, 1, 0)
    # fsmount gives a descriptor that only names the place (O_PATH); to list it, it must be opened.
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    os.close(mount)
    os.close(context)
    return root
