"""What podnet remembers of a running lab: one directory with one JSON file, written before the kernel is touched.

All else is in the kernel. The record names every namespace that may be the lab's, so that whatever a crash left
half-made is found by the next ``up`` or ``down``.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podnet.errors import CapabilityError, LabBusyError, LabNotFoundError, PodnetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podnet.kernel.objects import State
    from podnet.model.lab import Lab

__all__ = [
    "LABS_DIR",
    "RUN_DIR",
    "Record",
    "directory",
    "find",
    "load",
    "locked",
    "name_meant",
    "names",
    "remove",
    "save",
]

RUN_DIR = Path("/run/podnet")
LABS_DIR = RUN_DIR / "labs"
_VERSION = 1


@dataclass(slots=True)
class Record:
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
    wanted_rows: list[list[Any]] = field(default_factory=list)
    lab_json: dict[str, Any] = field(default_factory=dict)
    since: float = field(default_factory=time.time)

    @property
    def wanted(self) -> State:
        """The kernel state that the last ``up`` was to reach."""
        from podnet.lab.rows import from_rows

        return from_rows(self.wanted_rows)

    @property
    def lab(self) -> Lab:
        """The lab's targets and expectations."""
        from podnet.lab.labjson import lab_from_json

        return lab_from_json(self.lab_json)


def directory(name: str) -> Path:
    """Where a lab keeps its record, its reservations, its containers' logs and socket."""
    return LABS_DIR / name


def names() -> list[str]:
    """The labs that have a record."""
    try:
        return sorted(entry.name for entry in LABS_DIR.iterdir() if (entry / "record.json").exists())
    except FileNotFoundError:
        return []


def load(name: str) -> Record | None:
    """The record of a lab, or ``None``. Raises ``PodnetError`` where the file is not what podnet wrote."""
    path = directory(name) / "record.json"
    try:
        value = json.loads(path.read_bytes())
        if value.pop("version") != _VERSION:
            msg = f"{path} was written by another version of podnet: take the lab down with that version"
            raise PodnetError(msg)
        return Record(**value)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        msg = (
            f"{path} is damaged ({error}): delete its lab's namespaces ({name}.*) with 'ip netns del',"
            f" then the directory {path.parent}"
        )
        raise PodnetError(msg) from error


def save(record: Record) -> None:
    """Write a record; readers see the old one or the new one, never a half."""
    where = directory(record.name)
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    value = {"version": _VERSION} | {name: getattr(record, name) for name in Record.__slots__}
    temporary = where / "record.json.new"
    temporary.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")
    temporary.replace(where / "record.json")


def remove(name: str) -> None:
    """Delete a lab's directory, and the directories above where they are empty then."""
    where = directory(name)
    # The record goes last: as long as it is there, a further "down" finds what to do.
    for path in sorted(where.rglob("*"), key=lambda p: (p.name == "record.json", -len(p.parts))):
        with suppress(FileNotFoundError):
            path.rmdir() if path.is_dir() else path.unlink()
    for path in (where, LABS_DIR, RUN_DIR):
        with suppress(OSError):
            path.rmdir()


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
    return argument


def _looks_like_file(argument: str) -> bool:
    return "/" in argument or argument.endswith((".yaml", ".yml")) or Path(argument).is_file()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lab for one change; a lock of the kernel, so it ends with the process, however that ends.

    Raises ``LabBusyError`` where another process holds it, ``CapabilityError`` where /run cannot be written.
    """
    path = LABS_DIR / f"{name}.lock"
    while True:
        try:
            LABS_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
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
            msg = f"another podnet is changing lab {name} right now: try again when it has finished"
            raise LabBusyError(msg) from None
        if _still_at(fd, path):
            break
        os.close(fd)  # the holder before us removed the file when it was done: take the new one
    try:
        yield
    finally:
        if not (directory(name) / "record.json").exists():
            with suppress(OSError):
                path.unlink()
            for empty in (LABS_DIR, RUN_DIR):
                with suppress(OSError):
                    empty.rmdir()
        os.close(fd)


def _still_at(fd: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
