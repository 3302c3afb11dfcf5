"""YAML text to a tree with positions, without trusting the text.

PyYAML's event stream is used, not its constructors: no tag makes an object, nothing recurses, aliases are
counted before they are followed, and the text is read only as far as the bounds below allow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from podnet.topology.problem import Problem, Span, quote
from podnet.topology.scalar import resolve
from podnet.topology.tree import Entry, List, Mapping, Node, Odd, Scalar

__all__ = ["MAX_DEPTH", "MAX_EXPANDED", "MAX_VALUES", "Document", "break_lines", "events", "parse"]

MAX_DEPTH = 64
MAX_EXPANDED = 100_000  # values that aliases stand for
MAX_VALUES = 400_000  # values written out

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # YAML 1.1's line breaks: the parser counts lines by them
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_TAG_DIRECTIVE = re.compile("^%TAG", re.MULTILINE)
_MAX_DIRECTIVES = 64  # libyaml compares each with all before
_CORE = "tag:yaml.org,2002:"
_OPEN = object()


@dataclass(slots=True)
class Document:
    """The tree (``None`` where the text gives none), its lines, and what is wrong so far."""

    lines: list[str]
    root: Node | None = None
    problems: list[Problem] = field(default_factory=list)


class _Stop(Exception):  # noqa: N818 - it ends the reading, the problem is already noted
    """Reading further makes no sense."""


def break_lines(text: str) -> list[str]:
    """The lines of the text as YAML counts them."""
    return _BREAK.split(text)


def events(text: str) -> Iterator[Any]:
    """PyYAML's events of the text, lazily; raises ``yaml.YAMLError`` where the text is no YAML."""
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is 10 times faster, same events
    return iter(yaml.parse(text, Loader=loader))


def parse(text: str) -> Document:
    """The document of the text; never raises for anything that the text holds."""
    text = text.removeprefix("\ufeff")
    document = Document(break_lines(text))
    bad = _FORBIDDEN.search(text)
    if bad:
        lines = break_lines(text[: bad.start()])
        what = "a NUL byte" if bad.group() == "\0" else f"the character U+{ord(bad.group()):04X}"
        document.problems.append(
            Problem(Span(len(lines), len(lines[-1]) + 1), f"{what} is not allowed in a YAML file", _not_text(bad))
        )
        return document
    directives = list(islice(_TAG_DIRECTIVE.finditer(text), _MAX_DIRECTIVES + 1))
    if len(directives) > _MAX_DIRECTIVES:
        line = len(break_lines(text[: directives[-1].start()]))
        document.problems.append(Problem(Span(line, 1), f"more than {_MAX_DIRECTIVES} %TAG lines", "take them out"))
        return document
    _Reader(document).read(text)
    return document


def _not_text(bad: re.Match[str]) -> str:
    return "is this a text file?" if bad.group() < " " else "write it as an escape in double quotes, or take it out"


