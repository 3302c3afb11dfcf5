"""The routing daemons of a lab: BIRD's configuration files, and what a running bird says of itself.

Each daemon has three files in one folder: ``NAME.conf``, the control socket ``NAME.ctl`` and ``NAME.pid``. The control
socket takes a command a line; each line of an answer bears a code, and the code's first digit says what it is: 0 done,
1 and 2 what was asked for, 8 and 9 refused (BIRD's programmer's documentation, "Control socket").
"""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from podnet.errors import KernelError
from podnet.kernel.objects import BirdConf, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from podnet.kernel.objects import KernelObject

__all__ = ["LIMIT", "Birds", "Files", "files_of"]

LIMIT = 30.0  # seconds that routes have to be learned
_POLL = 0.05
_ANSWER_LIMIT = 5.0  # seconds that a daemon has for an answer
_SOCKET_NAME = 40  # bytes of a name that still fit into a socket's path (108 with that of the longest lab)
_HEAD = re.compile(r"# bird on ([^ ]+) in ([^ ]+):")
_ROW = re.compile(r"(\d{4})[- ]|[ +]")


class Files(NamedTuple):
    """Where a daemon's files are."""

    conf: str
    control: str
    pid: str


def files_of(folder: str, name: str) -> Files:
    """The files of the daemon on a node or router."""
    short = name
    if len(name) > _SOCKET_NAME:
        from hashlib import sha1

        short = f"bird{sha1(name.encode(), usedforsecurity=False).hexdigest()[:8]}"
    return Files(f"{folder}/{name}.conf", f"{folder}/{short}.ctl", f"{folder}/{short}.pid")


class Birds:
    """The daemons of one lab, whose folder this is. Processes are started and ended elsewhere."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    # -- configuration ------------------------------------------------------------------------------------

    def observe(self) -> list[BirdConf]:
        """All configurations that are there and say whose they are."""
        try:
            names = [name for name in os.listdir(self._folder) if name.endswith(".conf")]
        except FileNotFoundError:
            return []
        found = []
        for name in sorted(names):
            with open(f"{self._folder}/{name}", encoding="utf-8", errors="replace") as file:
                text = file.read()
            head = _HEAD.match(text)
            if head is not None and f"{head[1]}.conf" == name:
                found.append(BirdConf(head[2], head[1], text))
        return found

    def write(self, wanted: BirdConf) -> None:
        """Check a configuration and put it in its place; a daemon that runs follows it.

        Raises ``KernelError`` with bird's words where it is refused: then file and daemon are as they were.
        """
        with suppress(FileExistsError):
            os.mkdir(self._folder, mode=0o700)
        files = files_of(self._folder, wanted.name)
        new = f"{files.conf}.new"
        with open(new, "w", encoding="utf-8") as file:
            file.write(wanted.text)
        try:
            _check(new)
            if _listens(files.control):
                # By its new name: killed here, the old file says that there is still something to do.
                answer = _ask(files.control, f'configure "{new}"')
                if answer[-1][0].startswith(("8", "9")):
                    msg = f"bird refuses it: {'; '.join(text for _, text in answer)}"
                    raise KernelError(msg)
        except KernelError:
            os.unlink(new)
            raise
        os.replace(new, files.conf)

    def remove(self, gone: BirdConf) -> None:
        """Delete a daemon's files; it has ended."""
        for path in files_of(self._folder, gone.name):
            with suppress(FileNotFoundError):
                os.unlink(path)

    # -- what was learned ---------------------------------------------------------------------------------

    def wait(self, routes: Sequence[Route], read: Callable[[str], Iterable[KernelObject]]) -> None:
        """Wait until all these routes are in the kernel, and their daemons stand by them.

        ``read`` gives the routes of a namespace. A daemon that was just started finds in the kernel what the one
        before it left there, and takes it away before it has learned it: so it must say that it knows the route.
        Raises ``KernelError`` naming what is missing, where, and what the daemon says of its sessions.
        """
        missing = {route.key: route for route in routes}
        controls = self._controls()
        deadline = time.monotonic() + LIMIT
        while True:
            for netns in sorted({route.netns for route in missing.values()}):
                there = {each.key: each for each in read(netns)}
                arrived = [each for each in missing.values() if each.netns == netns and there.get(each.key) == each]
                known = _known(controls.get(netns, "")) if arrived else set()
                for route in arrived:
                    if route.dst in known:
                        del missing[route.key]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise KernelError(self._not_learned(list(missing.values())))
            time.sleep(_POLL)

    def _not_learned(self, missing: list[Route]) -> str:
        lines = []
        for netns in sorted({route.netns for route in missing}):
            prefixes = [f"{route.dst} via {route.via}" for route in missing if route.netns == netns]
            more = f" and {len(prefixes) - 3} more" if len(prefixes) > 3 else ""
            lines.append(f"  {netns}: {', '.join(prefixes[:3])}{more}; {self.sessions(netns)}")
        return f"routes were not learned in {LIMIT:.0f} s:\n" + "\n".join(lines)

    def sessions(self, netns: str) -> str:
        """What the daemon in a namespace says of its sessions: in words, for a message."""
        control = self._controls().get(netns)
        if control is None:
            return "no bird is configured there"
        try:
            rows = _ask(control, "show protocols")
        except KernelError as error:
            return str(error)
        columns = [text.split(None, 5) for code, text in rows if code == "1002"]
        sessions = [row for row in columns if len(row) > 1 and row[1] == "BGP"]
        shown = [f"{row[0]} is {' '.join(row[5].split()) if len(row) > 5 else row[3]}" for row in sessions]
        down = [each for row, each in zip(sessions, shown, strict=True) if "Established" not in row[-1]]
        if down:
            return f"sessions: {', '.join(down)}"
        return "all its sessions are established" if shown else "bird has no session"

    def _controls(self) -> dict[str, str]:
        """The control socket by namespace."""
        return {each.netns: files_of(self._folder, each.name).control for each in self.observe()}


