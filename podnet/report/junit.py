"""The results of the probes as JUnit XML: a suite for each protocol and IP version, a case for each check."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from podnet.model.lab import Lab
    from podnet.model.probe import Result
    from podnet.report.blame import Blame

__all__ = ["junit"]


def junit(lab: Lab, results: Sequence[Result], seconds: float, blame: Blame | None = None) -> Iterator[str]:
    """The document, in pieces; ``seconds`` is the time of the whole run.

    What is known of a failure's cause is in its message, and line by line in its text.

    A broken expectation is a ``failure``, what could not be measured an ``error``: servers count both apart.
    """
    suites: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        suites.setdefault((result.check.protocol, result.check.version), []).append(result)
    total = f'tests="{len(results)}" {_counts(results)} time="{seconds:.3f}"'
    yield f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name={quoteattr(f"podnet {lab.name}")} {total}>\n'
    for (protocol, version), some in suites.items():
        name = f"{lab.name}.{protocol}.ipv{version}"
        yield f'<testsuite name={quoteattr(name)} tests="{len(some)}" {_counts(some)}>\n'
        for result in some:
            yield _case(result, name, blame.facts(result) if blame is not None else {})
        yield "</testsuite>\n"
    yield "</testsuites>\n"


def _counts(results: Sequence[Result]) -> str:
    unproven = sum(result.observed == "unproven" for result in results)
    failed = sum(not result.passed for result in results)
    return f'failures="{failed - unproven}" errors="{unproven}"'


def _case(result: Result, suite: str, facts: Mapping[str, str | list[str]]) -> str:
    check = result.check
    port = f" port {check.port}" if check.port else ""
    name = f"{check.source} -> {check.target}{port} {check.verdict}"
    took = f' time="{result.rtt_ms / 1000:.6f}"' if result.rtt_ms is not None else ""
    head = f"<testcase classname={quoteattr(suite)} name={quoteattr(name)}{took}"
    if result.passed:
        return f"{head}/>\n"
    kind = "error" if result.observed == "unproven" else "failure"
    where = f", by line {check.line} of the topology" if check.line else ""
    detail = f" ({result.detail})" if result.detail else ""
    cause = f": {facts['cause']}" if "cause" in facts else ""
    message = f"expected {check.verdict}{where}, observed {result.observed}{detail}{cause}"
    begin = f"{head}><{kind} type={quoteattr(result.observed)} message={quoteattr(message)}"
    if not facts:
        return f"{begin}/></testcase>\n"
    lines = [
        f"{name}: {line}" for name, value in facts.items() for line in ([value] if isinstance(value, str) else value)
    ]
    return f"{begin}>{escape(chr(10).join(lines))}</{kind}></testcase>\n"
