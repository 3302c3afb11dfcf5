"""The file as a tree in which every value knows its place in the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from podnet.topology.problem import Span

__all__ = ["Entry", "List", "Mapping", "Node", "Odd", "Path", "Scalar", "find", "key_span", "replaced", "without"]

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Odd:
    """A plain scalar that YAML reads as something no topology key takes: a date, 0x1F, 10:20, 1.5.

    ``reading`` says what YAML makes of it. It stands in the data in place of a value, so it fits no type.
    """

    text: str
    reading: str


@dataclass(slots=True)
class Node:
    """A value: ``data`` is it as plain Python, ``size`` the number of values in it with aliases expanded."""

    span: Span
    data: object = None
    size: int = 1


@dataclass(slots=True)
class Scalar(Node):
    """A single value; ``text`` is what it says once quotes and escapes are undone."""

    text: str = ""
    plain: bool = True


@dataclass(slots=True)
class List(Node):
    """A sequence of values."""

    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Entry:
    """The place of one key of a mapping, and its value."""

    key: Span
    node: Node


@dataclass(slots=True)
class Mapping(Node):
    """Values by key, in file order."""

    entries: dict[str, Entry] = field(default_factory=dict)


def step(node: Node, key: str | int) -> Node | None:
    """The child of that key or index."""
    if isinstance(node, Mapping) and isinstance(key, str):
        entry = node.entries.get(key)
        return entry.node if entry else None
    if isinstance(node, List) and isinstance(key, int) and 0 <= key < len(node.items):
        return node.items[key]
    return None


def find(root: Node, path: Sequence[str | int]) -> tuple[Node, bool]:
    """The deepest value on the path, and whether that is its end."""
    node = root
    for key in path:
        child = step(node, key)
        if child is None:
            return node, False
        node = child
    return node, True


def key_span(root: Node, path: Sequence[str | int]) -> Span | None:
    """The place of the last key of the path, ``None`` where it is no key of a mapping."""
    if not path:
        return None
    parent, complete = find(root, path[:-1])
    last = path[-1]
    if complete and isinstance(parent, Mapping) and isinstance(last, str) and last in parent.entries:
        return parent.entries[last].key
    return None


def without(node: Node, paths: Iterable[Path]) -> Node | None:
    """A copy of the tree without the values at these paths; ``None`` where that is the whole of it."""
    below: dict[str | int, list[Path]] = {}
    for path in paths:
        if not path:
            return None
        below.setdefault(path[0], []).append(path[1:])
    if not below:
        return node
    if isinstance(node, Mapping):
        entries = {}
        for key, entry in node.entries.items():
            child = without(entry.node, below[key]) if key in below else entry.node
            if child is not None:
                entries[key] = Entry(entry.key, child)
        return Mapping(node.span, {k: e.node.data for k, e in entries.items()}, node.size, entries)
    if isinstance(node, List):
        items = [without(n, below[i]) if i in below else n for i, n in enumerate(node.items)]
        kept = [n for n in items if n is not None]
        return List(node.span, [n.data for n in kept], node.size, kept)
    return node


def replaced(node: Node, path: Path, data: object) -> Node:
    """A copy of the tree with a scalar of that value at the path; the last key may be new."""
    if not path:
        return Scalar(node.span, data, 1, str(data))
    head = path[0]
    if isinstance(node, Mapping) and isinstance(head, str):
        old = node.entries.get(head, Entry(node.span, node))
        entries = node.entries | {head: Entry(old.key, replaced(old.node, path[1:], data))}
        return Mapping(node.span, {k: e.node.data for k, e in entries.items()}, node.size, entries)
    if isinstance(node, List) and isinstance(head, int) and 0 <= head < len(node.items):
        items = [replaced(n, path[1:], data) if i == head else n for i, n in enumerate(node.items)]
        return List(node.span, [n.data for n in items], node.size, items)
    return node
