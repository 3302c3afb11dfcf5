"""pydantic's errors in the words of somebody who writes a topology, at the place in the text."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from podnet.topology import schema
from podnet.topology.problem import Problem, Span, closest, did_you_mean, quote
from podnet.topology.source import reading
from podnet.topology.tree import List, Mapping, Node, Odd, Path, Scalar, find, key_span

__all__ = ["misspelt", "narrow", "null_problems", "path_of", "problem_of", "subject"]

_NOUNS = {
    "nodes": "node",
    "pods": "pod",
    "clients": "client",
    "subnets": "subnet",
    "routers": "router",
    "containers": "container",
    "routes": "route",
    "env": "environment variable",
    "expect": "expectation",
}

# keys that people write from other formats -> what to do in this one
_FOREIGN = {
    "apiVersion": "a topology is no Kubernetes manifest: it starts with `name`, `nodes` and `pods`",
    "kind": "a topology is no Kubernetes manifest: it starts with `name`, `nodes` and `pods`",
    "metadata": "a topology is no Kubernetes manifest: a pod's name, labels and annotations stand directly in it",
    "spec": "a topology is no Kubernetes manifest: a pod's node and containers stand directly in it",
    "image": "containers run programs of this machine: write `command`",
    "serviceSubnet": "podnet has no Services yet",
    "kubeProxyMode": "podnet has no Services yet",
    "services": "podnet has no Services yet",
    "dnsSearch": "podnet has no cluster DNS yet",
    "disableDefaultCNI": "podnet itself is the pod network: there is nothing to disable",
    "topology": "`nodes` and `pods` stand at the top of the file",
    "valueFrom": "write the `value` itself",
    "nodeName": "write `node`",
    "role": "nodes of podnet have no roles: every node takes pods",
}

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (`key: value`)",
    "model_type": "a mapping (`key: value`)",
    "model_attributes_type": "a mapping (`key: value`)",
}


def path_of(loc: Sequence[str | int]) -> tuple[Path, bool]:
    """Where in the file pydantic's location is, and whether it is a key instead of its value."""
    is_key = bool(loc) and loc[-1] == "[key]"
    path = tuple(p for p in loc if not (isinstance(p, str) and p.startswith("=")))
    return (path[:-1] if is_key else path), is_key


def subject(root: Node, path: Sequence[str | int]) -> str:
    """What the path leads to, in words: ``pod "web"``, ``networking``, ``the file``."""
    words = "the file"
    for end, step in enumerate(path, 1):
        node, complete = find(root, path[:end])
        if not complete or isinstance(node, Scalar):
            break
        before = path[end - 2] if end > 1 else ""
        if isinstance(step, int) and before in _NOUNS:
            name = node.entries.get("name") if isinstance(node, Mapping) else None
            known = name is not None and isinstance(name.node.data, str)
            noun = _NOUNS[str(before)]
            words = f"{noun} {quote(str(name.node.data))}" if name is not None and known else f"this {noun}"
        elif isinstance(node, Mapping) and isinstance(step, str):
            words = f"`{step}`" if words == "the file" or words.startswith("`") else f"`{step}` of {words}"
    return words


def narrow(span: Span, lines: Sequence[str], part: str) -> Span:
    """The place of ``part`` inside a value's place, where it stands there as it is."""
    if part and span.line <= len(lines):
        start = lines[span.line - 1].find(part, span.column - 1, span.column - 1 + span.width)
        if start >= 0:
            return Span(span.line, start + 1, len(part))
    return span


_EMPTY = "write a value, or take the line out"


def null_problems(root: Node, skip: set[Path]) -> Iterator[tuple[Path, Problem]]:
    """A problem for every key or entry without a value: no key of a topology takes none."""
    pending: list[tuple[Path, Node]] = [((), root)]
    while pending:
        path, node = pending.pop()
        if path in skip:
            continue
        if isinstance(node, Mapping):
            pending += reversed([((*path, k), e.node) for k, e in node.entries.items()])
        elif isinstance(node, List):
            pending += reversed([((*path, i), n) for i, n in enumerate(node.items)])
        elif isinstance(node, Scalar) and node.data is None and path:
            yield path, _null(root, path, node)


