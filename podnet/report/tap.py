"""The results of the probes by the Test Anything Protocol, version 14."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podnet.model.probe import Result
    from podnet.report.blame import Blame

__all__ = ["tap"]


def tap(results: Sequence[Result], blame: Blame | None = None) -> Iterator[str]:
    """The document, in pieces: a line for each check, and for one that failed what was expected, observed and why."""
    yield f"TAP version 14\n1..{len(results)}\n"
    for number, result in enumerate(results, 1):
        check = result.check
        port = f"/{check.port}" if check.port else ""
        # A number sign begins a directive, a backslash takes its meaning away; names have neither.
        told = f"{check.source} -> {check.target} {check.protocol}{port} ipv{check.version} {check.verdict}"
        yield f"{'ok' if result.passed else 'not ok'} {number} - {told}\n"
        if not result.passed:
            facts: dict[str, object] = {
                "expected": check.verdict, "observed": result.observed, "detail": result.detail,
            }  # fmt: skip
            if blame is not None:
                facts |= {name.replace(" ", "_"): value for name, value in blame.facts(result).items()}
            lines = [f"  {key}: {json.dumps(value)}\n" for key, value in facts.items() if value]
            yield f"  ---\n{''.join(lines)}  ...\n"
