"""JSON from standard input, read as Go reads it into a struct.

Go matches a key exactly or without regard to case, the last one in the document wins, and null is the same as
absent. containerd relies on it: it sends ``HostPort`` where the specification says ``hostPort``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from podnet.cni.spec.errors import DECODING_FAILURE, IO_FAILURE, CNIError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Document", "decode", "encode", "fold", "read"]

MAX_BYTES = 64 << 20  # the valid attachments of a GC are some 240 bytes each
MAX_DEPTH = 200
_PATIENCE_MS = 500
_INT64 = (-(1 << 63), (1 << 63) - 1)
_UINT64 = (0, (1 << 64) - 1)


def fold(key: str) -> str:
    """A key without regard to case, by Go's rule: one character stands for one character."""
    if key.isascii():
        return key.lower()
    folded = key.casefold()
    return folded if len(folded) == len(key) else key.lower()


def read(descriptor: int = 0, *, patient: bool = True, limit: int = MAX_BYTES) -> bytes:
    """All of standard input; with ``patient=False`` what comes within half a second (for VERSION).

    A runtime writes after it has started the plugin, on a busy machine much later; who leaves an empty input open still
    gets the answer. Raises ``CNIError`` 5 when it cannot be read or is larger than ``limit`` bytes.
    """
    import os

    chunks, total = [], 0
    try:
        while patient or _readable(descriptor):
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                break
            chunks.append(chunk)
            total += len(chunk)
            if total > limit:
                raise CNIError(IO_FAILURE, f"error reading from stdin: more than {limit} bytes")
    except OSError as error:
        raise CNIError(IO_FAILURE, f"error reading from stdin: {error.strerror}") from None
    return b"".join(chunks)


def _readable(descriptor: int) -> bool:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(_PATIENCE_MS))


def decode(data: bytes, what: str = "network config") -> Document:
    """A JSON object. Bytes that are not UTF-8 become U+FFFD, as in Go.

    Raises ``CNIError`` 6 for anything but one JSON object, and for one deeper than ``MAX_DEPTH``.
    """
    if len(data) > MAX_BYTES:
        raise CNIError(DECODING_FAILURE, f"error unmarshall {what}: more than {MAX_BYTES} bytes")
    text = data.decode("utf-8", "replace")
    if not text.strip(" \t\r\n"):
        raise CNIError(DECODING_FAILURE, f"error unmarshall {what}: unexpected end of JSON input")
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise _too_deep(what) from None
    except ValueError as error:
        raise CNIError(DECODING_FAILURE, f"error unmarshall {what}: {error}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise _too_deep(what)
    if "\\u" in text:
        value = _without_surrogates(value)
    if value is None:  # Go leaves the struct as it is
        value = {}
    if not isinstance(value, dict):
        raise CNIError(DECODING_FAILURE, f"error unmarshall {what}: it must be an object, not {_kind(value)}")
    return Document(value)


def encode(value: Any) -> bytes:
    """Compact JSON in ASCII, as it goes to a plugin or a runtime."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _no_constant(name: str) -> Any:
    msg = f"invalid number {name}"
    raise ValueError(msg)


def _too_deep(what: str) -> CNIError:
    return CNIError(DECODING_FAILURE, f"error unmarshall {what}: nested more than {MAX_DEPTH} deep")


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        level = [
            each
            for outer in level
            if isinstance(outer, dict | list)
            for each in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth - 1


def _without_surrogates(value: Any) -> Any:
    # "\ud800" alone is text that cannot be encoded, so no file, interface or message could hold it.
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(each) for key, each in value.items()}
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {_short(value)}"
    if isinstance(value, str):
        return f"the string {json.dumps(value[:40])}"
    return "an array" if isinstance(value, list) else "an object"


def _short(value: float) -> str:
    # An integer of thousands of digits is refused by str().
    return "of too many digits" if isinstance(value, int) and value.bit_length() > 512 else str(value)


class Document:
    """A JSON object whose keys are found as Go finds them; ``where`` is its place in the whole, for messages.

    Every accessor raises ``CNIError`` 6, with the key named, for a value of another type.
    """

    __slots__ = ("_folded", "raw", "where")

    def __init__(self, raw: Mapping[str, Any], where: str = "") -> None:
        self.raw = raw
        self.where = where
        self._folded: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Document({self.raw!r}, {self.where!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Document) and self.raw == other.raw

    __hash__ = None  # type: ignore[assignment]

    def get(self, key: str) -> Any:
        """The value as it is, or ``None`` where it is absent or null."""
        if self._folded is None:
            self._folded = {fold(name): value for name, value in self.raw.items() if value is not None}
        return self._folded.get(fold(key))

    def has(self, key: str) -> bool:
        """Whether the key is there, null included."""
        folded = fold(key)
        return any(fold(name) == folded for name in self.raw)

    def path(self, key: str) -> str:
        """The place of a key in the whole document."""
        return f"{self.where}.{key}" if self.where else key

    def text(self, key: str, default: str = "") -> str:
        value = self.get(key)
        return default if value is None else _typed(value, str, "a string", self.path(key))

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.get(key)
        return default if value is None else _typed(value, bool, "a boolean", self.path(key))

    def integer(self, key: str, default: int = 0) -> int:
        """A signed number of 64 bits; ``1.0`` is none, as in Go."""
        return self._number(key, default, *_INT64)

    def unsigned(self, key: str, default: int = 0) -> int:
        """A number of 64 bits that is not negative."""
        return self._number(key, default, *_UINT64)

    def optional(self, key: str) -> int | None:
        """A signed number, or ``None`` where there is none: 0 means something else."""
        return None if self.get(key) is None else self.integer(key)

    def object(self, key: str) -> Document | None:
        value = self.get(key)
        return None if value is None else Document(_typed(value, dict, "an object", self.path(key)), self.path(key))

    def array(self, key: str) -> list[Any]:
        value = self.get(key)
        return [] if value is None else _typed(value, list, "an array", self.path(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of strings."""
        path = self.path(key)
        return tuple(_typed(each, str, "a string", f"{path}[{i}]") for i, each in enumerate(self.array(key)))

    def objects(self, key: str) -> list[Document]:
        """An array of objects."""
        path = self.path(key)
        return [
            Document(_typed(each, dict, "an object", f"{path}[{i}]"), f"{path}[{i}]")
            for i, each in enumerate(self.array(key))
        ]

    def _number(self, key: str, default: int, low: int, high: int) -> int:
        value = self.get(key)
        if value is None:
            return default
        number: int = _typed(value, int, "an integer", self.path(key))
        if not low <= number <= high:
            raise CNIError(DECODING_FAILURE, f"{self.path(key)} is out of range: {_short(number)}")
        return number


def _typed(value: Any, kind: Any, name: str, path: str) -> Any:
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise CNIError(DECODING_FAILURE, f"{path} must be {name}, not {_kind(value)}")