def _null(root: Node, path: Path, node: Scalar) -> Problem:
    span = key_span(root, path) or node.span
    name = f"`{path[-1]}`" if isinstance(path[-1], str) else "this entry"
    if node.text:
        return Problem(
            node.span, f"{quote(node.text)} is read as null by YAML, and {name} takes a value", _quoted(node.text)
        )
    return Problem(span, f"{name} has no value", _EMPTY)


def _quoted(text: str) -> str:
    return f"quote it: {json.dumps(text, ensure_ascii=False)}"


def problem_of(error: ErrorDetails, root: Node, lines: Sequence[str]) -> Problem:
    """One error of pydantic as a problem of the file."""
    path, is_key = path_of(error["loc"])
    kind = error["type"]
    node, _ = find(root, path)
    span = node.span
    ctx: dict[str, Any] = error.get("ctx", {})
    if is_key or kind == "extra_forbidden":
        span = key_span(root, path) or span
    if kind == "format":
        whole = isinstance(node, Scalar) and ctx["part"] == node.text
        return Problem(span if whole else narrow(span, lines, ctx["part"]), ctx["message"], ctx["help"])
    if kind == "missing":
        return Problem(span, f"{subject(root, path[:-1])} has no `{path[-1]}`", _example(path))
    if kind == "extra_forbidden":
        return Problem(span, *_unknown_key(root, path))
    if kind in _WANTED:
        return Problem(span, *_wrong_type(kind, path, node))
    if kind == "literal_error":
        return Problem(span, *_wrong_word(path, node, str(ctx["expected"])))
    return Problem(span, *_out_of_bounds(kind, path, node, ctx))


def _example(path: Path) -> str:
    examples = {
        "node": "write `node: NAME`, the node that the pod runs on",
        "nodes": "write at least one: `nodes: [{name: node1}]`",
        "command": 'write it as a list: `command: [sleep, "60"]`',
        "cidr": "write it like `cidr: 198.18.1.0/24`",
        "dst": "write it like `dst: 203.0.113.0/24`",
        "subnets": "a router joins two or more: `subnets: [left, right]`",
    }
    return examples.get(str(path[-1]), f"write `{path[-1]}: ...`")


def _unknown_key(root: Node, path: Path) -> tuple[str, str]:
    key = str(path[-1])
    owner = subject(root, path[:-1])
    model = _model_at(path[:-1])
    own = _keys(model) if model else []
    message = f"{owner} has no key `{quote(key)[1:-1]}`" if owner != "the file" else f"unknown key `{quote(key)[1:-1]}`"
    homes = [name for name, other in _SECTIONS if key in _keys(other)]
    if homes:
        return message, f"`{key}` is a key of {' and of '.join(homes[:3])}"
    if key in _FOREIGN:
        return message, _FOREIGN[key]
    return message, did_you_mean(key, own, "the keys are")


def misspelt(root: Node, unknown: set[Path]) -> set[Path]:
    """The paths of the keys that unknown keys were probably meant to be: that those are missing needs no telling."""
    found = set()
    for path in unknown:
        model = _model_at(path[:-1])
        meant = closest(str(path[-1]), _keys(model)) if model else None
        parent, _ = find(root, path[:-1])
        if meant is not None and isinstance(parent, Mapping) and meant not in parent.entries:
            found.add((*path[:-1], meant))
    return found


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("the file itself", schema.File),
    ("`networking`", schema.Networking),
    ("`underlay`", schema.Underlay),
    ("a subnet", schema.Subnet),
    ("a node", schema.Node),
    ("a pod", schema.Pod),
    ("a container", schema.Container),
    ("a client", schema.Client),
    ("a route", schema.Route),
    ("an entry of `expect`", schema.Expectation),
)


def _model_at(path: Path) -> type[BaseModel] | None:
    model: type[BaseModel] | None = schema.File
    for step in path:
        if isinstance(step, str) and model is not None:
            field = next((f for n, f in model.model_fields.items() if step in (f.alias, n)), None)
            model = next(_models(field.annotation), None) if field else None
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _name(path: Path) -> str:
    """How a message calls the value: by its key, or as an entry of its list."""
    if path and isinstance(path[-1], str):
        return f"`{quote(path[-1])[1:-1]}`"
    if len(path) > 1 and path[-2] in _NOUNS:
        return f"an entry of `{path[-2]}`"
    return f"an entry of `{path[-2]}`" if len(path) > 1 else "the file"


