"""The nftables rule that ended a packet, from the rules that it met."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podnet.diagnose.case import Case
    from podnet.diagnose.cause import Cause
    from podnet.diagnose.trail import Met, Subject

__all__ = ["blamed", "changing"]


def blamed(case: Case, met: Iterable[Met], subject: Subject) -> Cause | None:
    """The rule or policy whose verdict was to drop; a ``reject`` drops the packet as well, and answers."""
    for each in met:
        trace, text = each.trace, each.text
        if trace.verdict != "drop":
            continue
        kind = "rule-drop"
        if "reject" in text:
            kind = "rule-reset" if "tcp reset" in text and subject.protocol == "tcp" else "rule-reject"
        what = f"{trace.family} {trace.table} {trace.chain}"
        said = {"rule-drop": "drops", "rule-reject": "rejects", "rule-reset": "resets"}[kind]
        mend: tuple[str, ...] = ()
        if trace.type == "rule":
            mend = ("nft", "delete", "rule", trace.family, trace.table, trace.chain, "handle", str(trace.handle))
        return case.cause(
            kind, trace.netns, what, f"nftables {said} it in {case.named(trace.netns)}, chain {what}: {text}",
            f"trace of a replayed packet: {trace.type} handle {trace.handle}, verdict {trace.verdict}"
            if trace.type == "rule" else f"trace of a replayed packet: {text}",
            show=("nft", "-a", "list", "chain", trace.family, trace.table, trace.chain), mend=mend,
        )  # fmt: skip
    return None


_CHANGING = ("masquerade", "snat", "dnat", "redirect")


def changing(met: Iterable[Met], netns: str, words: tuple[str, ...] = _CHANGING) -> Met | None:
    """The rule of a namespace that changed a packet's address."""
    return next((m for m in met if m.trace.netns == netns and any(word in m.text for word in words)), None)
