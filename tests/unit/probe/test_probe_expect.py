"""The Kubernetes network model, and what a file may change of it."""

from __future__ import annotations

import pytest
from probe_labs import lab

from podnet.model.probe import Check
from podnet.model.topology import Expectation
from podnet.probe.expect import derive

PODS, NODES = ("web", "api", "db"), ("n1", "n2")


def test_pods_reach_all_pods_and_themselves_and_nodes_reach_pods_both_ways() -> None:
    checks = derive(lab(), ("icmp",))
    expected = {(a, b) for a in PODS for b in PODS}
    expected |= {(n, p) for n in NODES for p in PODS} | {(p, n) for n in NODES for p in PODS}
    assert {(c.source, c.target) for c in checks} == expected
    assert len(checks) == 9 + 6 + 6


def test_what_the_model_says_is_reached_under_the_own_address() -> None:
    assert derive(lab(), ("tcp",))[0] == Check(
        "n1", "web", "tcp", 4, port=0, verdict="reach", seen="own", listen=True, origin="model", line=0
    )


@pytest.mark.parametrize(
    ("versions", "protocols", "each"),
    [((4,), ("icmp",), 1), ((4, 6), ("icmp",), 2), ((6,), ("icmp", "tcp", "udp"), 3), ((4, 6), ("tcp", "udp"), 4)],
)
def test_each_pair_is_checked_by_every_protocol_and_version(
    versions: tuple[int, ...], protocols: tuple[str, ...], each: int
) -> None:
    checks = derive(lab(versions=versions), protocols)
    assert len(checks) == 21 * each
    assert {(c.version, c.protocol) for c in checks} == {(v, p) for v in versions for p in protocols}


def test_clients_take_part_only_where_the_file_says_so() -> None:
    assert not any("outside" in (c.source, c.target) for c in derive(lab()))
    entry = Expectation(("web",), ("outside",), "icmp", "reach", source="node", line=9)
    [check] = [c for c in derive(lab(entry)) if c.target == "outside"]
    assert check == Check("web", "outside", "icmp", 4, 0, "reach", "node", True, "file", 9)


def test_an_icmp_entry_replaces_the_models_check_in_its_place() -> None:
    plain = list(derive(lab()))
    entry = Expectation(("web",), ("db",), "icmp", "drop", line=3)
    changed = list(derive(lab(entry)))
    assert len(changed) == len(plain)
    differing = [(a, b) for a, b in zip(plain, changed, strict=True) if a != b]
    assert differing == [
        (Check("web", "db", "icmp", 4), Check("web", "db", "icmp", 4, 0, "drop", "any", True, "file", 3))
    ]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("verdict", ["reach", "refuse", "drop"])
def test_a_port_is_a_check_of_its_own_and_the_models_stays(protocol: str, verdict: str) -> None:
    entry = Expectation(("web",), ("db",), protocol, verdict, port=8080)
    plain, changed = list(derive(lab())), list(derive(lab(entry)))
    assert changed[:-1] == plain
    assert changed[-1] == Check("web", "db", protocol, 4, 8080, verdict, "any", False, "file", 0)


def test_an_entry_without_a_port_replaces_the_models_tcp_check() -> None:
    entry = Expectation(("web",), ("db",), "tcp", "refuse")
    [check] = [c for c in derive(lab(entry), ("tcp",)) if (c.source, c.target) == ("web", "db")]
    assert (check.verdict, check.listen, check.origin) == ("refuse", True, "file")


def test_the_last_of_two_entries_for_the_same_holds() -> None:
    first, second = (
        Expectation(("web",), ("db",), "icmp", verdict, line=n) for n, verdict in ((1, "drop"), (2, "refuse"))
    )
    [check] = [c for c in derive(lab(first, second), ("icmp",)) if (c.source, c.target) == ("web", "db")]
    assert (check.verdict, check.line) == ("refuse", 2)


@pytest.mark.parametrize(
    ("versions", "families", "got"),
    [((4, 6), (6,), [6]), ((4,), (4, 6), [4]), ((4,), (6,), []), ((4, 6), (4, 6), [4, 6])],
)
def test_an_entry_holds_for_the_families_that_it_and_the_lab_have(
    versions: tuple[int, ...], families: tuple[int, ...], got: list[int]
) -> None:
    entry = Expectation(("outside",), ("web",), "tcp", "drop", port=80, families=families)
    checks = derive(lab(entry, versions=versions))
    assert [c.version for c in checks if c.source == "outside"] == got


def test_an_entry_of_a_protocol_that_is_not_asked_for_is_left_out() -> None:
    entry = Expectation(("outside",), ("web",), "tcp", "drop", port=80)
    assert not any(c.source == "outside" for c in derive(lab(entry), ("icmp",)))


def test_senders_and_receivers_can_be_chosen() -> None:
    entry = Expectation(("outside",), ("web", "db"), "icmp", "drop", line=3)
    checks = derive(lab(entry), ("icmp",), senders={"web", "outside", "n1"}, receivers={"web", "n2"})
    assert [(c.source, c.target, c.line) for c in checks] == [
        ("n1", "web", 0),
        ("web", "n2", 0),
        ("web", "web", 0),
        ("outside", "web", 3),
    ]
