"""How much of everything a file may hold: a bound on the work of all other checks."""

from __future__ import annotations

from podnet.topology.context import Context
from podnet.topology.problem import Enough
from podnet.topology.tree import List, Path, find

__all__ = ["MAX_PODS", "check_sizes", "pod_count"]

MAX_PODS = 10_000
_MOST: dict[Path, int] = {
    ("nodes",): 10_000,
    ("pods",): MAX_PODS,
    ("clients",): 10_000,
    ("expect",): 10_000,
    ("impair",): 10_000,
    ("underlay", "subnets"): 1_000,
    ("underlay", "routers"): 1_000,
}
_MOST_EACH = {"routes": 1_000, "addresses": 1_000, "subnets": 1_000, "containers": 100}


def pod_count(context: Context) -> int:
    """How many pods the file asks for, replicas counted."""
    return sum(pod.replicas or 1 for pod in context.file.pods)


def check_sizes(context: Context) -> None:
    """Tell what there is too much of. Raises ``Enough`` then: the other checks would take too long."""
    before = len(context.problems)
    count = pod_count(context)
    if count > MAX_PODS:
        message = f"the file asks for {count:,} pods, and one lab holds at most {MAX_PODS:,}"
        context.report(("pods",), message, "lower `replicas`, or take pods out", key=True)
    for path, most in _MOST.items():
        entries, complete = find(context.tree, path)
        if not complete or not isinstance(entries, List):
            continue
        if len(entries.items) > most and path != ("pods",):
            message = f"`{path[-1]}` has {len(entries.items):,} entries, and at most {most:,} are allowed"
            context.report(path, message, key=True)
        for i in range(len(entries.items)):
            _entry(context, (*path, i))
    if len(context.problems) > before:
        raise Enough


def _entry(context: Context, path: Path) -> None:
    for key, most in _MOST_EACH.items():
        inner, complete = find(context.tree, (*path, key))
        if complete and isinstance(inner, List) and len(inner.items) > most:
            message = f"`{key}` has {len(inner.items):,} entries, and at most {most:,} are allowed"
            context.report((*path, key), message, key=True)
