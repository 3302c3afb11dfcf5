"""Which failures are one finding, and how it is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from podnet.model.lab import Lab, Target
from podnet.model.probe import Check, Result
from podnet.report.groups import grouped
from podnet.report.text import findings, summary

LAB = Lab(
    "lab",
    (4,),
    (
        *(Target(f"n{n}", "node", "", ()) for n in (1, 2, 3)),
        *(Target(f"p{n}{letter}", "pod", "", (), f"n{n}") for n in (1, 2, 3) for letter in "abcd"),
    ),
)
NODE = {target.name: target.node or target.name for target in LAB.targets}


def run(broken: Callable[[str, str], bool], protocols: tuple[str, ...] = ("icmp",)) -> list[Result]:
    """All pairs of pods and nodes, some of which are lost."""
    return [
        Result(Check(a, b, protocol, 4), "drop" if broken(a, b) else "reach", "", not broken(a, b), None, "lost")
        for protocol in protocols
        for a in NODE
        for b in NODE
        if "p" in a + b
    ]


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        (lambda a, b: True, ["all -> all"]),
        (lambda a, b: b == "p1a", ["all -> p1a"]),
        (lambda a, b: a == "p1a", ["p1a -> all"]),
        (lambda a, b: NODE[a] == "n1" and NODE[b] == "n2" and "p" in a and "p" in b, ["pods on n1 -> pods on n2"]),
        (lambda a, b: b in ("p2a", "p3b"), ["all -> p2a", "all -> p3b"]),
        (lambda a, b: a == "p1a" and NODE[b] == "n2" and "p" in b, ["p1a -> pods on n2"]),
        (lambda a, b: NODE[a] == "n3" and "p" in a and b == "p1c", ["pods on n3 -> p1c"]),
        (lambda a, b: (a, b) in (("p1a", "p2b"), ("p3a", "p1b")), ["p1a -> p2b", "p3a -> p1b"]),
    ],
)
def test_groups(broken: Callable[[str, str], bool], names: list[str]) -> None:
    results = run(broken)
    failed = [result for result in results if not result.passed]
    groups = grouped(LAB, results, failed)
    assert [group.scope for group in groups] == names
    assert sorted(map(id, failed)) == sorted(id(result) for group in groups for result in group.results)
    assert all(group.whole for group in groups)


def test_a_part_of_what_was_asked_is_not_called_all() -> None:
    results = run(
        lambda a, b: NODE[a] == "n1" and NODE[b] == "n2" and "p" in a and "p" in b and (a, b) != ("p1a", "p2a")
    )
    [group] = grouped(LAB, results, [result for result in results if not result.passed])
    assert (group.scope, group.whole, len(group.results)) == ("pods on n1 -> pods on n2", False, 15)


def test_three_hundred_failures_are_one_line_with_an_example() -> None:
    results = run(lambda a, b: NODE[b] == "n2" and "p" in b, ("icmp", "tcp"))
    assert findings(LAB, results).splitlines() == [
        "FAIL all 120 checks all -> pods on n2 icmp tcp ipv4: expected reach, observed drop (lost)",
        "     such as n1 -> p2a icmp ipv4",
        "(-o json lists every check)",
    ]


def test_what_could_not_be_measured_is_counted_apart() -> None:
    good, bad = Check("p1a", "p2a", "icmp", 4), Check("p1a", "p2b", "icmp", 4)
    results = [Result(good, "reach", "", True, None, ""), Result(bad, "unproven", "", False, None, "deaf")]
    assert summary(results) == "2 expected, 1 passed, 1 failed (1 of them unproven)"
