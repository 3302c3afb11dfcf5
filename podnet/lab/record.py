"""What podnet remembers of a running lab: one directory with one file, written before the kernel is touched.

The file's first line is JSON that every command reads, the rest is JSON that grows with the lab.

All else is in the kernel. The record names every namespace that may be the lab's, so that whatever a crash left
half-made is found by the next ``up`` or ``down``.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from podnet.errors import CapabilityError, LabBusyError, LabNotFoundError, PodnetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podnet.kernel.objects import State
    from podnet.model.lab import Lab

__all__ = [
    "LABS_DIR",
    "RUN_DIR",
    "Body",
    "Record",
    "daemons_directory",
    "directory",
    "find",
    "load",
    "locked",
    "name_meant",
    "names",
    "remove",
    "save",
]

RUN_DIR = "/run/podnet"
LABS_DIR = "/run/podnet/labs"
_VERSION = 2
_LEFT_OVER_LIMIT = 5.0  # seconds that a killed podnet's helper has to end


class Body:
    """The large part of a record, read only by those who need it: what was wanted, and the lab as it is shown."""

    __slots__ = ("_content", "text")

    def __init__(self, text: bytes, content: dict[str, Any] | None = None) -> None:
        self.text = text
        self._content = content

    @classmethod
    def of(cls, wanted: State, lab: Lab) -> Body:
        """The body that says this."""
        from podnet.lab.labjson import lab_to_json
        from podnet.lab.rows import to_rows

        content = {"wanted": to_rows(wanted), "lab": lab_to_json(lab)}
        # Not json.dump, which encodes in Python and takes ten times as long.
        return cls(json.dumps(content, separators=(",", ":")).encode(), content)

    @property
    def content(self) -> dict[str, Any]:
        """``wanted``: rows of kernel objects; ``lab``: see ``podnet.lab.labjson``."""
        if self._content is None:
            content: dict[str, Any] = json.loads(self.text)
            self._content = content
        return self._content


class Record(NamedTuple):
    """A lab's record.

    ``settled`` is false while a change is under way, or was when podnet died. ``namespaces`` holds every name
    that may exist, ``machine_keys`` the keys of what may be in the machine's own namespace.
    """

    name: str
    path: str
    group: int
    settled: bool
    namespaces: list[str]
    machine_keys: list[list[str]]
    earlier: dict[str, list[str]]
    since: float  # Unix time in seconds
    body: Body
    faults: list[list[Any]] = []  # noqa: RUF012 - never changed in place

    @property
    def wanted(self) -> State:
        """The kernel state that the last ``up`` was to reach, with the faults that commands made since."""
        healthy = self.healthy
        if not self.faults:
            return healthy
        from podnet.lab import faults

        return faults.with_faults(healthy, faults.from_rows(self.faults), self.lab_json)

    @property
    def healthy(self) -> State:
        """The same without those faults."""
        from podnet.lab.rows import from_rows

        return from_rows(self.body.content["wanted"])

    @property
    def lab_json(self) -> dict[str, Any]:
        """The lab's targets and expectations as JSON values."""
        lab: dict[str, Any] = self.body.content["lab"]
        return lab

    @property
    def lab(self) -> Lab:
        """The lab's targets and expectations."""
        from podnet.lab.labjson import lab_from_json

        return lab_from_json(self.lab_json)


def directory(name: str) -> str:
    """Where a lab keeps its record, its reservations, its containers' logs and socket."""
    return f"{LABS_DIR}/{name}"


def daemons_directory(name: str) -> str:
    """Where the routing daemons of a lab have their configuration and their sockets."""
    return f"{directory(name)}/bird"


def _file(name: str) -> str:
    return f"{directory(name)}/record.json"


def names() -> list[str]:
    """The labs that have a record."""
    try:
        return sorted(name for name in os.listdir(LABS_DIR) if os.path.exists(_file(name)))
    except FileNotFoundError:
        return []


def load(name: str) -> Record | None:
    """The record of a lab, or ``None``. Raises ``PodnetError`` where the file is not what podnet wrote."""
    path = _file(name)
    try:
        with open(path, "rb") as file:
            value = json.loads(file.readline())
            if value.pop("version") != _VERSION:
                msg = f"{path} was written by another version of podnet: take the lab down with that version"
                raise PodnetError(msg)
            text = file.read()
        if len(text) != value.pop("bytes"):
            msg = "its second line is not whole"
            raise ValueError(msg)
        return Record(**value, body=Body(text))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        msg = (
            f"{path} is damaged ({error}): delete its lab's namespaces ({name}.*) with 'ip netns del',"
            f" then the directory {directory(name)}"
        )
        raise PodnetError(msg) from error


