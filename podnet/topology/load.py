"""Load a topology file: text to a checked ``Topology``, or all of its problems at once."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from podnet.errors import TopologyError
from podnet.model.topology import Topology
from podnet.topology.problem import MAX_PROBLEMS, Problem, Span, printable, quote, render

__all__ = ["MAX_BYTES", "load", "loads", "name_of"]

MAX_BYTES = 4 * 1024 * 1024
_LAB_NAME = re.compile("[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_NAME_LINE = re.compile(r"^name:[ \t]+[\"']?([a-z0-9][-a-z0-9]*)[\"']?[ \t]*(?:#.*)?\r?$", re.MULTILINE)


def load(path: str | Path) -> Topology:
    """Read and check a topology file; ``-`` is standard input.

    Raises ``TopologyError`` with every problem of the file, in file order, each as ``FILE:LINE:COLUMN: message``
    with the source line, a caret line and, where there is one, a ``help:`` line.
    """
    return loads(_read(path), _label(path))


def loads(text: str, path: str = "<text>") -> Topology:
    """Check a topology that is already text; ``path`` is what problems name it. Raises ``TopologyError``."""
    # pydantic would look through all installed packages for plugins of its own (10 ms), and run them.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from podnet.topology.check import check
    from podnet.topology.cninetwork import read_cni
    from podnet.topology.resolve import resolve
    from podnet.topology.source import parse
    from podnet.topology.tree import Mapping

    if not text.removeprefix("\ufeff").strip():
        raise TopologyError([_at_start(path, "the file is empty", "a topology starts with `name:` and `nodes:`")])
    document = parse(text)
    if not document.problems and not isinstance(document.root, Mapping):
        what = "nothing" if document.root is None or document.root.data is None else "something else"
        span = document.root.span if document.root is not None else Span(1, 1)
        message = f"a topology is a mapping (`key: value`), and the file holds {what}"
        document.problems.append(Problem(span, message, "it starts with `name:` and `nodes:`"))
    context = check(document)
    if context is not None and context.file.networking.cni is not None:
        document.problems += read_cni(context, path)
    problems = sorted(dict.fromkeys(document.problems))
    if problems or context is None:
        told = [render(p, path, document.lines) for p in problems[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            told.append(render(Problem(problems[MAX_PROBLEMS].span, "and more problems from here on"), path, []))
        raise TopologyError(told)
    return resolve(context, path)


def name_of(path: str | Path) -> str:
    """The lab's name alone, whatever else is wrong in the file: what ``down FILE`` needs.

    Raises ``TopologyError`` where there is no such file, or no usable name in it.
    """
    text = _read(path)
    name, span = _find_name(text)
    if name is None:
        hint = "write `name: NAME`, or give the lab's name instead of the file"
        raise TopologyError([_at_start(_label(path), "the file does not say the lab's `name`", hint)])
    if not _LAB_NAME.fullmatch(name):
        from podnet.topology.source import break_lines

        problem = Problem(span, f"{quote(name)} is no name of a lab")
        raise TopologyError([render(problem, _label(path), break_lines(text.removeprefix("\ufeff")))])
    return name


def _find_name(text: str) -> tuple[str | None, Span]:
    """The value of the key ``name`` at the top of the text, up to the first syntax error."""
    from yaml import YAMLError

    from podnet.topology.source import MAX_DEPTH, events

    depth, key = 0, True
    found = ""
    try:
        for event in events(text.removeprefix("\ufeff")):
            kind = type(event).__name__
            if kind == "ScalarEvent" and depth == 1 and not key and found == "name":
                mark: Any = event.start_mark
                return event.value, Span(mark.line + 1, mark.column + 1, max(1, event.end_mark.column - mark.column))
            if kind == "ScalarEvent" and depth == 1 and key:
                found = event.value
            if kind.endswith("StartEvent") and kind[0] in "SM" and kind != "StreamStartEvent":
                depth += 1
            if depth > MAX_DEPTH:  # libyaml's time is quadratic in it
                break
            ends = kind in ("SequenceEndEvent", "MappingEndEvent")
            depth -= ends
            if depth == 1 and (ends or kind in ("ScalarEvent", "AliasEvent")):
                key = not key
    except (YAMLError, UnicodeEncodeError):
        pass  # the text is broken above the name, or is no YAML at all
    line = _NAME_LINE.search(text)
    if line:
        return line.group(1), Span(text.count("\n", 0, line.start(1)) + 1, 7)
    return None, Span(1, 1)


def _label(path: str | Path) -> str:
    return "<stdin>" if str(path) == "-" else str(path)


def _at_start(path: str, message: str, hint: str = "") -> str:
    return render(Problem(Span(1, 1), message, hint), path, [])


def _read(path: str | Path) -> str:
    label = _label(path)
    try:
        if label == "<stdin>":
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise TopologyError([f"{printable(label)}: cannot read the topology: {why[:1].lower()}{why[1:]}"]) from None
    if len(raw) > MAX_BYTES:
        hint = "use `replicas` for equal pods"
        raise TopologyError([_at_start(label, f"the file is larger than {MAX_BYTES // 1024**2} MiB", hint)])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TopologyError([_not_utf8(label, raw, error.start)]) from None


def _not_utf8(label: str, raw: bytes, offset: int) -> str:
    from podnet.topology.source import break_lines

    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _at_start(label, "the file is UTF-16, and a topology is UTF-8", "save it as UTF-8")
    lines = break_lines(raw[:offset].decode("utf-8").removeprefix("\ufeff"))
    message = f"the file is not UTF-8: byte 0x{raw[offset]:02x}"
    return render(Problem(Span(len(lines), len(lines[-1]) + 1), message, "save it as UTF-8"), label, [])
