"""The matrix, the failures and the totals as people see them."""

from __future__ import annotations

import pytest

from podnet.model.lab import Lab, Target
from podnet.model.probe import Check, Result
from podnet.report.text import failures, matrix, summary


def lab_of(*names: str, nodes: tuple[str, ...] = ("n1",)) -> Lab:
    targets = [Target(n, "node", n, ()) for n in nodes]
    targets += [Target(name, "pod", name, (), nodes[at % len(nodes)]) for at, name in enumerate(names)]
    return Lab("lab", (4,), tuple(targets))


def result(source: str, target: str, passed: bool = True, **check: object) -> Result:
    wanted = Check(source, target, **{"protocol": "icmp", "version": 4, **check})
    observed = wanted.verdict if passed else "drop"
    return Result(wanted, observed, "", passed, None, "" if passed else "never arrived")


def test_senders_down_receivers_across() -> None:
    lab = lab_of("web", "db")
    results = [result("web", "web"), result("web", "db", False), result("db", "web"), result("n1", "web")]
    assert matrix(lab, results, color=False, width=80).splitlines() == [
        "     web    db",
        "n1    ok     -",
        "web   ok  FAIL",
        "db    ok     -",
    ]


def test_a_cell_fails_if_one_of_its_protocols_or_families_does() -> None:
    results = [result("web", "db"), result("web", "db", False, version=6), result("web", "db", protocol="tcp")]
    assert matrix(lab_of("web", "db"), results, color=False, width=80).split() == ["db", "web", "FAIL"]


def test_names_that_do_not_fit_become_numbers() -> None:
    names = [f"a-rather-long-name-{n}" for n in range(6)]
    results = [result(a, b) for a in names[:5] for b in names]
    text = matrix(lab_of(*names), results, color=False, width=60).splitlines()
    assert text[0].split() == ["1", "2", "3", "4", "5", "6"]
    assert text[1].split() == ["1", names[0], *["ok"] * 6]
    assert text[-1] == f"also: 6 {names[5]}"
    assert all(len(line) <= 60 for line in text)


def test_a_large_lab_is_summed_up_by_nodes() -> None:
    names = [f"p{n}" for n in range(41)]
    lab = lab_of(*names, nodes=("n1", "n2"))
    results = [result(a, b, passed=(a, b) != ("p0", "p1")) for a in names for b in names]
    assert [line.split() for line in matrix(lab, results, color=False, width=80).splitlines()] == [
        ["n1", "n2"],
        ["n1", "441/441", "419/420"],
        ["n2", "420/420", "400/400"],
    ]


def test_colour_only_where_asked() -> None:
    results = [result("web", "db"), result("db", "web", False)]
    plain, painted = (matrix(lab_of("web", "db"), results, color=c, width=80) for c in (False, True))
    assert "\x1b" not in plain
    assert "\x1b[32m    ok" not in plain
    assert "\x1b[32m" in painted
    assert "\x1b[31m" in painted


def test_no_results_no_matrix() -> None:
    assert matrix(lab_of("web"), [], color=False, width=80) == ""


@pytest.mark.parametrize(
    ("failed", "line"),
    [
        (
            result("web", "db", False),
            "FAIL web -> db icmp ipv4: expected reach, observed drop (never arrived)",
        ),
        (
            result("web", "db", False, protocol="tcp", version=6, port=80, verdict="refuse", line=12),
            "FAIL web -> db tcp/80 ipv6: expected refuse, by line 12, observed drop (never arrived)",
        ),
        (
            Result(Check("web", "db", "icmp", 4), "reach", "10.0.0.9", False, 0.1, "db saw 10.0.0.9, expected x"),
            "FAIL web -> db icmp ipv4: expected reach, observed reach (db saw 10.0.0.9, expected x)",
        ),
    ],
)
def test_one_line_for_each_failure(failed: Result, line: str) -> None:
    assert failures([result("db", "web"), failed]) == line


def test_failures_are_limited() -> None:
    lines = failures([result("a", "b", False)] * 5, limit=2).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("... and 3 more")
    assert failures([result("a", "b")]) == ""


def test_totals() -> None:
    assert summary([result("a", "b")] * 3 + [result("a", "b", False)]) == "4 expected, 3 passed, 1 failed"
