"""The library: what is in it, what each fault says of itself, and what it declares to break in a lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from podnet.diagnose.cause import KINDS
from podnet.errors import UsageError
from podnet.fault import ledger
from podnet.fault.inject import grade
from podnet.fault.library import FAULTS, named
from podnet.fault.site import LIMITS, Place, Site
from podnet.fault.step import Step
from podnet.lab.targets import lab_of
from podnet.topology.compile import compile_topology
from podnet.topology.load import loads
from podnet.topology.place import place

TOPOLOGY = """
name: lab
networking: {ipFamily: dual}
nodes: [{name: node1}, {name: node2}]
pods: [{name: web, node: node1}, {name: api, node: node1}, {name: db, node: node2}]
clients: [{name: laptop, subnet: underlay}]
expect: [{from: pods, to: laptop, icmp: true, source: node}]
"""

ASKED_FOR = (
    "forwarding-off", "route-missing", "return-route-missing", "wrong-next-hop", "blackhole-route", "duplicate-address",
    "wrong-gateway-mac", "stale-neighbour", "rp-filter-strict", "mtu-smaller", "mtu-smaller-silent", "forward-drop",
    "forward-reject", "state-drop", "masquerade-unwanted", "masquerade-missing", "bridge-port-down", "veth-peer-down",
    "port-isolated", "hairpin-off", "bridge-without-address", "wrong-prefix-length", "underlay-partition",
    "listener-gone", "tcp-reset", "neighbour-table-full",
)  # fmt: skip


LIMITED = {name: "1024" for names in LIMITS.values() for name in names}


def _site(bridged: bool = True) -> Site:
    placement = place(loads(TOPOLOGY, "lab.yaml"), {})
    state = compile_topology(placement)
    return Site(lab_of(placement), state, state, [("lab.node1", 4), ("lab.node1", 6)] if bridged else [], LIMITED)


def test_every_fault_is_complete() -> None:
    assert {fault.name for fault in FAULTS} >= set(ASKED_FOR)
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 25
    for fault in FAULTS:
        assert fault.says, fault.name
        assert set(fault.says) <= KINDS.keys(), fault.name
        assert fault.does.endswith("."), fault.name
        assert fault.versions in ("one", "both", "ipv4"), fault.name


def test_every_fault_has_steps_that_can_be_undone_and_looked_at() -> None:
    site = _site()
    for fault in FAULTS:
        for version in (4, 6):
            for where in fault.places(site, version)[:2]:
                for step in fault.steps(site, where, version):
                    assert isinstance(step, Step)
                    assert step.do, fault.name
                    assert step.undo, fault.name
                    assert step.looks, fault.name


def test_the_machine_itself_is_no_place() -> None:
    placement = place(loads(TOPOLOGY.replace("{name: node1}", "{name: node1, host: true}"), "lab.yaml"), {})
    state = compile_topology(placement)
    site = Site(lab_of(placement), state, state)
    for fault in FAULTS:
        if fault.machine:
            continue  # needs to be asked for by --machine
        for version in (4, 6):
            for where in fault.places(site, version):
                rows = [row for step in fault.steps(site, where, version) for row in step.do]
                assert all(row[1] for row in rows if row[0] == "run"), (fault.name, where)
                assert all(row[2][1] for row in rows if row[0] == "op"), (fault.name, where)


# Fault, place, IP version, and of these pairs those that must break (?: may).
BREAKS: list[tuple[str, Place, int, str]] = [
    ("forwarding-off", Place("node1"), 4, "web-db db-web web-node2 node2-web web-laptop"),
    ("route-missing", Place("node1", "node2"), 4, "web-db db-web node1-db db-node1"),
    ("default-route-missing", Place("web"), 4, "web-db db-web web-node2 node2-web web-laptop web-node1"),
    ("blackhole-route", Place("node2", "db"), 6, "web-db db-web node1-db db-node1 node2-db db-node2"),
    (
        "bridge-port-down",
        Place("web"),
        4,
        "web-db db-web web-api api-web web-node1 node1-web web-node2 node2-web web-laptop",
    ),
    ("port-isolated", Place("web", "api"), 4, "web-api api-web"),
    ("wrong-prefix-length", Place("web"), 4, "web-db db-web"),
    ("forward-drop", Place("node1", "web"), 4, "web-db db-web node2-web web-node2 api-web web-api web-laptop"),
    ("input-drop", Place("web"), 4, ""),
    ("icmp-ignored", Place("web"), 4, "db-web api-web node1-web node2-web web-web"),
    ("masquerade-unwanted", Place("node1"), 4, "web-db web-node2"),
    ("masquerade-missing", Place("node1"), 4, "web-laptop"),
    ("duplicate-address", Place("web", "api"), 4, "web-api api-web db-api? api-db? node1-api? api-node1?"),
    ("mtu-port", Place("node1"), 4, ""),
]


ASKED = "web-db db-web web-api api-web web-node1 node1-web web-node2 node2-web web-laptop web-web"


@pytest.mark.parametrize(("name", "where", "version", "pairs"), BREAKS)
def test_what_a_fault_declares_to_break(name: str, where: Place, version: int, pairs: str) -> None:
    site = _site()
    asked = set(ASKED.split())
    asked |= {pair.rstrip("?") for pair in pairs.split()}
    found = {}
    for trip in site.trips:
        check = trip.check
        pair = f"{check.source}-{check.target}"
        if check.protocol == "icmp" and check.version == version and pair in asked:
            found[pair] = named(name).outcome(site, where, version, trip)
    told = {f"{pair}{'?' if must is None else ''}" for pair, must in found.items() if must is not False}
    assert told == set(pairs.split())


def test_bridged_packets_meet_the_forward_hook_only_where_they_are_handed_to_it() -> None:
    fault, where = named("forward-drop"), Place("node1", "web")
    for bridged in (True, False):
        site = _site(bridged)
        trip = next(t for t in site.trips if (t.check.source, t.check.target, t.check.version) == ("api", "web", 4))
        assert fault.outcome(site, where, 4, trip) is bridged


def test_a_fault_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="did you mean forward-drop"):
        named("forward-dorp")
    with pytest.raises(UsageError, match="'podnet fault list' shows all"):
        named("xyz")


def _entry(fault: str, at: str, *, hidden: bool = True) -> ledger.Entry:
    return ledger.Entry(1, fault, at, "", 4, hidden, True, [], [], [])


ANSWERS = [
    ("forwarding-off at node1", True, True),
    ("Forwarding off, on NODE1!", True, True),
    ("node1: the namespace does not forward", True, True),
    ("forwarding-off at node2", True, False),
    ("forwarding-off at node11", True, False),
    ("a missing route at node1", False, True),
    ("", False, False),
]


@pytest.mark.parametrize(("answer", "named_right", "placed_right"), ANSWERS)
def test_answers_are_judged(answer: str, named_right: bool, placed_right: bool) -> None:
    judged = grade([_entry("forwarding-off", "node1")], answer)
    assert judged is not None
    assert (judged.named, judged.placed) == (named_right, placed_right)


def test_an_answer_is_about_the_hidden_fault() -> None:
    entries = [_entry("icmp-ignored", "web", hidden=False), _entry("forwarding-off", "node1")]
    judged = grade(entries, "icmp-ignored at web")
    assert judged is not None
    assert not judged.named
    assert grade([], "anything") is None


def test_the_record_of_a_hidden_fault_does_not_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "directory", lambda _: str(tmp_path))
    step = Step([["run", "lab.node1", "", "sysctl"]], [["run", "lab.node1", "", "sysctl"]], [["sysctl", "lab.node1"]])
    entries = [
        _entry("forwarding-off", "node1")._replace(steps=[step]),
        _entry("icmp-ignored", "web", hidden=False)._replace(number=2, version=0),
    ]
    ledger.save("lab", entries)
    text = (tmp_path / "faults.json").read_text()
    assert "icmp-ignored" in text
    for word in ("forwarding", "node1", "sysctl"):
        assert word not in text
    assert ledger.load("lab") == entries
    ledger.save("lab", [])
    assert ledger.load("lab") == []
