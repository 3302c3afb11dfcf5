"""A run, and what checks ask besides of packets that do get through: their way, size, time, loss; and patience."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from podnet.model.probe import Check, Result
from podnet.probe.engine import run
from podnet.probe.plan import Checks
from podnet.probe.pmtu import largest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from podnet.model.lab import Lab
    from podnet.model.path import Path
    from podnet.probe.results import Results

__all__ = ["verify"]

_FOR_LATENCY, _FOR_LOSS = 20, 100  # probes
# Seconds that an answer has at least. Not what the first probe took alone: it may have been sent again meanwhile, and
# then its time counts from the last of them.
_SAMPLED_WITHIN = 1.0
_PAUSE = 0.2  # seconds between two looks at what is to become right


def verify(
    lab: Lab,
    checks: Sequence[Check],
    *,
    timeout: float = 1.0,
    progress: Callable[[int], None] | None = None,
    namespaces: Sequence[str] = (),
    tapped: bool = False,
    meanwhile: Callable[[Results], None] | None = None,
) -> Results:
    """``run``, and every bound of the checks. ``namespaces`` are all of the lab's, for the way of packets.

    ``meanwhile`` is as in ``run``.

    What has a ``within`` and is not as expected is asked again until it is, or the time is over. Raises as ``run``.
    """
    planned = Checks.of(lab, checks)
    bounded = {at for at, kind in enumerate(planned.kinds) if kind.bounds is not None}
    followed = any((kind.bounds and kind.bounds.via) is not None for kind in planned.kinds)
    started = time.monotonic()
    results = run(
        lab, planned, timeout=timeout, progress=progress, tapped=namespaces if tapped or followed else (),
        meanwhile=meanwhile,
    )  # fmt: skip
    if not bounded:
        return results
    asked = [index for index, kind in enumerate(planned.kind) if kind in bounded]
    _judge(lab, results, asked, {index: results[index] for index in asked}, results)
    while late := _late(results, asked, time.monotonic() - started):
        time.sleep(_PAUSE)
        again = run(lab, planned.chosen(late), timeout=timeout, tapped=namespaces if followed else ())
        fresh = dict(zip(late, again, strict=True))
        _judge(lab, results, late, fresh, again)
    return results


def _late(results: Results, asked: Iterable[int], elapsed: float) -> list[int]:
    """What is not as expected, and still has time to become so."""
    return [
        index
        for index in asked
        if not results.passed[index] and (bounds := results.checks[index].bounds) and bounds.within > elapsed
    ]


def _judge(lab: Lab, into: Results, indexes: Sequence[int], fresh: dict[int, Result], of: Results) -> None:
    """Put results with their bounds judged in their places; ``of`` is the run that ``fresh`` is of."""
    arrived = [index for index in indexes if fresh[index].observed == "reach" and fresh[index].passed]
    sizes = _sizes(lab, into.checks, arrived)
    times = _samples(lab, into.checks, {index: fresh[index].rtt_ms or 0.0 for index in arrived})
    for place, index in enumerate(indexes):
        result = fresh[index]
        if index in arrived:
            path = of.paths.of(index if of is into else place) if of.paths is not None else None
            wrong = _wrong(lab, result, path, sizes.get(index), times.get(index))
            if wrong:
                result = replace(result, passed=False, detail="; ".join(wrong))
        into.put(index, result)


def _wrong(
    lab: Lab, result: Result, path: Path | None, size: tuple[int, str] | None, sample: list[float | None] | None
) -> list[str]:
    """What is not within the bounds of a check that arrived, in words."""
    bounds = result.check.bounds
    assert bounds is not None  # noqa: S101 - only such checks come here
    wrong = []
    if bounds.ttl is not None and result.ttl != bounds.ttl:
        wrong.append(f"arrived with TTL {result.ttl}, expected {bounds.ttl}")
    if bounds.via is not None and path is not None:
        hosts = {target.name for target in lab.targets if target.kind in ("node", "router")}
        ends = {result.check.source, result.check.target}
        seen = tuple(place for place in path.places() if place in hosts and place not in ends)
        if seen != bounds.via:
            wrong.append(f"went via {_listed(seen)}, expected {_listed(bounds.via)}")
    if bounds.mtu is not None and size is not None and size[0] != bounds.mtu:
        wrong.append(f"the largest packet that passes has {size[0]} bytes{size[1]}, expected {bounds.mtu}")
    if sample is not None:
        came = [each for each in sample if each is not None]
        lost = 1 - len(came) / len(sample)
        if bounds.loss is not None and lost > bounds.loss:
            wrong.append(f"{lost:.0%} of {len(sample)} packets were lost, expected at most {bounds.loss:.0%}")
        if bounds.latency_ms is not None and not came:
            wrong.append(f"none of {len(sample)} answers came in time, expected at most {bounds.latency_ms:g} ms")
        elif bounds.latency_ms is not None and median(came) > bounds.latency_ms:
            wrong.append(
                f"the median round trip takes {median(came):.3f} ms, expected at most {bounds.latency_ms:g} ms"
            )
    return wrong


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nobody"


def _sizes(lab: Lab, checks: Checks, indexes: Iterable[int]) -> dict[int, tuple[int, str]]:
    """The largest packet of each check that asks for it, and who limits it."""
    asking = [index for index in indexes if (bounds := checks[index].bounds) and bounds.mtu is not None]
    pairs = [(check.source, check.target, check.version) for check in (checks[index] for index in asking)]
    sizes = {}
    for index, one in zip(asking, largest(lab, pairs) if pairs else [], strict=True):
        hole = ", larger ones vanish without an ICMP error" if one.black_hole else ""
        sizes[index] = (one.size, f" (limit of {one.limit})" if one.limit else hole)
    return sizes


def _samples(lab: Lab, checks: Checks, seen: Mapping[int, float]) -> dict[int, list[float | None]]:
    """Round trips in milliseconds of many probes, ``None`` for each that was lost, of the checks that bound them.

    ``seen`` is how long the one of each check took that was to be asked.
    """
    samples: dict[int, list[float | None]] = {}
    for index, rtt_ms in seen.items():
        check = checks[index]
        bounds = check.bounds
        if bounds is None or (bounds.latency_ms is None and bounds.loss is None):
            continue
        count = _FOR_LATENCY if bounds.loss is None else _FOR_LOSS
        # One attempt each: a second one would hide the loss of the first. What takes long is not lost.
        one = replace(check, bounds=None)
        timeout = max(_SAMPLED_WITHIN, 2 * (bounds.latency_ms or 0) / 1000, 3 * rtt_ms / 1000)
        samples[index] = [result.rtt_ms for result in run(lab, [one] * count, timeout=timeout, attempts=1)]
    return samples
