"""What to replay of a run: which packet stands for a failed result, and which results stand for very many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.diagnose.trail import Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podnet.model.probe import Result

__all__ = ["sampled", "subject_for", "subjects_of"]

_MOST_SUBJECTS = 300  # of 300 failures that are spread evenly, those with one cause are enough to name it

# A conversation is explained by its first packet.
_CARRIERS = {"icmp": "icmp", "tcp": "tcp", "udp": "udp", "connect": "tcp", "http": "tcp", "dns": "udp"}


def subject_for(result: Result) -> Subject | None:
    """One failed result as a packet, ``None`` where it is about something that no single packet shows."""
    check = result.check
    protocol = _CARRIERS.get(check.protocol)
    size = 0
    if result.observed == check.verdict and check.bounds is not None:
        if check.bounds.mtu is None:
            return None  # it is about time, loss or the way: the packets got through
        size = check.bounds.mtu
    if protocol is None:
        return None
    port = 0 if check.listen else check.port
    return Subject(
        check.source, check.target, protocol, check.version, port, size, seen=check.seen, expected=check.verdict
    )


def subjects_of(results: Iterable[Result]) -> list[Subject]:
    """What to replay for failed results, in their order, each once."""
    return list(dict.fromkeys(s for r in results if not r.passed and (s := subject_for(r)) is not None))


def sampled(subjects: Sequence[Subject]) -> Sequence[Subject]:
    """Of very many subjects some that are spread evenly."""
    return subjects[:: -(-len(subjects) // _MOST_SUBJECTS)] if subjects else []
