"""The one process that holds all containers of a lab: ``python -I -m podnet.kernel.supervisor DIRECTORY``.

It is PID 1 of a PID namespace of its own. So when it ends, for whatever reason, the kernel kills every process of
every container with it, daemons too (pid_namespaces(7)); and whatever loses its parent becomes its child, so that
it can wait for it. It stays in the machine's mount namespace, so its ``/proc`` is the machine's and knows it by the
machine's number; the processes of its own namespace it sees in a ``/proc`` that is mounted nowhere.

A container is one process made by ``_become`` and all that come from it. Each has a mount namespace of its own,
and that marks its processes: it is inherited, and neither a daemon's two forks and new session nor a cleared
environment changes it. A process that left that mount namespace is found by its environment or its parent.
A container ends with its first process, as in Kubernetes: what is left of it is killed then. Its ``/proc`` is one
of the lab's PID namespace: the numbers in it are those that its own calls use, and it shows the processes of all
containers of the lab, and nobody else's. Who left the mount namespace, cleared its environment and lost its parent
escapes ``stop``; it still ends with the supervisor.

``podnet.kernel.process`` is the other side: it starts this program and asks it, one JSON line each way.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from podnet.errors import KernelError
from podnet.kernel import netns as namespaces
from podnet.kernel.execute import default_signals, isolate, replace_by
from podnet.kernel.process import LOCK, LOG_HALF, SOCKET, log_file, previous_log

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

__all__ = ["Container", "Log", "Supervision", "main", "owners", "split_at_line"]

MARK = "PODNET_CONTAINER"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_IDLE_LIMIT = 10.0  # seconds without a container after which there is nothing to live for
_LOOK = 1.0  # seconds between two looks at whether the run directory still is there
_START_LIMIT = 10.0  # seconds that a container has from fork to exec
_KILL_LIMIT = 10.0  # seconds that the kernel has to end a killed process
_ABREAST = 8  # containers between fork and exec at a time
_CHUNK = 1 << 16  # bytes; what a pipe holds

_CLONE_NEWPID = 0x20000000
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # one number on all architectures but alpha (Linux 5.2)
_FSCONFIG_CMD_CREATE = 6

_libc = ctypes.CDLL(None, use_errno=True)

if TYPE_CHECKING:
    # Something that takes time: it yields until when it can wait at most, and is resumed at any event.
    Steps = Generator[float, None, dict[str, Any]]


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


class Log:
    """A container's log: two files of at most ``LOG_HALF`` bytes each, turned at the end of a line."""

    def __init__(self, path: Path, half: int = LOG_HALF) -> None:
        self._path, self._half = path, half
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open(path)

    def _open(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self._size = os.fstat(self._file).st_size

    def write(self, data: bytes) -> None:
        """Append; raises ``OSError`` where the disk is full."""
        while data:
            now, data = split_at_line(data, self._half - self._size, fresh=self._size == 0)
            while now:
                written = os.write(self._file, now)
                self._size += written
                now = now[written:]
            if data:
                self._turn()

    def _turn(self) -> None:
        """Make the newest half the older one. At each moment there is a file at the path."""
        new = self._path.with_name(self._path.name + ".new")
        with suppress(FileNotFoundError):
            new.unlink()
        os.close(self._file)
        self._open(new)
        with suppress(FileNotFoundError):
            previous_log(self._path).unlink()
        previous_log(self._path).hardlink_to(self._path)
        new.rename(self._path)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def split_at_line(data: bytes, room: int, *, fresh: bool) -> tuple[bytes, bytes]:
    """What of ``data`` still goes into a file with ``room`` bytes left, and the rest.

    The cut is after a line where there is one; a line that does not even fit a ``fresh`` file is cut anywhere.
    """
    if len(data) <= room:
        return data, b""
    cut = data.rfind(b"\n", 0, max(room, 0)) + 1
    if cut == 0 and fresh:
        cut = room
    return data[:cut], data[cut:]


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
        except FileNotFoundError:
            return 0

    def _mark_of(self, pid: str) -> str:
        prefix = f"{MARK}=".encode()
        entries = self._read(f"{pid}/environ").split(b"\0")
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


class Supervision:
    """The event loop and the containers. All that waits is a generator, so nothing ever blocks the logs."""

    def __init__(self, directory: str, lock: int) -> None:
        self._directory, self._lock = directory, lock
        self._containers: dict[str, Container] = {}
        self._processes = Processes()
        self._epoll = select.epoll()
        self._on: dict[int, Callable[[], None]] = {}
        self._steps: list[tuple[Steps, socket.socket | None]] = []  # the first one is at work, the others queue
        self._due = 0.0
        self._ended: set[str] = set()  # containers whose first process ended, maybe leaving others
        self._known: list[tuple[int, str, str]] = []  # whose each process was when last looked at
        self._ending = False
        self._idle_since = time.monotonic()
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Three descriptors a container: its log, its pipe, and one while it starts.
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._files[1], self._files[1]))
        self._listener = self._listen()

    # -- events

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        path = f"{self._directory}/{SOCKET}"
        # Only the lock's holder comes here, so a socket that is there is a dead one's.
        with suppress(FileNotFoundError):
            os.unlink(path)
        umask = os.umask(0o177)
        listener.bind(path)
        os.umask(umask)
        listener.listen(64)
        self._watch(listener.fileno(), self._accept)
        return listener

    def _watch(self, descriptor: int, action: Callable[[], None], events: int = select.EPOLLIN) -> None:
        self._epoll.register(descriptor, events)
        self._on[descriptor] = action

    def _unwatch(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        del self._on[descriptor]

    def run(self) -> None:
        """Live until there is nothing to live for; on return all processes but this one have been told to end."""
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._watch(wake, lambda: self._signalled(os.read(wake, 4096)))
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # the number comes through the pipe
        while not self._ending or self._steps:
            now = time.monotonic()
            wait = min(self._due - now, _LOOK) if self._steps else _LOOK
            for descriptor, _ in self._epoll.poll(max(wait, 0.0)):
                # An earlier event of this round may have closed it.
                if action := self._on.get(descriptor):
                    action()
            self._reap()
            self._advance()
            self._look_around()

    def _signalled(self, numbers: bytes) -> None:
        if set(numbers) - {signal.SIGCHLD}:
            self._queue(self._shutdown(2.0), None)

    def _look_around(self) -> None:
        if self._ending or self._steps:
            return
        if not _is_at(self._lock, f"{self._directory}/{LOCK}"):
            self._queue(self._shutdown(2.0), None)
        elif self._containers:
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since > _IDLE_LIMIT:
            self._queue(self._shutdown(0.0), None)

    def _reap(self) -> None:
        """Wait for whoever ended: containers, and what lost its parent."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for container in self._containers.values():
                if container.pid == pid:
                    container.pid, container.status = 0, status
                    if container.state == "running":
                        container.state = "exited"
                    self._ended.add(container.name)

    # -- requests

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in {0, os.getuid()}:
            connection.close()
            return
        if self._ending:
            self._answer(connection, {"ending": True})
            return
        connection.setblocking(False)
        asked = bytearray()

        def read() -> None:
            try:
                chunk = connection.recv(_CHUNK)
            except BlockingIOError:
                return
            except ConnectionResetError:
                chunk = b""
            asked.extend(chunk)
            if not chunk or asked.endswith(b"\n"):
                self._unwatch(connection.fileno())
                self._take(bytes(asked), connection)

        self._watch(connection.fileno(), read)

    def _take(self, asked: bytes, connection: socket.socket) -> None:
        """Whatever anybody sends, it must not end this process."""
        try:
            self._request(json.loads(asked), connection)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._answer(connection, {"error": f"the supervisor was asked something that it cannot read: {error!r}"})

    def _request(self, request: dict[str, Any], connection: socket.socket) -> None:
        match request.get("do"):
            case "status":
                self._answer(connection, {"containers": [c.report() for c in self._containers.values()]})
            case _ if self._ending:
                self._answer(connection, {"ending": True})
            case "start":
                wanted = [Container(p["netns"], p["name"], p["argv"], p["env"]) for p in request["processes"]]
                self._queue(self._start(wanted), connection)
            case "stop":
                self._queue(self._stop(request["names"], request["grace"]), connection)
            case "shutdown":
                self._ending = True  # a start that is at work sees it, and makes way
                self._queue(self._shutdown(request["grace"]), connection)
            case other:
                self._answer(connection, {"error": f"the supervisor was asked for {other!r}, which it does not know"})

    def _answer(self, connection: socket.socket, reply: dict[str, Any]) -> None:
        """Answer and close. An asker that went away meanwhile is no error; one that does not read is cut off."""
        connection.settimeout(5.0)
        with connection, suppress(ConnectionError, TimeoutError):
            connection.sendall(json.dumps(reply).encode() + b"\n")

    def _queue(self, steps: Steps, connection: socket.socket | None) -> None:
        self._steps.append((steps, connection))
        self._due = 0.0

    def _advance(self) -> None:
        """Go on with what is at work, then with what waits behind it; one after the other, so none meets another."""
        if not self._steps:
            self._kill_left_over()
        while self._steps:
            steps, connection = self._steps[0]
            try:
                self._due = next(steps)
            except StopIteration as end:
                reply = end.value
            except (KernelError, OSError, ValueError) as error:
                reply = {"error": f"supervisor: {error}"}
            else:
                return
            del self._steps[0]
            if connection:
                self._answer(connection, reply)

    # -- containers

    def _start(self, wanted: list[Container]) -> Steps:
        """Start what does not run, a few abreast, and wait until each became its command or failed."""
        refused = []
        new: dict[str, Container] = {}
        for one in wanted:
            was = self._containers.get(one.name)
            if was is None or was.state != "running":
                was = new.setdefault(one.name, one)
            if not was.same_command(one):
                which = f"runs already (pid {was.machine_pid})" if was.state == "running" else "is to run"
                refused.append(f"{one.name}: {which} with another command; stop it first")
        fresh = list(new.values())
        yield from self._until_gone(set(new))
        for at in range(0, len(fresh), _ABREAST):
            if self._ending:
                return {"error": "the lab was shut down while its containers were being started"}
            batch = fresh[at : at + _ABREAST]
            for one in batch:
                self._containers[one.name] = one
                try:
                    self._fork(one)
                except (OSError, KernelError) as error:
                    one.state, one.message = "failed", f"{one.name}: cannot be started: {error}"
            deadline = time.monotonic() + _START_LIMIT
            while any(one.state == "starting" for one in batch) and time.monotonic() < deadline:
                yield deadline
            for one in batch:
                if one.state == "starting":
                    one.state, one.message = "failed", f"{one.name}: did not start in {_START_LIMIT:.0f} s"
                    self._ended.add(one.name)
        return {"containers": [self._containers[one.name].report() for one in wanted], "refused": refused}

    def _fork(self, one: Container) -> None:
        log = Log(log_file(self._directory, one.name))
        out, into = os.pipe2(os.O_CLOEXEC)
        told, tell = os.pipe2(os.O_CLOEXEC)
        one.started = time.time()
        one.pid = os.fork()
        if one.pid == 0:
            _become(one, into, tell, self._files)
        os.close(into)
        os.close(tell)
        self._watch(out, lambda: self._logged(one, out, log))
        self._watch(told, lambda: self._told(one, told))

    def _logged(self, one: Container, out: int, log: Log) -> None:
        data = os.read(out, _CHUNK)
        if data:
            try:
                log.write(data)
            except OSError as error:
                print(f"{one.name}: {len(data)} bytes of its log are lost: {error}", flush=True)
            return
        self._unwatch(out)
        os.close(out)
        log.close()

    def _told(self, one: Container, told: int) -> None:
        """The child tells its numbers first, then errors; the pipe closes when it becomes its command."""
        data = os.read(told, _CHUNK)
        one.said += data
        if data:
            return
        self._unwatch(told)
        os.close(told)
        numbers, *notes = one.said.decode(errors="replace").split("\n")
        if numbers:
            one.machine_pid, one.mounts = map(int, numbers.split())
        failures = [note[1:] for note in notes if note.startswith("!")]
        one.message = "; ".join(failures or [note for note in notes if note])
        if failures or one.mounts == 0:
            one.state, one.machine_pid = "failed", 0
            one.message = one.message or f"{one.name}: ended before it became its command"
        elif one.state == "starting":
            one.state = "running" if one.pid else "exited"

    def _members(self, names: set[str]) -> dict[int, Seen]:
        seen = self._processes.seen()
        found = owners(seen, self._containers.values(), self._known)
        self._known = [(pid, seen[pid].began, name) for pid, name in found.items()]
        return {pid: seen[pid] for pid, name in found.items() if name in names}

    def _signal(self, names: set[str], number: int) -> bool:
        """Signal every process of these containers; says whether there was one."""
        members = self._members(names)
        for pid, seen in members.items():
            self._processes.signal(pid, seen, number)
        return bool(members)

    def _kill_left_over(self) -> None:
        """A container ended with its first process: end what is left of it."""
        if self._ended and not self._signal(self._ended, signal.SIGKILL):
            self._ended.clear()

    def _until_gone(self, names: set[str]) -> Generator[float, None, None]:
        deadline = time.monotonic() + _KILL_LIMIT
        while names and self._signal(names, signal.SIGKILL):
            if time.monotonic() > deadline:
                left = ", ".join(map(str, self._members(names)))
                msg = f"processes {left} of {', '.join(sorted(names))} do not end, not even by SIGKILL"
                raise KernelError(msg)
            yield time.monotonic() + 0.01
        self._ended -= names

    def _stop(self, names: list[str], grace: float) -> Steps:
        doomed = {name for name in names if name in self._containers}
        deadline = time.monotonic() + grace
        alive = self._signal(doomed, signal.SIGTERM) if doomed else False
        while alive and time.monotonic() < deadline:
            yield min(deadline, time.monotonic() + 0.02)
            alive = bool(self._members(doomed))
        yield from self._until_gone(doomed)
        for name in doomed:
            del self._containers[name]
        return {"stopped": sorted(doomed)}

    def _shutdown(self, grace: float) -> Steps:
        self._ending = True
        deadline = time.monotonic() + grace
        # One by one, each seen in the lab's own /proc. Never kill(-1): were this not PID 1 of a namespace of its
        # own, that would be every process of the machine.
        for pid, seen in self._processes.seen().items():
            self._processes.signal(pid, seen, signal.SIGTERM)
        while self._processes.seen() and time.monotonic() < deadline:
            yield min(deadline, time.monotonic() + 0.02)
        with suppress(FileNotFoundError):
            os.unlink(f"{self._directory}/{SOCKET}")
        for _, connection in self._steps[1:]:
            if connection:
                self._answer(connection, {"ending": True})
        del self._steps[1:]
        return {"ending": True}


def _become(one: Container, out: int, tell: int, files: tuple[int, int]) -> NoReturn:
    """The forked child: it enters the pod, becomes the command, or tells why not; never returns into the loop."""
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
            notes = isolate(one.netns, hostname=pod[:63], processes=True)
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
        print(f"cannot make a PID namespace: {os.strerror(ctypes.get_errno())}")
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
        print(f"{error}", flush=True)
        return 4


def _supervise(directory: str) -> int:
    lock = _locked(directory)
    if lock is None:
        os.write(1, b"taken\n")
        return 0
    supervision = Supervision(directory, lock)
    log = os.open(f"{directory}/supervisor.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    os.write(1, b"ready\n")
    # From here on nobody listens to what is printed; the starter's pipe is closed, and it goes on.
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    gc.freeze()
    supervision.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
