"""Checks of names: their form, that each is there once, and that what is named exists."""

from __future__ import annotations

import re

from podnet.topology.context import Context, Declaration
from podnet.topology.formats import NAME_PATTERN
from podnet.topology.problem import Span, did_you_mean, quote
from podnet.topology.tree import List, Mapping, Node, Path

__all__ = ["check_names", "check_references"]

_LABEL = re.compile(NAME_PATTERN[1:-1])
_RESERVED = {
    "underlay": "the namespace of the underlay's switches",
    "pods": "all pods in `expect`",
    "nodes": "all nodes in `expect`",
    "clients": "all clients in `expect`",
}


def check_names(context: Context) -> None:
    """Form and uniqueness of all names; the number of pods and of host nodes."""
    file = context.file
    if context.intact("name"):
        _form(context, context.span(("name",)), file.name, 40)
    _targets(context)
    _unique(
        context, "subnet", [(("underlay", "subnets", i, "name"), s.name) for i, s in enumerate(file.underlay.subnets)]
    )
    for i, pod in enumerate(file.pods):
        names: list[tuple[Path, str]] = [
            (("pods", i, "containers", j, "name"), c.name) for j, c in enumerate(pod.containers)
        ]
        _unique(context, f"container of pod {quote(pod.name)}", names)
        for j, container in enumerate(pod.containers):
            if isinstance(container.env, list):
                _environment(context, ("pods", i, "containers", j, "env"), [e.name for e in container.env])
    hosts = [i for i, node in enumerate(file.nodes) if node.host]
    for i in hosts[1:]:
        first = file.nodes[hosts[0]].name
        message = (
            f"node {quote(file.nodes[i].name)} cannot be the machine's own namespace: node {quote(first)} is it already"
        )
        context.report(("nodes", i, "host"), message, "at most one node has `host: true`")


def _form(context: Context, span: Span, name: str, limit: int = 63) -> bool:
    if len(name) > limit:
        context.note(span, f"{quote(name)} is {len(name)} characters long, and {limit} are allowed", "shorten it")
        return False
    if _LABEL.fullmatch(name):
        return True
    fitting = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    rule = 'lower-case letters, digits and "-", with a letter or digit at both ends'
    context.note(span, f"{quote(name)} is no name: {rule}", f"write {fitting}" if fitting else "")
    return False


def _unique(context: Context, what: str, names: list[tuple[Path, str]]) -> None:
    lines: dict[str, int] = {}
    for path, name in names:
        _form(context, context.span(path), name)
        if name in lines:
            context.report(
                path, f"there is a {what} {quote(name)} already, on line {lines[name]}", "give it another name"
            )
        else:
            lines[name] = context.span(path).line


def _environment(context: Context, path: Path, names: list[str]) -> None:
    seen = set[str]()
    for k, name in enumerate(names):
        if name in seen:
            context.report(
                (*path, k, "name"), f"the environment variable {quote(name)} is set twice", "keep one of the two"
            )
        seen.add(name)


def _targets(context: Context) -> None:
    taken: dict[str, tuple[str, int]] = {}
    for declared in sorted(context.declared.entries, key=lambda d: d.span):
        kind, name, span, replicas = declared.kind, declared.name, declared.span, declared.replicas
        if not _form(context, span, name, 63 if replicas is None else 63 - len(f"-{replicas - 1}")):
            continue
        if name in _RESERVED:
            message = f"{kind} {quote(name)}: this name stands for {_RESERVED[name]}"
            context.note(span, message, "give it another name")
            continue
        replicated = [f"{name}-{r}" for r in range(replicas)] if replicas else []
        clash = next((n for n in (name, *replicated) if n in taken), None)
        if clash is not None:
            other, line = taken[clash]
            which = f"{quote(clash)}, one of the replicas of {quote(name)}," if clash != name else quote(name)
            message = f"{which} is the name of a {other} already, on line {line}"
            context.note(span, message, "nodes, pods, clients and routers share their names: give it another")
        for n in (name, *replicated):
            taken.setdefault(n, (kind, span.line))


def check_references(context: Context) -> None:
    """Every node and subnet that an entry names is there."""
    declared = context.declared
    nodes = dict.fromkeys(declared.of_kind("node"))
    subnets = dict.fromkeys(declared.subnets or [s.name for s in context.subnets])
    for one in declared.entries:
        what = f"{one.kind} {quote(one.name)}"
        if one.kind == "pod":
            _known(context, one.entry, "node", f"{what} runs on node", nodes)
        elif one.kind == "router":
            _joined(context, one, what, subnets)
        else:
            _known(context, one.entry, "subnet", f"{what} stands in subnet", subnets)


def _joined(context: Context, router: Declaration, what: str, subnets: dict[str, None]) -> None:
    listed = router.entry.entries.get("subnets")
    items = listed.node.items if listed and isinstance(listed.node, List) else []
    seen = set[str]()
    for item in items:
        _exists(context, item, f"{what} joins subnet", subnets)
        if isinstance(item.data, str):
            if item.data in seen:
                context.note(item.span, f"{what} joins subnet {quote(item.data)} twice", "name each once")
            seen.add(item.data)


def _known(context: Context, entry: Mapping, key: str, what: str, choices: dict[str, None]) -> None:
    if key in entry.entries:
        _exists(context, entry.entries[key].node, what, choices)


def _exists(context: Context, node: Node, what: str, choices: dict[str, None]) -> None:
    name = node.data
    if not isinstance(name, str) or name in choices:
        return
    kind = context.declared.targets.get(name)
    message = f"{what} {quote(name)}, which is a {kind}" if kind else f"{what} {quote(name)}, which does not exist"
    context.note(node.span, message, did_you_mean(name, list(choices)))