def save(record: Record) -> None:
    """Write a record; readers see the old one or the new one, never a half."""
    os.makedirs(LABS_DIR, mode=0o755, exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(directory(record.name), mode=0o700)
    value = {"version": _VERSION, "bytes": len(record.body.text)} | record._asdict()
    del value["body"]
    path = _file(record.name)
    with open(f"{path}.new", "wb") as file:
        file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n" + record.body.text)
    os.replace(f"{path}.new", path)


def remove(name: str) -> None:
    """Delete a lab's directory, and the directories above where they are empty then."""
    # The record goes last: as long as it is there, a further "down" finds what to do.
    for where, folders, files in os.walk(directory(name), topdown=False):
        for file in files:
            if file != "record.json" or where != directory(name):
                os.unlink(f"{where}/{file}")
        for folder in folders:
            os.rmdir(f"{where}/{folder}")
    with suppress(FileNotFoundError):
        os.unlink(_file(name))
    for path in (directory(name), LABS_DIR, RUN_DIR):
        with suppress(OSError):
            os.rmdir(path)


def find(argument: str | None) -> Record:
    """The record of the lab that a user means: by name, by topology file, or the only one there is.

    Raises ``LabNotFoundError`` saying what there is instead.
    """
    running = names()
    if argument is None:
        if len(running) == 1:
            argument = running[0]
        elif running:
            msg = f"several labs are running: name one of {', '.join(running)}"
            raise LabNotFoundError(msg)
        else:
            msg = "no lab is running: start one with 'podnet up TOPOLOGY'"
            raise LabNotFoundError(msg)
    name = name_meant(argument)
    record = load(name) if name in running else None
    if record is None:
        there = f"running: {', '.join(running)}" if running else "no lab is running"
        msg = f"no lab named {name} is running ({there})"
        raise LabNotFoundError(msg)
    return record


def name_meant(argument: str) -> str:
    """The lab's name that an argument stands for: itself, or the name in the topology file that it is."""
    if argument not in names() and _looks_like_file(argument):
        from podnet.topology.load import name_of

        return name_of(argument)
    if not argument or not all(each.isascii() and (each.isalnum() or each == "-") for each in argument):
        # Not only a matter of manners: names become paths below /run.
        msg = f"no lab can have the name {argument!r}: names are letters, digits and dashes"
        raise LabNotFoundError(msg)
    return argument


def _looks_like_file(argument: str) -> bool:
    if "\0" in argument:
        return False
    return "/" in argument or argument.endswith((".yaml", ".yml")) or os.path.isfile(argument)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lab for one change; a lock of the kernel, so it ends with the process, however that ends.

    Raises ``LabBusyError`` where another process holds it, ``CapabilityError`` where /run cannot be written.
    """
    path = f"{LABS_DIR}/{name}.lock"
    deadline = time.monotonic() + _LEFT_OVER_LIMIT
    while True:
        try:
            os.makedirs(LABS_DIR, mode=0o755, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # a "down" removed the directory between both calls
        except OSError as error:
            msg = f"cannot write {LABS_DIR}: {error.strerror}; podnet needs root and a writable /run"
            raise CapabilityError(msg) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            if not _taker_lives(path) and time.monotonic() < deadline:
                # It was killed, and the process that makes namespaces for it (podnet.kernel.maker) is just ending.
                time.sleep(0.01)
                continue
            msg = f"another podnet is changing lab {name} right now: try again when it has finished"
            raise LabBusyError(msg) from None
        if _still_at(fd, path):
            break
        os.close(fd)  # the holder before us removed the file when it was done: take the new one
    try:
        yield
    finally:
        if not os.path.exists(_file(name)):
            with suppress(OSError):
                os.unlink(path)
            for empty in (LABS_DIR, RUN_DIR):
                with suppress(OSError):
                    os.rmdir(empty)
        os.close(fd)


def _taker_lives(path: str) -> bool:
    """Whether the process lives that took the lock, by the kernel's list (proc_locks(5))."""
    with suppress(FileNotFoundError):
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="ascii") as locks:
            # 1: FLOCK  ADVISORY  WRITE 5777 00:1a:1234 0 EOF
            takers = {row[4] for row in map(str.split, locks) if row[1] == "FLOCK" and row[5].endswith(f":{inode}")}
        for pid in takers:
            with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat", "rb") as stat:
                if stat.read().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}:
                    return True
    return False


def _still_at(fd: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    ours = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
