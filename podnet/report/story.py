"""A traced probe for people: every device on the way, and what changed there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.model.path import Path
    from podnet.probe.trace import Change, Step, Trace

__all__ = ["path_line", "story", "trace_document"]


def story(trace: Trace) -> str:
    """The request's way, the reply's, and the way that the model predicts."""
    result, check = trace.result, trace.result.check
    what = f"{check.protocol}{f'/{check.port}' if check.port else ''} ipv{check.version}"
    took = f" in {result.rtt_ms:.3f} ms" if result.rtt_ms is not None else ""
    detail = f" ({result.detail})" if result.detail else ""
    lines = [f"{check.source} -> {check.target} {what}: {result.observed}{took}{detail}"]
    width = max((len(_where(step)) for step in (*trace.request, *trace.reply)), default=0)
    for title, steps in (("request", trace.request), ("reply", trace.reply)):
        lines += ["", f"{title}: {_none(title)}" if not steps else f"{title}:"]
        before: Step | None = None
        for step in steps:
            lines.append(f"  {step.us:9.1f} us  {_where(step):<{width}}  {_told(step, before)}".rstrip())
            for change in step.changes:
                lines += [f"{'':14}  {'':<{width}}  {line}" for line in _nat(change, title)]
            before = step
        if steps and steps[-1].hop.place != (check.target if title == "request" else check.source):
            lines.append(f"  lost after {_where(steps[-1])}")
    lines += ["", *_prediction(trace)]
    return "\n".join(lines)


def _none(title: str) -> str:
    return "nothing left the sender" if title == "request" else "none was seen"


def _where(step: Step) -> str:
    return f"{step.hop.place} {step.hop.device} {step.hop.direction}"


def _told(step: Step, before: Step | None) -> str:
    """All of the headers where the way begins, then only what differs from the step before."""
    hop, parts = step.hop, []
    old = before.hop if before else None
    if old is None or (old.source, old.target) != (hop.source, hop.target):
        parts.append(f"{hop.source} > {hop.target}")
    if old is None and hop.protocol in (6, 17):
        parts.append(f"ports {hop.ports[0]} > {hop.ports[1]}")
    if old is None or old.ttl != hop.ttl:
        parts.append(f"ttl {hop.ttl}")
    if any(step.macs) and (before is None or before.macs != step.macs):
        parts.append(f"mac {step.macs[0]} > {step.macs[1]}")
    if before is not None and step.outer != before.outer:
        parts += [f"in {each}" for each in step.outer] or ["unpacked"]
    if before is None or step.size != before.size:
        parts.append(f"{step.size} bytes")
    if step.note and (before is None or before.note != step.note):
        parts.append(step.note)
    return ", ".join(parts)


def _nat(change: Change, title: str) -> list[str]:
    lines = [f"{change.what} {change.before} became {change.after}"]
    if title == "reply":
        lines[0] += ", as conntrack undoes it for replies"
    elif len(change.rules) == 1:
        lines.append(f"by the only NAT rule here: {change.rules[0]}")
    else:
        lines += [f"by one of these rules: {rule}" for rule in change.rules]
    if change.entry:
        lines.append(f"conntrack: {change.entry}")
    return lines


def _prediction(trace: Trace) -> list[str]:
    seen = " > ".join(trace.seen) or "nothing"
    if trace.predicted is None:
        return [f"predicted: no way; seen: {seen}"]
    predicted = " > ".join(trace.predicted)
    if trace.seen == trace.predicted:
        same = trace.seen_back == tuple(reversed(trace.seen))
        back = "; the reply came the same way" if same else ""
        if trace.seen_back and not same:
            back = f"; the reply came {' > '.join(trace.seen_back)}"
        return [f"predicted: {predicted}; seen: the same{back}"]
    return [f"predicted: {predicted}", f"seen:      {seen}"]


def path_line(path: Path) -> str:
    """A path in one line: where the packet was seen, each host with its devices."""
    way = _devices(path.request)
    if not path.request:
        return "nothing left the sender"
    if not path.reply:
        return f"{way}; no reply seen"
    took = (path.request[-1].at - path.request[0].at) / 1000
    back = path.places(reply=True)
    returned = "reply the same way" if back == tuple(reversed(path.places())) else f"reply {_devices(path.reply)}"
    return f"{way} ({took:.0f} us); {returned}"


def _devices(hops: Sequence[Any]) -> str:
    parts: list[str] = []
    place = ""
    for hop in hops:
        if hop.place != place:
            parts.append(f"{hop.place} {hop.device}")
            place = hop.place
        elif parts[-1].split()[-1] != hop.device:
            parts[-1] += f" {hop.device}"
    return " > ".join(parts)


def trace_document(trace: Trace) -> dict[str, Any]:
    """What ``podnet trace -o json`` prints; times are microseconds since the first step."""
    from podnet.report.json import entry

    return {
        **entry(trace.result),
        "request": [_step(step) for step in trace.request],
        "reply": [_step(step) for step in trace.reply],
        "predicted": list(trace.predicted) if trace.predicted is not None else None,
        "seen": list(trace.seen),
        "seen_back": list(trace.seen_back),
    }


def _step(step: Step) -> dict[str, Any]:
    hop = step.hop
    return {
        "place": hop.place,
        "device": hop.device,
        "direction": hop.direction,
        "us": round(step.us, 1),
        "source": hop.source,
        "destination": hop.target,
        "ports": list(hop.ports),
        "ttl": hop.ttl,
        "macs": list(step.macs) if any(step.macs) else None,
        "encapsulation": list(step.outer),
        "bytes": step.size,
        "changes": [
            {"what": c.what, "before": c.before, "after": c.after, "conntrack": c.entry, "rules": list(c.rules)}
            for c in step.changes
        ],
        "note": step.note,
    }
