"""The JSON document of ``test``."""

from __future__ import annotations

import json

from podnet.model.lab import Lab
from podnet.model.probe import Check, Result
from podnet.report.json import document


def test_document() -> None:
    good = Result(Check("web", "db", "icmp", 4), "reach", "10.244.1.2", True, 0.012345, "")
    wrong = Result(
        Check("web", "db", "tcp", 6, 80, "refuse", "any", False, "file", 12), "drop", "", False, None, "never arrived"
    )
    made = document(Lab("two", (4, 6), ()), [good, wrong])
    assert json.loads(json.dumps(made)) == {
        "lab": "two",
        "summary": {"expected": 2, "passed": 1, "failed": 1},
        "results": [
            {
                "from": "web",
                "to": "db",
                "protocol": "icmp",
                "family": "ipv4",
                "port": None,
                "expected": "reach",
                "observed": "reach",
                "passed": True,
                "source": "10.244.1.2",
                "expected_source": "own",
                "rtt_ms": 0.0123,
                "detail": "",
                "origin": "model",
                "line": None,
            },
            {
                "from": "web",
                "to": "db",
                "protocol": "tcp",
                "family": "ipv6",
                "port": 80,
                "expected": "refuse",
                "observed": "drop",
                "passed": False,
                "source": None,
                "expected_source": "any",
                "rtt_ms": None,
                "detail": "never arrived",
                "origin": "file",
                "line": 12,
            },
        ],
    }
