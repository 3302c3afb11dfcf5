"""From evidence to verdict."""

from __future__ import annotations

import errno

import pytest

from podnet.probe.verdict import Evidence, icmp_error, judge

ARRIVED = {"attempts": 1, "arrived": 5, "source_seen": "10.0.0.1"}


@pytest.mark.parametrize(
    ("evidence", "open_ended", "observed", "detail"),
    [
        (Evidence(**ARRIVED, reply=True), False, "reach", ""),
        (Evidence(**ARRIVED), False, "drop", "arrived, no reply came back"),
        (Evidence(**ARRIVED), True, "reach", "arrived, no answer"),
        (Evidence(**ARRIVED, reset=True), False, "refuse", "TCP reset"),
        (Evidence(attempts=1, reset=True), False, "refuse", "TCP reset, never arrived"),
        (Evidence(**ARRIVED, refused=True, error="ICMP x"), True, "refuse", "ICMP x"),
        (Evidence(attempts=1, refused=False, error="ICMP loop"), False, "drop", "ICMP loop"),
        (Evidence(attempts=3), False, "drop", "never arrived"),
        (Evidence(attempts=3), True, "drop", "never arrived"),
        (Evidence(send_errno=errno.ENETUNREACH), False, "drop", "never left: Network is unreachable"),
        (Evidence(send_errno=errno.EPERM), False, "drop", "never left: Operation not permitted"),
        (Evidence(send_errno=errno.EBADF), False, "unproven", "could not be sent: Bad file descriptor"),
        (Evidence(failure="no namespace x"), False, "unproven", "no namespace x"),
        (Evidence(**ARRIVED, failure="lost"), True, "unproven", "lost"),
        (Evidence(attempts=3, unproven="deaf"), False, "unproven", "deaf"),
        (Evidence(attempts=1, reply=True, unproven="deaf"), False, "unproven", "deaf"),
        (
            Evidence(**ARRIVED, echo_errno=errno.EPERM),
            False,
            "drop",
            "arrived, the receiver could not answer: Operation not permitted",
        ),
    ],
)
def test_verdicts(evidence: Evidence, open_ended: bool, observed: str, detail: str) -> None:
    assert judge(evidence, silent_means_reach=open_ended) == (observed, detail)


def test_an_answer_without_an_arrival_is_somebody_elses() -> None:
    observed, detail = judge(Evidence(attempts=1, reply=True), silent_means_reach=False)
    assert (observed, detail[:35]) == ("drop", "never arrived, yet somebody answere")


def test_a_full_neighbour_table_is_named_and_is_not_a_drop() -> None:
    observed, detail = judge(Evidence(send_errno=errno.ENOBUFS), silent_means_reach=False)
    assert observed == "unproven"
    assert "gc_thresh3" in detail


@pytest.mark.parametrize("evidence", [Evidence(attempts=1), Evidence(**ARRIVED)])
def test_silence_carries_the_remark_of_the_run(evidence: Evidence) -> None:
    assert judge(evidence, silent_means_reach=False, remark="why not")[1].endswith("; why not")


@pytest.mark.parametrize(
    ("version", "kind", "code", "refused", "text"),
    [
        (4, 3, 3, True, "ICMP port unreachable from r"),
        (4, 3, 1, True, "ICMP host unreachable from r"),
        (4, 3, 99, True, "ICMP unreachable, code 99 from r"),
        (4, 3, 4, False, "ICMP fragmentation needed from r"),
        (4, 11, 0, False, "ICMP time exceeded (a routing loop?) from r"),
        (6, 1, 4, True, "ICMP port unreachable from r"),
        (6, 1, 6, True, "ICMP reject route from r"),
        (6, 2, 0, False, "ICMP packet too big from r"),
        (6, 3, 0, False, "ICMP time exceeded (a routing loop?) from r"),
    ],
)
def test_icmp_errors(version: int, kind: int, code: int, refused: bool, text: str) -> None:
    assert icmp_error(version, kind, code, "r") == (refused, text)


def test_the_time_inside_our_own_listener_is_not_on_the_way() -> None:
    evidence = Evidence(attempts=1, sent=1_000_000, arrived=1_200_000, echoed=9_200_000, answered=9_500_000)
    assert evidence.rtt_ms == pytest.approx(0.5)


def test_no_time_is_told_where_one_of_several_attempts_was_answered() -> None:
    assert Evidence(attempts=2, sent=1_000_000, arrived=2, answered=9_500_000).rtt_ms is None
