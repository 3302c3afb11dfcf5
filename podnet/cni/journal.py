"""What calls of the plugin leave behind: a line of JSON each, in a file of bounded size, for ``podnet cni log``.

A line is written by one write to a file that is only ever appended to, so that many writers do not mix. One that is
killed in the middle of it leaves a half (the kernel looks for signals between two pages), so every line begins with a
line end of its own, and the half is nobody else's. A full file becomes the older one of two, in the place of the one
before.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FILE_NAME", "MAX_BYTES", "Stopwatch", "append", "record", "records"]

FILE_NAME = "calls.jsonl"
MAX_BYTES = 1 << 20  # of each of the two files: some 4,000 calls

_APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_MAX_TEXT = 300  # characters of an error's message, and of its details


class Stopwatch:
    """The phases of one call, in milliseconds. Called with the name of the phase that has just ended."""

    def __init__(self) -> None:
        self.started = time.time()
        self._first = self._last = time.perf_counter()
        self.phases: dict[str, float] = {}

    def __call__(self, phase: str) -> None:
        now = time.perf_counter()
        self.phases[phase] = round(self.phases.get(phase, 0.0) + (now - self._last) * 1000, 3)
        self._last = now

    @property
    def total(self) -> float:
        """Milliseconds from the first to the last phase."""
        return round((self._last - self._first) * 1000, 3)


def record(
    watch: Stopwatch, verb: str, owner: tuple[str, str, str], answer: dict[str, Any], *, warm: bool
) -> dict[str, Any]:
    """A call as it is written down; ``owner`` is network, container and interface, ``answer`` a result or an error."""
    network, container, ifname = owner
    found = {
        "time": round(watch.started, 3),
        "verb": verb,
        "network": network[:256],
        "container": container[:256],
        "ifname": ifname[:16],
        "ms": watch.total,
        "phases": watch.phases,
        "warm": warm,
        "pid": os.getpid(),
    }
    if "code" in answer:
        found["error"] = {key: _short(answer[key]) for key in ("code", "msg", "details") if key in answer}
    elif answer:
        old = [answer[key]["ip"] for key in ("ip4", "ip6") if key in answer]
        found["addresses"] = [each["address"] for each in answer.get("ips", ())][:16] + old
    return {key: value for key, value in found.items() if value != ""}


def _short(value: Any) -> Any:
    return value[:_MAX_TEXT] + "..." if isinstance(value, str) and len(value) > _MAX_TEXT else value


def append(folder: str, entry: dict[str, Any]) -> None:
    """Write a call down. Raises ``OSError`` where that is not possible."""
    line = b"\n" + json.dumps(entry, separators=(",", ":")).encode("ascii", "replace") + b"\n"
    path = os.path.join(folder, FILE_NAME)
    try:
        descriptor = os.open(path, _APPENDING, 0o600)
    except FileNotFoundError:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        descriptor = os.open(path, _APPENDING, 0o600)
    try:
        if os.fstat(descriptor).st_size >= MAX_BYTES:
            _turn(path, descriptor)
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _turn(path: str, descriptor: int) -> None:
    """Make the full file the older one, unless another call has done so; who has it open still writes to it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
            os.rename(path, f"{path}.1")
    except FileNotFoundError:  # just renamed, and nobody has written since
        return


def records(folder: str) -> Iterator[dict[str, Any]]:
    """The calls that are written down, in the order in which they ended. What is no record is left out."""
    for name in (f"{FILE_NAME}.1", FILE_NAME):
        try:
            with open(os.path.join(folder, name), "rb") as file:
                lines = file.readlines()
        except FileNotFoundError:
            continue
        for line in lines:
            found = parsed(line)
            if found is not None:
                yield found


def parsed(line: bytes) -> dict[str, Any] | None:
    """A record from its line; ``None`` where it is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "verb" in found else None
