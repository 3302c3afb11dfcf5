"""How long the packets of a sample are waited for."""

from __future__ import annotations

from typing import Any

import pytest

from podnet.model.probe import Bounds, Check
from podnet.probe import verify


@pytest.mark.parametrize(
    ("bounds", "rtt_ms", "least"),
    [
        # What was sent again counts from its last sending: a tenth of a second may really be half of one.
        (Bounds(loss=0.5), 50.0, 1.0),
        (Bounds(loss=0.5), 900.0, 2.7),
        (Bounds(latency_ms=5000), 50.0, 10.0),
    ],
)
def test_what_takes_long_is_not_lost(
    bounds: Bounds, rtt_ms: float, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def run(_lab: object, checks: list[Check], **how: Any) -> list[Any]:
        asked.append(how | {"count": len(checks)})
        return []

    monkeypatch.setattr(verify, "run", run)
    checks: Any = [Check("web", "db", "icmp", 4, bounds=bounds)]
    verify._samples(None, checks, {0: rtt_ms})  # type: ignore[arg-type]
    assert asked[0]["timeout"] >= least
    assert asked[0]["attempts"] == 1