def _known(control: str) -> set[str]:
    """The prefixes to which a daemon has a route; none where it does not answer."""
    try:
        rows = _ask(control, "show route primary")
    except KernelError:
        return set()
    return {text.split(None, 1)[0] for code, text in rows if code == "1007" and text[:1].isalnum()}


def _check(path: str) -> None:
    """Let bird read a configuration without running it. Raises ``KernelError`` with its words."""
    import subprocess

    env = {"PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin", "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(
            ["bird", "-p", "-c", path],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, check=False,
        )  # fmt: skip
    except OSError as error:
        msg = f"cannot run bird: {error.strerror}; it comes with the Debian package bird2"
        raise KernelError(msg, error.errno or 0) from error
    if done.returncode != 0:
        msg = f"bird refuses it: {done.stdout.decode(errors='replace').strip()}"
        raise KernelError(msg)


def _listens(control: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(control)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _ask(control: str, command: str) -> list[tuple[str, str]]:
    """The answer to a command: (code, text) a line. Raises ``KernelError`` where no daemon answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_LIMIT)
        try:
            connection.connect(control)
            with connection.makefile("r", encoding="utf-8", errors="replace") as lines:
                _answer(lines)  # it greets first
                connection.sendall(f"{command}\n".encode())
                return _answer(lines)
        except OSError as error:
            msg = f"bird does not answer at {control}: {error.strerror or error}"
            raise KernelError(msg, error.errno or 0) from error


def _answer(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Lines up to the one that ends the answer: its code is not followed by a dash, but by a space."""
    rows: list[tuple[str, str]] = []
    code = ""
    for line in lines:
        head = _ROW.match(line)
        code = (head[1] if head else "") or code
        text = line[5:] if head and head[1] else line[1:]
        rows.append((code, text.rstrip("\n")))
        if head and head[1] and line[4:5] == " ":
            return rows
    msg = "the connection was closed"
    raise ConnectionResetError(msg)
