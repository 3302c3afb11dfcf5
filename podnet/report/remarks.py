"""What a capture says of itself, for Wireshark's comments: the causes of a run, and of each check."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.model.lab import Lab
    from podnet.model.probe import Result
    from podnet.report.blame import Blame, Blamed

__all__ = ["about", "remark"]


def about(lab: Lab, causes: Sequence[Blamed]) -> str:
    """Of the whole capture: one line for each cause."""
    lines = [f"podnet test of lab {lab.name}: what failed, probed once more"]
    for each in causes:
        mend = f"; mend: {each.cause.mend}" if each.cause.mend else ""
        lines.append(f"{each.failures} failures: {each.cause.text} [{each.cause.kind}]{mend}")
    return "\n".join(lines)


def remark(result: Result, blame: Blame) -> str:
    """Of one check: what was expected, what came of it, and why."""
    check = result.check
    detail = f" ({result.detail})" if result.detail else ""
    text = f"{check.source} -> {check.target} {check.protocol} ipv{check.version}: expected {check.verdict}, "
    text += f"observed {result.observed}{detail}"
    facts = blame.facts(result)
    return "\n".join([text, *(f"{name}: {facts[name]}" for name in ("cause", "mend") if name in facts)])
