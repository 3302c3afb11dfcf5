"""Diagnoses for people and as JSON: one paragraph for each cause, however many pairs it broke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podnet.report.blame import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.diagnose.cause import Cause, Diagnosis
    from podnet.report.blame import Blamed, Key

__all__ = ["causes", "document", "paragraphs"]

_MOST_PAIRS = 6


def paragraphs(diagnoses: Sequence[Diagnosis]) -> str:
    """The causes, those first that broke most; then what is not explained. Empty without any diagnosis."""
    groups = _grouped(diagnoses)
    explained = sorted((g for cause, g in groups.items() if cause is not None), key=len, reverse=True)
    parts = [_paragraph(group) for group in explained]
    if None in groups:
        parts.append(_unexplained(groups[None]))
    return "\n\n".join(parts)


def _grouped(diagnoses: Sequence[Diagnosis]) -> dict[Key | None, list[Diagnosis]]:
    groups: dict[Key | None, list[Diagnosis]] = {}
    for each in diagnoses:
        groups.setdefault(None if each.cause is None else key_of(each.cause), []).append(each)
    return groups


def _paragraph(group: list[Diagnosis]) -> str:
    cause = group[0].cause
    if cause is None:
        return ""
    lines = [f"WHY {cause.text} [{cause.kind}]"]
    texts = list(dict.fromkeys(d.cause.text for d in group if d.cause))
    lines.append(f"  breaks    {_pairs(group)}")
    if len(texts) > 1:
        lines += [f"            likewise: {text}" for text in texts[1:4]]
    lines += [f"  evidence  {text}" for text in cause.evidence]
    lines += [f"  last seen {place}" for place in _common([d.last for d in group])]
    lines += [f"  kernel    {reason}" for reason in _common([r for d in group for r in d.reasons])]
    if cause.show:
        lines.append(f"  see       {cause.show}")
    if cause.mend:
        lines.append(f"  mend      {cause.mend}")
    return "\n".join(lines)


def _unexplained(group: list[Diagnosis]) -> str:
    lines = [f"WHY unknown: {_pairs(group)}"]
    lines += [f"  {note}" for note in _common([d.note for d in group])]
    lines += [f"  last seen {place}" for place in _common([d.last for d in group])]
    lines += [f"  kernel    {reason}" for reason in _common([r for d in group for r in d.reasons])]
    return "\n".join(lines)


def _common(texts: Sequence[str]) -> list[str]:
    """The most frequent texts, at most three."""
    count = {text: texts.count(text) for text in dict.fromkeys(texts) if text}
    return sorted(count, key=lambda text: -count[text])[:3]


def _pairs(group: Sequence[Diagnosis]) -> str:
    pairs = list(dict.fromkeys(f"{d.trail.subject.source} -> {d.trail.subject.target}" for d in group))
    shown = ", ".join(pairs[:_MOST_PAIRS])
    more = f" and {len(pairs) - _MOST_PAIRS} more pairs" if len(pairs) > _MOST_PAIRS else ""
    kinds = list(dict.fromkeys(f"{d.trail.subject.protocol}/ipv{d.trail.subject.version}" for d in group))
    return f"{shown}{more} ({', '.join(kinds)})"


def document(diagnoses: Sequence[Diagnosis]) -> list[dict[str, Any]]:
    """One object for each diagnosis; ``cause`` is ``null`` where there is none, and ``note`` says why."""
    return [
        {
            "from": d.trail.subject.source,
            "to": d.trail.subject.target,
            "protocol": d.trail.subject.protocol,
            "family": f"ipv{d.trail.subject.version}",
            "port": d.trail.subject.port or None,
            "leg": "reply" if d.reply else "request",
            "cause": _cause(d.cause),
            "last_seen": d.last or None,
            "kernel_reasons": list(d.reasons),
            "note": d.note,
        }
        for d in diagnoses
    ]


def causes(blamed: Sequence[Blamed]) -> list[dict[str, Any]]:
    """One object for each cause of a run, those first that broke most checks, of which ``replayed`` were replayed."""
    return [
        {**(_cause(each.cause) or {}), "place": each.place, "failures": each.failures, "replayed": each.replayed}
        for each in blamed
    ]


def _cause(cause: Cause | None) -> dict[str, Any] | None:
    if cause is None:
        return None
    return {
        "kind": cause.kind,
        "netns": cause.netns or None,
        "what": cause.what,
        "text": cause.text,
        "evidence": list(cause.evidence),
        "show": cause.show,
        "mend": cause.mend,
    }
