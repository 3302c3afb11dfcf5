"""What a supervisor does all its life: it starts, watches and ends containers, keeps their logs, and answers.

One event loop, one thread. ``podnet.kernel.supervisor`` is the program around it, ``podnet.kernel.process`` the asker.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podnet.errors import KernelError
from podnet.kernel.container import Container, Processes, become, owners
from podnet.kernel.execute import ETC_HOSTS
from podnet.kernel.log import Log, log_file
from podnet.kernel.process import HOSTS, SOCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from podnet.kernel.container import Seen

    # Something that takes time: it yields until when it can wait at most, and is resumed at any event.
    Steps = Generator[float, None, dict[str, Any]]

__all__ = ["Supervision"]

_IDLE_LIMIT = 10.0  # seconds without a container after which there is nothing to live for
_LOOK = 1.0  # seconds between two looks at whether the run directory still is there
_START_LIMIT = 10.0  # seconds that a container has from fork to exec
_KILL_LIMIT = 10.0  # seconds that the kernel has to end a killed process
_ABREAST = 8  # containers between fork and exec at a time
_CHUNK = 1 << 16  # bytes; what a pipe holds


class Supervision:
    """The event loop and the containers. All that waits is a generator, so nothing ever blocks the logs.

    ``is_ours`` says, about once a second, whether the run directory still is this supervisor's; if not, all ends.
    """

    def __init__(self, directory: str, is_ours: Callable[[], bool]) -> None:
        self._directory, self._is_ours = directory, is_ours
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
        if not self._is_ours():
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
        hosts = self._hosts()
        out, into = os.pipe2(os.O_CLOEXEC)
        told, tell = os.pipe2(os.O_CLOEXEC)
        one.started = time.time()
        one.pid = os.fork()
        if one.pid == 0:
            become(one, into, tell, self._files, hosts)
        os.close(into)
        os.close(tell)
        self._watch(out, lambda: self._logged(one, out, log))
        self._watch(told, lambda: self._told(one, told))

    def _hosts(self) -> str:
        """The file that names the lab; where nobody has written it yet, the machine's names until somebody does.

        It must be there before a container: what is bound over its ``/etc/hosts`` is this file, not its path.
        """
        path = f"{self._directory}/{HOSTS}"
        with suppress(FileExistsError):
            new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with open(new, "wb") as file, suppress(FileNotFoundError):
                os.fchmod(new, 0o644)  # the umask keeps the other files to root
                file.write(Path(ETC_HOSTS).read_bytes())
        return path

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
        """The pipe closes when the child becomes its command."""
        data = os.read(told, _CHUNK)
        one.said += data
        if data:
            return
        self._unwatch(told)
        os.close(told)
        one.told()

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
