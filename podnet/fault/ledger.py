"""Which faults are in a lab: a file in the lab's directory, written before the kernel is touched.

A hidden fault's line is packed, so that nobody reads the answer by accident; it is no secret.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from contextlib import suppress
from typing import Any, NamedTuple

from podnet.errors import PodnetError
from podnet.fault.site import Place
from podnet.fault.step import Step
from podnet.lab.record import directory

__all__ = ["Entry", "load", "save"]


class Entry(NamedTuple):
    """One injected fault. ``before`` and ``after`` are what the steps' looks showed, a list for each step.

    ``version`` is the IP version that it was injected for, 0 where it concerns both. ``settled`` is false while it is
    being injected, or was when podnet died.
    """

    number: int
    fault: str
    at: str
    to: str
    version: int
    hidden: bool
    settled: bool
    steps: list[Step]
    before: list[list[str]]
    after: list[list[str]]

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.at, self.to)

    def __str__(self) -> str:
        family = f", IPv{self.version}" if self.version else ""
        return f"{self.fault} at {self.place}{family}"


def _file(lab: str) -> str:
    return f"{directory(lab)}/faults.json"


def load(lab: str) -> list[Entry]:
    """The faults of a lab. Raises ``PodnetError`` where the file is not what podnet wrote."""
    try:
        with open(_file(lab), encoding="ascii") as file:
            return [_entry(value) for value in json.load(file)]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, zlib.error) as error:
        msg = f"{_file(lab)} is damaged ({error}): take the lab down and up again"
        raise PodnetError(msg) from error


def _entry(value: dict[str, Any]) -> Entry:
    if "packed" in value:
        value = json.loads(zlib.decompress(base64.b64decode(value["packed"])))
    value["steps"] = [Step(*step) for step in value["steps"]]
    return Entry(**value)


def save(lab: str, entries: list[Entry]) -> None:
    """Write the faults of a lab; without any, there is no file."""
    path = _file(lab)
    if not entries:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    values: list[dict[str, Any]] = []
    for entry in entries:
        value = entry._asdict()
        if entry.hidden:
            packed = base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()
            value = {"number": entry.number, "packed": packed}
        values.append(value)
    with open(f"{path}.new", "w", encoding="ascii") as file:
        json.dump(values, file)
    os.replace(f"{path}.new", path)
