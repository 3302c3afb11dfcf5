"""All checks of a document, in the order in which one stands on the other."""

from __future__ import annotations

from podnet.topology.context import Context, Declared
from podnet.topology.expect import read_expect
from podnet.topology.fabrics import check_fabric, check_mtu
from podnet.topology.hosts import check_hosts, check_joined, check_pod_addresses
from podnet.topology.identity import check_names, check_references
from podnet.topology.impair import check_impair
from podnet.topology.problem import Enough
from podnet.topology.ranges import check_capacity, check_ranges
from podnet.topology.routes import check_routes
from podnet.topology.sizes import check_sizes
from podnet.topology.source import Document
from podnet.topology.tree import Mapping
from podnet.topology.validate import validate

__all__ = ["check"]

_CHECKS = (
    check_sizes,
    check_names,
    check_references,
    check_ranges,
    check_capacity,
    check_fabric,
    check_mtu,
    check_hosts,
    check_pod_addresses,
    check_joined,
    check_routes,
    check_impair,
    read_expect,
)


def check(document: Document) -> Context | None:
    """Add all problems to the document; the context is what ``resolve`` needs, ``None`` where too little is left."""
    if not isinstance(document.root, Mapping):
        return None
    reading = validate(document.root, document.lines)
    document.problems += reading.problems
    if reading.file is None:
        return None
    context = Context(reading.file, reading.tree, document.lines, Declared.of(document.root), reading.cut)
    try:
        for one in _CHECKS:
            one(context)
    except Enough:
        pass  # they are in the context
    document.problems += context.problems
    return context
