"""The tree through the schema: one pass for the problems, then the rest of the file without what is wrong.

So that all problems come at once, the checks between values run even when single values are wrong: those
are cut out of the tree first, a wrong entry as a whole where others depend on what it would have said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from pydantic import ValidationError

from podnet.topology import schema
from podnet.topology.messages import misspelt, null_problems, path_of, problem_of
from podnet.topology.problem import MAX_PROBLEMS, Problem
from podnet.topology.tree import Node, Path, replaced, without

__all__ = ["Reading", "validate"]

_ROUNDS = 12  # cutting a required key cuts its owner the next time: the schema is 6 levels deep
# keys whose absence changes nothing that another value is checked against
_LOOSE = frozenset({
    "labels", "annotations", "routes", "sysctls", "containers", "podCIDR", "addresses", "mtu", "host", "replicas",
    "verdict", "family", "source", "ttl", "latencyMs", "lossPercent", "within",
})  # fmt: skip
_STAND_INS: dict[str, object] = {
    "name": "lab", "from": "*", "to": "*", "icmp": True, "tcp": 1, "udp": 1, "sctp": 1,
    "connect": 1, "http": 1, "dns": 1, "arp": True, "nd": True,
}  # fmt: skip
# what all further checks stand on: without one of these only their own problems are told
_FATAL: frozenset[Path] = frozenset({(), ("nodes",), ("pods",), ("clients",), ("underlay",), ("networking",)})
_ENTRIES = frozenset({"nodes", "pods", "clients", "expect", "subnets", "routers"})


@dataclass(slots=True)
class Reading:
    """What could be read: the file as models beside the tree that they came from, and what was cut out.

    ``file`` is ``None`` where too little is left to check further.
    """

    file: schema.File | None
    tree: Node
    problems: list[Problem] = field(default_factory=list)
    cut: frozenset[Path] = frozenset()


def validate(tree: Node, lines: Sequence[str]) -> Reading:
    """Read the tree; problems are those of single values only."""
    problems: list[Problem] = []
    removed: set[Path] = set()
    for attempt in range(_ROUNDS):
        error = None
        try:
            file = schema.File.model_validate(tree.data)
        except ValidationError as raised:
            error = raised
        details = error.errors(include_url=False, include_input=False) if error else []
        wrong = {path_of(d["loc"])[0] for d in details}
        if attempt == 0:
            unknown = {path_of(d["loc"])[0] for d in details if d["type"] == "extra_forbidden"}
            nulls = dict(null_problems(tree, unknown))
            problems += islice(nulls.values(), MAX_PROBLEMS + 1)
            told = nulls.keys() | misspelt(tree, set(islice(unknown, MAX_PROBLEMS)))
            worded = [d for d in details if path_of(d["loc"])[0] not in told]
            problems += [problem_of(d, tree, lines) for d in worded[: MAX_PROBLEMS + 1]]
            if len(wrong) > MAX_PROBLEMS:
                break
            wrong |= set(nulls)
        if not wrong:
            return Reading(file, tree, problems, frozenset(removed))
        tree, wrong = _stand_ins(tree, wrong)
        cuts = {_cut(path, unknown) for path in wrong}
        if any(path in _FATAL for path in cuts - unknown):
            break
        removed |= cuts
        tree = without(tree, cuts) or tree
    return Reading(None, tree, problems, frozenset(removed))


def _stand_ins(tree: Node, wrong: set[Path]) -> tuple[Node, set[Path]]:
    """The tree with usable values where leaving them out would be told as a problem of its own; and the other paths."""
    rest = set(wrong)
    for path in wrong:
        key = path[0] if path == ("name",) else path[2] if path[:1] == ("expect",) and len(path) > 2 else None
        if key in _STAND_INS and isinstance(key, str):
            tree = replaced(tree, path[: path.index(key) + 1], _STAND_INS[key])
            rest.discard(path)
    return tree, rest


def _cut(path: Path, unknown: set[Path]) -> Path:
    """What to take out of the tree for a problem at this path."""
    if path in unknown:
        return path
    for end, step in enumerate(path):
        if isinstance(step, str) and step in _LOOSE and end > 1:
            return path[: end + 2]
    owner = next((end for end, step in enumerate(path) if isinstance(step, int)), None)
    if owner is not None and path[owner - 1] in _ENTRIES:
        return path[: owner + 1]
    return path[:2] if path[:1] == ("networking",) else path[:1]
