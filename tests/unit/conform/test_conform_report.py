"""The report as text, JSON and JUnit, and the exit code."""

from __future__ import annotations

import json
import subprocess
from xml.etree import ElementTree

import pytest

from podnet.conform.model import Exchange, Result, Verdict
from podnet.conform.report import as_json, as_junit, as_text, shell
from podnet.conform.suite import Report

EXCHANGE = Exchange(
    "ADD a", {"CNI_COMMAND": "ADD", "CNI_ARGS": "a=b c"}, '{"name": "it\'s"}', 1, '{"code": 7}', "why\x1b", 0.5
)


def result(verdict: Verdict, identity: str = "A1a") -> Result:
    exchanges = (EXCHANGE,) if verdict == "fail" else ()
    return Result(
        identity, "MUST", "ADD <succeeds>", "SPEC", "ADD", verdict, f"evidence of {verdict}", "1.0.0", 0.1, exchanges
    )


def report(*verdicts: Verdict) -> Report:
    results = tuple(result(verdict, f"A{number}") for number, verdict in enumerate(verdicts))
    return Report("/opt/cni/bin/x", "interface", ("0.4.0", "1.0.0"), results, 1.5)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["pass", "not applicable"], 0),
        (["pass", "fail"], 1),
        (["pass", "not measured"], 3),
        (["fail", "not measured"], 1),
    ],
)
def test_exit_code(verdicts: list[Verdict], code: int) -> None:
    assert report(*verdicts).exit_code == code


def test_text_shows_evidence_of_failures_only() -> None:
    text = as_text(report("pass", "fail", "not applicable", "not measured"))
    assert "evidence of fail" in text
    assert "evidence of not measured" in text
    assert "evidence of pass" not in text
    assert "1 pass, 1 fail, 1 not applicable, 1 not measured" in text
    assert "  MUST: A1" in text
    assert "\x1b" not in text


def test_verbose_text_shows_the_request_and_the_answer() -> None:
    text = as_text(report("pass", "fail"), verbose=True)
    assert "evidence of pass" in text
    assert "CNI_COMMAND=ADD" in text
    assert '{"code": 7}' in text


def test_an_exchange_is_a_shell_command_that_repeats_it() -> None:
    line = shell(EXCHANGE, "/bin/cat")[1]
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == EXCHANGE.stdin + "\n"


def test_json() -> None:
    document = json.loads(json.dumps(as_json(report("pass", "fail", "not applicable"))))
    assert document["summary"] == {"pass": 1, "fail": 1, "not_applicable": 1, "not_measured": 0}
    assert document["versions"] == ["0.4.0", "1.0.0"]
    passed, failed, _ = document["results"]
    assert "exchanges" not in passed
    assert failed["exchanges"][0]["env"]["CNI_COMMAND"] == "ADD"
    assert failed["exchanges"][0]["exitCode"] == 1
    assert {"id", "level", "text", "verdict", "evidence", "source"} <= failed.keys()


def test_junit() -> None:
    root = ElementTree.fromstring(as_junit(report("pass", "fail", "not applicable", "not measured")))  # noqa: S314
    assert root.attrib | {"time": ""} == {
        "name": "CNI conformance of /opt/cni/bin/x",
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
        "time": "",
    }
    cases = root.findall("testsuite/testcase")
    assert [[child.tag for child in case] for case in cases] == [[], ["failure"], ["skipped"], ["error"]]
    failure = cases[1].find("failure")
    assert failure is not None
    assert failure.get("message") == "evidence of fail"
    assert "CNI_COMMAND=ADD" in (failure.text or "")
    assert "\x1b" not in (failure.text or "")
