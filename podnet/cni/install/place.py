"""Files placed so that nobody ever sees half of one, and written down so that exactly they are removed again.

Each is written beside its place and renamed into it: what executes the old one goes on doing so. Before the first is
placed, a list says what they will be, so that an installation that was cut short can be repeated or removed.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from podnet.errors import PodnetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["LIST_NAME", "Content", "InstallError", "check", "installed", "place", "remove"]

LIST_NAME = "podnet-installed.json"


class InstallError(PodnetError):
    """The installation, or its removal, cannot be done; nothing was changed where the message does not say so."""

    exit_code = 2


class Content(NamedTuple):
    """A file to be placed. A ``kept`` one is left as it is where somebody has changed it since."""

    path: str
    data: bytes
    mode: int = 0o644
    kept: bool = False


def installed(folder: str) -> dict[str, list[str]]:
    """What the list in a folder says: for each path, the digests that a file of ours may have. Empty without a list.

    Raises ``InstallError`` where the list cannot be read.
    """
    path = os.path.join(folder, LIST_NAME)
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)["files"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"cannot read {path}, which says what is installed: {error}"
        raise InstallError(msg) from error
    return {str(key): [str(each) for each in value] for key, value in found.items()}


def check(folder: str, contents: Sequence[Content]) -> None:
    """Raise ``InstallError`` where others' files are in the way, with their names."""
    known = installed(folder)
    foreign = [each.path for each in contents if not each.kept and not _ours(each.path, known)]
    if foreign:
        msg = f"in the way, and not placed by podnet: {', '.join(foreign)}; move it away first"
        raise InstallError(msg)


def place(folder: str, contents: Sequence[Content]) -> list[str]:
    """Place files in their order, the last one last, with their list in ``folder``; the paths that have changed.

    Files of an earlier installation that are not among them are removed. Raises ``InstallError``: before anything was
    changed where another's file is in the way, or a folder is missing or cannot be written.
    """
    check(folder, contents)
    known = installed(folder)
    wanted = [each for each in contents if not (each.kept and os.path.lexists(each.path) and _foreign(each, known))]
    changed = [each for each in wanted if _digest(each.path) != sha256(each.data).hexdigest() or _mode(each)]
    lines = {each.path: [sha256(each.data).hexdigest()] for each in wanted}
    lines |= {each.path: known[each.path] for each in contents if each not in wanted and each.path in known}
    both = {path: sorted({*known.get(path, ()), *lines.get(path, ())}) for path in {*known, *lines}}
    with _Fresh() as fresh:
        files = [(fresh.write(each.path, each.data, each.mode), each.path) for each in changed]
        try:
            fresh.rename(fresh.write(os.path.join(folder, LIST_NAME), _list(both), 0o644), folder, LIST_NAME)
            for temporary, path in files:
                fresh.rename(temporary, *os.path.split(path))
            for path in sorted(set(known) - set(lines)):
                if _ours(path, known):
                    _unlink(path)
            fresh.rename(fresh.write(os.path.join(folder, LIST_NAME), _list(lines), 0o644), folder, LIST_NAME)
        except OSError as error:
            msg = f"cut short at {error.filename2 or error.filename}: {error.strerror}; install again, or uninstall"
            raise InstallError(msg) from error
    return [each.path for each in changed]


def remove(folder: str, first: Iterable[str] = ()) -> list[str]:
    """Remove what the list in a folder says, those that end as ``first`` says before all others, and the list itself.

    Returns the paths that are gone now. Raises ``InstallError``, having changed nothing, where one of them is not as it
    was placed.
    """
    known = installed(folder)
    changed = [path for path in known if not _ours(path, known)]
    if changed:
        msg = f"not as podnet has placed it: {', '.join(sorted(changed))}; remove it by hand, then uninstall again"
        raise InstallError(msg)
    endings = tuple(first)
    order = sorted(known, key=lambda path: (not path.endswith(endings), path))
    gone = [path for path in order if os.path.lexists(path)]
    try:
        for path in order:
            _unlink(path)
        _unlink(os.path.join(folder, LIST_NAME))
    except OSError as error:
        msg = f"cannot remove {error.filename}: {error.strerror}"
        raise InstallError(msg) from error
    return gone


class _Fresh:
    """Files that are written and not in place yet; those that never get there are removed."""

    def __init__(self) -> None:
        self._waiting: set[str] = set()

    def __enter__(self) -> _Fresh:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._waiting:
            with suppress(OSError):
                os.unlink(each)

    def write(self, path: str, data: bytes, mode: int) -> str:
        """Write what is to become ``path``; the name under which it waits. Raises ``InstallError``."""
        folder, name = os.path.split(path)
        # A runtime that watches the folder takes no notice of it: it has none of the endings.
        waiting = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
        try:
            descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            self._waiting.add(waiting)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            msg = f"cannot write into {folder}: {error.strerror}"
            raise InstallError(msg) from error
        return waiting

    def rename(self, waiting: str, folder: str, name: str) -> None:
        """Put a written file in its place."""
        os.rename(waiting, os.path.join(folder, name))
        self._waiting.discard(waiting)


def _list(files: dict[str, list[str]]) -> bytes:
    about = "placed by 'podnet cni install'; 'podnet cni uninstall' removes them"
    return (json.dumps({"about": about, "files": files}, indent=2, sort_keys=True) + "\n").encode()


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise InstallError(msg) from error


def _ours(path: str, known: dict[str, list[str]]) -> bool:
    """Whether a path is free, or has a file of ours."""
    if not os.path.lexists(path):
        return True
    return not os.path.islink(path) and os.path.isfile(path) and _digest(path) in known.get(path, ())


def _foreign(content: Content, known: dict[str, list[str]]) -> bool:
    return _digest(content.path) not in (*known.get(content.path, ()), sha256(content.data).hexdigest())


def _mode(content: Content) -> bool:
    """Whether the file has another mode than it is to have."""
    return os.stat(content.path).st_mode & 0o7777 != content.mode


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