class _Reader:
    """Builds the tree from events, on a stack of its own."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.anchors: dict[str, Any] = {}
        self.stack: list[_Frame] = []
        self.values = 0  # written out
        self.expanded = 0  # with aliases

    def read(self, text: str) -> None:
        from yaml import YAMLError

        from podnet.topology.syntax import syntax_problem

        documents = 0
        try:
            for event in events(text):
                kind = type(event).__name__
                if kind == "DocumentStartEvent":
                    documents += 1
                    if documents > 1:
                        self.note(
                            event, "a second YAML document starts here, and podnet reads one per file", "take it out"
                        )
                        return
                elif kind == "AliasEvent":
                    self.alias(event)
                elif kind == "ScalarEvent":
                    self.scalar(event)
                elif kind in ("SequenceStartEvent", "MappingStartEvent"):
                    self.open(event, kind == "MappingStartEvent")
                elif kind in ("SequenceEndEvent", "MappingEndEvent"):
                    self.close()
        except _Stop:
            self.document.root = None
        except YAMLError as error:
            self.document.root = None
            self.document.problems.append(syntax_problem(error, self.document.lines))

    def note(self, event: Any, message: str, hint: str = "") -> None:
        self.document.problems.append(Problem(_span(event, self.document.lines), message, hint))

    def grow(self, event: Any, size: int) -> None:
        self.expanded += size
        if self.expanded - self.values > MAX_EXPANDED:
            self.note(event, f"aliases expand to more than {MAX_EXPANDED:,} values: this looks like an alias bomb")
            raise _Stop
        if self.values > MAX_VALUES:
            self.note(event, f"the file holds more than {MAX_VALUES:,} values", "use `replicas` for equal pods")
            raise _Stop

    def scalar(self, event: Any) -> None:
        self.values += 1
        self.grow(event, 1)
        plain = bool(event.implicit[0])
        data: object = resolve(event.value) if plain else event.value
        if event.tag is not None and event.tag != "!":
            data = self.tagged(event)
        node = Scalar(_span(event, self.document.lines), data, 1, event.value, plain)
        if event.anchor:
            self.anchors[event.anchor] = node
        self.add(node)

    def tagged(self, event: Any) -> object:
        """The value of a scalar with an explicit tag: only those of the core types mean anything."""
        name = event.tag.removeprefix(_CORE)
        value = resolve(event.value)
        fits = {
            "str": True,
            "int": isinstance(value, int) and not isinstance(value, bool),
            "bool": isinstance(value, bool),
            "null": value is None,
            "float": isinstance(value, Odd),
        }
        if event.tag.startswith(_CORE) and name in fits:
            if fits[name]:
                return event.value if name == "str" else value
            self.note(event, f"{quote(event.value)} does not fit its YAML tag !!{name}", "take the tag out")
        else:
            self.foreign_tag(event)
        return event.value

    def foreign_tag(self, event: Any) -> None:
        tag = event.tag.replace(_CORE, "!!", 1) if event.tag.startswith(_CORE) else event.tag
        self.note(event, f"the YAML tag {quote(tag)} means nothing in a topology", "take the tag out")

    def open(self, event: Any, mapping: bool) -> None:
        self.values += 1
        self.grow(event, 1)
        if len(self.stack) >= MAX_DEPTH:
            self.note(event, f"lists and mappings are nested more than {MAX_DEPTH} deep")
            raise _Stop
        if event.tag is not None and event.tag not in ("!", _CORE + ("map" if mapping else "seq")):
            self.foreign_tag(event)
        span = _span(event, self.document.lines)
        node: List | Mapping = Mapping(span, {}) if mapping else List(span, [])
        if event.anchor:
            self.anchors[event.anchor] = _OPEN
        self.stack.append(_Frame(node, event.anchor, bool(event.flow_style)))

    def close(self) -> None:
        frame = self.stack.pop()
        node = frame.node
        if isinstance(node, Mapping):
            self.merge(frame, node)
            node.data = {key: entry.node.data for key, entry in node.entries.items()}
            node.size += sum(1 + entry.node.size for entry in node.entries.values())
            if not frame.flow and node.entries:
                node.span = min(
                    node.span, next(iter(node.entries.values())).key, key=lambda s: (s.line, s.column, -s.width)
                )
        else:
            node.data = [item.data for item in node.items]
            node.size += sum(item.size for item in node.items)
        if frame.anchor:
            self.anchors[frame.anchor] = node
        self.add(node)

    def alias(self, event: Any) -> None:
        self.values += 1
        node = self.anchors.get(event.anchor)
        if node is None or node is _OPEN:
            why = "is not defined above" if node is None else "stands inside the value that it names"
            self.note(
                event, f"the alias *{event.anchor} {why}", f"define &{event.anchor} first" if node is None else ""
            )
            raise _Stop
        self.grow(event, node.size)
        self.add(node, _span(event, self.document.lines))

    def add(self, node: Node, span: Span | None = None) -> None:
        """Put a finished value where it belongs; ``span`` is the place of the alias that stands for it."""
        if not self.stack:
            self.document.root = node
            return
        frame = self.stack[-1]
        if isinstance(frame.node, List):
            frame.node.items.append(node)
        elif frame.key is None:
            frame.key = (node, span or node.span)
        else:
            key, where = frame.key
            frame.key = None
            self.enter(frame, key, where, node)

    def enter(self, frame: _Frame, key: Node, where: Span, value: Node) -> None:
        problems = self.document.problems
        assert isinstance(frame.node, Mapping)  # noqa: S101 - only mappings get keys
        if not isinstance(key, Scalar):
            problems.append(Problem(where, "a key must be a word, not a list or mapping"))
            return
        if key.plain and key.text == "<<":
            frame.merges.append((where, value))
            return
        if not isinstance(key.data, str):
            message = f"the key {quote(key.text)} is read as {reading(key.data)} by YAML"
            problems.append(
                Problem(where, message, f'quote it: "{key.text}"' if key.text else "write a key before the colon")
            )
            return
        first = frame.node.entries.get(key.data)
        if first is not None:
            message = f"the key {quote(key.data)} is already there, on line {first.key.line}"
            problems.append(Problem(where, message, "keep one of the two"))
            return
        frame.node.entries[key.data] = Entry(where, value)

    def merge(self, frame: _Frame, node: Mapping) -> None:
        """YAML 1.1's merge keys: what the mapping says itself wins, then what is merged first."""
        for where, value in frame.merges:
            for source in value.items if isinstance(value, List) else [value]:
                if not isinstance(source, Mapping):
                    self.document.problems.append(
                        Problem(where, "the merge key << takes a mapping or a list of mappings", "write <<: *anchor")
                    )
                    continue
                for key, entry in source.entries.items():
                    node.entries.setdefault(key, entry)


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is still open."""

    node: List | Mapping
    anchor: str | None
    flow: bool
    key: tuple[Node, Span] | None = None
    merges: list[tuple[Span, Node]] = field(default_factory=list)


def reading(data: object) -> str:
    """What YAML made of a scalar, in words."""
    if isinstance(data, bool):
        return f"the boolean {str(data).lower()}"
    if data is None:
        return "null"
    if isinstance(data, Odd):
        return data.reading
    return f"the number {data}" if isinstance(data, int) else "text"


def _span(event: Any, lines: list[str]) -> Span:
    start, end = event.start_mark, event.end_mark
    if type(event).__name__ in ("SequenceStartEvent", "MappingStartEvent") and not event.flow_style:
        width = 1
    elif end.line == start.line:
        width = end.column - start.column
    else:
        width = len(lines[start.line].rstrip()) - start.column if start.line < len(lines) else 1
    return Span(start.line + 1, start.column + 1, max(1, width))