def _wrong_type(kind: str, path: Path, node: Node) -> tuple[str, str]:
    name, wanted = _name(path), _WANTED[kind]
    if not isinstance(node, Scalar):
        found = "a mapping" if isinstance(node, Mapping) else "a list"
        hint = 'start each entry with "- "' if kind == "list_type" else ""
        return f"{name} must be {wanted}, found {found}", hint
    if kind == "string_type":
        return f"{quote(node.text)} is read as {reading(node.data)} by YAML, and {name} must be text", _quoted(
            node.text
        )
    if kind == "int_type":
        return _no_number(name, node)
    found = f"the text {quote(node.text)}" if isinstance(node.data, str) else f"{reading(node.data)}"
    hint = ""
    if kind == "list_type":
        hint = _as_list(node.text)
    elif kind == "bool_type":
        hint = "write true or false" + (", without quotes" if node.text.lower() in ("true", "false") else "")
    elif path and isinstance(path[-1], int) and isinstance(node.data, str):
        hint = (
            f"write `- name: {node.text}`"
            if re.fullmatch("[-a-z0-9]{1,63}", node.text) and path[-2] != "expect"
            else ""
        )
    return f"{name} must be {wanted}, found {found}", hint


def _no_number(name: str, node: Scalar) -> tuple[str, str]:
    if isinstance(node.data, Odd):
        hint = "write it in decimal" if "(" in node.data.reading or node.data.reading.startswith("the") else ""
        return f"{name} must be a whole number, and {quote(node.text)} is read as {node.data.reading} by YAML", hint
    if isinstance(node.data, str):
        decimal = re.fullmatch(r"\s*(\d{1,19})\s*", node.text, re.ASCII)
        hint = f"write {decimal.group(1)} without quotes" if decimal and not node.plain else ""
        return f"{name} must be a whole number, found the text {quote(node.text)}", hint
    return f"{name} must be a whole number, found {reading(node.data)}", ""


def _as_list(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError:  # an open quote
        words = text.split()
    shown = ", ".join(w if re.fullmatch("[A-Za-z./_-][A-Za-z0-9./_=-]*", w) else json.dumps(w) for w in words)
    return f"write [{shown}]" if words and len(shown) < 200 else "write it as a list: [first, second]"


def _wrong_word(path: Path, node: Node, expected: str) -> tuple[str, str]:
    words = re.findall("'([^']*)'", expected)
    name = _name(path)
    if not isinstance(node, Scalar):
        return f"{name} must be one of {', '.join(words)}", ""
    if path[-1] == "fabric":
        exists = f"there are {', '.join(words[:-1])} and {words[-1]}"
        return f"there is no fabric {quote(node.text)}", exists
    return f"{quote(node.text)} is no {name}", did_you_mean(node.text, words, "it is one of")


def _out_of_bounds(kind: str, path: Path, node: Node, ctx: dict[str, Any]) -> tuple[str, str]:
    name = _name(path)
    if kind in ("greater_than_equal", "less_than_equal"):
        low, high = _bounds(path)
        found = quote(node.text)[1:-1] if isinstance(node, Scalar) else "it"
        return f"{name} must be from {low} to {high}, found {found}", ""
    if kind == "too_short":
        least = ctx["min_length"]
        found = f"found {ctx['actual_length']}" if ctx["actual_length"] else "found none"
        return f"{name} needs at least {least} {'entry' if least == 1 else 'entries'}, {found}", ""
    return f"{name} has a value that does not fit", ""


def _bounds(path: Path) -> tuple[int, int]:
    keys = [p for p in path if isinstance(p, str)]
    if keys[-1] in ("tcp", "udp", "sctp", "connect", "http", "dns"):
        return 1, 65535
    model = _model_at(path[:-1])
    field = next(f for n, f in model.model_fields.items() if keys[-1] in (f.alias, n)) if model else None
    low, high = 0, 0
    for meta in _metadata(field.metadata if field else [], field.annotation if field else None):
        low = getattr(meta, "ge", low)
        high = getattr(meta, "le", high)
    return low, high


def _metadata(metadata: Sequence[Any], annotation: Any) -> Iterator[Any]:
    for meta in metadata:
        yield meta
        yield from getattr(meta, "metadata", ())
    for inner in get_args(annotation):
        yield from _metadata(getattr(inner, "__metadata__", ()), inner)
