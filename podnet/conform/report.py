"""The verdicts on a plugin as text, as JSON, and as JUnit XML."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podnet.conform.model import Exchange, Requirement, Result, Verdict
    from podnet.conform.suite import Report

__all__ = ["as_json", "as_junit", "as_text", "requirements_json", "requirements_text", "shell"]

_WORDS: dict[Verdict, str] = {"pass": "pass", "fail": "FAIL", "not applicable": "n/a", "not measured": "????"}
_COLORS = {"pass": "\x1b[32m", "fail": "\x1b[31m", "not applicable": "\x1b[2m", "not measured": "\x1b[33m"}
_RESET = "\x1b[0m"
_LEVELS = {"MUST": "MUST", "SHOULD": "SHOULD", "library": "library", "practice": "practice"}


def as_text(report: Report, *, verbose: bool = False, color: bool = False) -> str:
    """A table by section, each failure with its evidence, and the totals.

    ``verbose`` shows what passed in detail, and each request and answer of a failed case as shell commands.
    """
    lines = [f"{report.plugin} ({report.kind}), CNI {', '.join(report.versions)}"]
    for section in dict.fromkeys(result.section for result in report.results):
        rows = [result for result in report.results if result.section == section]
        lines += ["", section]
        for result in rows:
            word = f"{_WORDS[result.verdict]:4}"
            if color:
                word = f"{_COLORS[result.verdict]}{word}{_RESET}"
            lines.append(f"  {word}  {result.id:9} {_LEVELS[result.level]:8}  {result.text}")
            if result.evidence and (verbose or result.verdict in {"fail", "not measured"}):
                lines.append(f"{'':28}{result.evidence}")
            if verbose:
                for exchange in result.exchanges:
                    lines += [f"{'':28}{line}" for line in shell(exchange, report.plugin)]
    lines += ["", summary(report)]
    return "\n".join(lines)


def summary(report: Report) -> str:
    """The totals in one line, and the ids of the failures by level in a second."""
    lines = [
        f"{len(report.results)} judged in {report.seconds:.1f} s: "
        + ", ".join(f"{report.count(verdict)} {verdict}" for verdict in _WORDS)
    ]
    for level in _LEVELS:
        failed = [result.id for result in report.results if result.verdict == "fail" and result.level == level]
        if failed:
            lines.append(f"  {level}: {' '.join(failed)}")
    return "\n".join(lines)


def shell(exchange: Exchange, plugin: str) -> list[str]:
    """One execution as the shell command that repeats it, and what came of it."""
    env = " ".join(f"{key}={shlex.quote(value)}" for key, value in exchange.env.items())
    stdin = f" <<< {shlex.quote(exchange.stdin)}" if exchange.stdin else " < /dev/null"
    outcome = "was killed after the time limit" if exchange.code is None else f"exit code {exchange.code}"
    lines = [f"# {exchange.title}: {outcome}, {exchange.seconds * 1000:.0f} ms", f"env {env} {plugin}{stdin}"]
    for name, text in (("stdout", exchange.stdout), ("stderr", exchange.stderr)):
        lines += [f"# {name}: {line}" for line in text.strip().splitlines()]
    return lines


def as_json(report: Report) -> dict[str, Any]:
    """The report as one document; exchanges are with what failed."""
    return {
        "plugin": report.plugin,
        "kind": report.kind,
        "versions": list(report.versions),
        "seconds": round(report.seconds, 3),
        "summary": {
            "pass": report.count("pass"),
            "fail": report.count("fail"),
            "not_applicable": report.count("not applicable"),
            "not_measured": report.count("not measured"),
        },
        "results": [result.document() for result in report.results],
    }


def as_junit(report: Report) -> str:
    """The report as JUnit XML: a suite for each section, a case for each verdict."""
    root = ElementTree.Element("testsuites", {"name": f"CNI conformance of {report.plugin}", **_counts(report.results)})
    for section in dict.fromkeys(result.section for result in report.results):
        rows = [result for result in report.results if result.section == section]
        suite = ElementTree.SubElement(root, "testsuite", {"name": section, **_counts(rows)})
        for result in rows:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=f"cni.{report.plugin.rsplit('/', 1)[-1]}.{section}",
                name=f"{result.id} {result.text}",
                time=f"{result.seconds:.3f}",
            )
            if result.verdict == "fail":
                found = ElementTree.SubElement(case, "failure", message=_printable(result.evidence), type=result.level)
                found.text = _printable(_story(report, result))
            elif result.verdict == "not measured":
                found = ElementTree.SubElement(case, "error", message=_printable(result.evidence), type="not measured")
                found.text = _printable(_story(report, result))
            elif result.verdict == "not applicable":
                ElementTree.SubElement(case, "skipped", message=_printable(result.evidence))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counts(rows: Sequence[Result]) -> dict[str, str]:
    def count(verdict: str) -> str:
        return str(sum(result.verdict == verdict for result in rows))

    return {
        "tests": str(len(rows)),
        "failures": count("fail"),
        "errors": count("not measured"),
        "skipped": count("not applicable"),
        "time": f"{sum(result.seconds for result in rows):.3f}",
    }


def _story(report: Report, result: Result) -> str:
    lines = [f"{result.level}: {result.text}", f"source: {result.source}", result.evidence]
    for exchange in result.exchanges:
        lines += shell(exchange, report.plugin)
    return "\n".join(lines)


def _printable(text: str) -> str:
    """Without the control characters that XML 1.0 forbids."""
    return "".join(char if char in "\t\n\r" or ord(char) >= 0x20 else "\N{REPLACEMENT CHARACTER}" for char in text)


def requirements_text(rows: Iterable[Requirement]) -> str:
    """What is judged, one line each."""
    lines: list[str] = []
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            lines += ["", section] if lines else [section]
        kinds = ",".join(row.kinds)
        since = f" since {row.since}" if row.since != "0.1.0" else ""
        lines.append(
            f"  {row.id:5} {row.level:8}  {row.text} [{kinds}{since}{', each version' if row.per_version else ''}]"
        )
    return "\n".join(lines)


def requirements_json(rows: Iterable[Requirement]) -> list[dict[str, Any]]:
    """What is judged, as JSON."""
    return [
        {
            "id": row.id,
            "level": row.level,
            "section": row.section,
            "text": row.text,
            "source": row.source,
            "kinds": list(row.kinds),
            "since": row.since,
            "until": row.until,
            "perVersion": row.per_version,
        }
        for row in rows
    ]
