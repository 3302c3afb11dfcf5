"""The results of the probes as one JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podnet.probe.results import Results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.model.lab import Lab
    from podnet.model.path import Hop
    from podnet.model.probe import Result

__all__ = ["document", "entry"]


def document(lab: Lab, results: Sequence[Result]) -> dict[str, Any]:
    """What ``podnet test -o json`` prints; every value is of a JSON type.

    ``source`` is the sender's address that the receiver saw, ``null`` where nothing arrived; ``port`` is ``null``
    where the probe has none or podnet listened on a free one; ``line`` is the entry's line in the topology file.
    """
    passed = sum(result.passed for result in results)
    return {
        "lab": lab.name,
        "summary": {"expected": len(results), "passed": passed, "failed": len(results) - passed},
        "results": [entry(result) | _path(results, index) for index, result in enumerate(results)],
    }


def _path(results: Sequence[Result], index: int) -> dict[str, Any]:
    """The way of a check's packets, where the run looked at it; times are nanoseconds since the epoch."""
    if not isinstance(results, Results) or results.paths is None:
        return {}
    way = results.paths.of(index)
    return {"path": {"request": [_hop(hop) for hop in way.request], "reply": [_hop(hop) for hop in way.reply]}}


def _hop(hop: Hop) -> dict[str, Any]:
    return {
        "place": hop.place,
        "device": hop.device,
        "direction": hop.direction,
        "at": hop.at,
        "ttl": hop.ttl,
        "source": hop.source,
        "destination": hop.target,
        "protocol": hop.protocol,
        "ports": list(hop.ports),
    }


def entry(result: Result) -> dict[str, Any]:
    """One result as JSON values."""
    check = result.check
    return {
        "from": check.source,
        "to": check.target,
        "protocol": check.protocol,
        "family": f"ipv{check.version}",
        "port": check.port or None,
        "expected": check.verdict,
        "observed": result.observed,
        "passed": result.passed,
        "source": result.source_seen or None,
        "expected_source": check.seen,
        "rtt_ms": None if result.rtt_ms is None else round(result.rtt_ms, 4),
        "detail": result.detail,
        "origin": check.origin,
        "line": check.line or None,
    }
