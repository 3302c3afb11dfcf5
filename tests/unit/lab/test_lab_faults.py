"""Faults over the kernel in memory: made, kept by up, and undone so that nothing of them is left."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from podnet.errors import KernelError, UsageError
from podnet.kernel.fake import FakeKernel
from podnet.kernel.impairment import described, kind_of, lacking, parse, settings_of
from podnet.kernel.objects import Process, Qdisc, State
from podnet.lab import converge, faults, record
from podnet.lab.drift import drift
from podnet.model.fault import Fault
from podnet.topology.load import load

TEXT = """
name: lab
networking: {ipFamily: dual, fabric: vxlan}
nodes: [{name: node1}, {name: node2}, {name: node3}]
pods:
  - {name: web, node: node1, containers: [{name: main, command: [sleep, "9"]}]}
  - {name: db, node: node2}
impair:
  - {target: node3, rate: 10mbit}
"""
LOSS = settings_of(loss=parse("loss", "5%"))
FAULTS = {
    "an impairment": [Fault("impair", "node1", "eth0", LOSS)],
    "an impairment of a tunnel": [Fault("impair", "node1", "podnet-vxlan", LOSS)],
    "another one than the file's": [Fault("impair", "node3", "eth0", LOSS)],
    "a link": [Fault("link", "node1", "eth0")],
    "a pod's link": [Fault("link", "web", "eth0")],
    "a bridge": [Fault("link", "node2", "podnet0")],
    "a tunnel": [Fault("link", "node2", "podnet-vxlan")],
    "a node": [Fault("node", "node1")],
    "two nodes": [Fault("node", "node1"), Fault("node", "node2")],
    "a partition": [Fault("partition", groups=(("node1", "node2"), ("node3",)))],
    "all at once": [
        Fault("impair", "web", "eth0", LOSS), Fault("link", "node1", "eth0"), Fault("node", "node2"),
        Fault("partition", groups=(("node1",), ("node2",), ("node3",))),
    ],
}  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FakeKernel, Path]:
    monkeypatch.setattr(record, "RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(record, "LABS_DIR", str(tmp_path / "run/labs"))
    monkeypatch.setattr("podnet.lab.machine.claim", lambda *_: None)
    file = tmp_path / "lab.yaml"
    file.write_text(TEXT)
    kernel = FakeKernel()
    converge.up(load(str(file)), kernel)
    return kernel, file


def make(kernel: FakeKernel, wanted: list[Fault]) -> None:
    faults.change("lab", kernel, lambda _faults, _entry: wanted)


def drifting(kernel: FakeKernel) -> list[str]:
    entry = record.find("lab")
    # The kernel in memory reports processes by itself.
    return [str(change) for change in drift(entry, kernel)[0]]


@pytest.mark.parametrize("wanted", FAULTS.values(), ids=FAULTS)
def test_made_kept_and_undone_exactly(lab: tuple[FakeKernel, Path], wanted: list[Fault]) -> None:
    kernel, file = lab
    healthy: State = dict(kernel.state)
    make(kernel, wanted)
    broken: State = dict(kernel.state)
    assert broken != healthy
    assert drifting(kernel) == []

    assert converge.up(load(str(file)), kernel).changes == []
    assert kernel.state == broken
    file.write_text(TEXT + "clients: [{name: laptop}]\n")
    converge.up(load(str(file)), kernel)
    assert drifting(kernel) == []
    assert {key: each for key, each in kernel.state.items() if key in broken} == broken | {
        key: kernel.state[key] for key in broken if key[0] == "nft"
    }
    file.write_text(TEXT)
    converge.up(load(str(file)), kernel)

    make(kernel, [])
    assert kernel.state == healthy
    assert record.find("lab").faults == []


@pytest.mark.parametrize("number", range(0, 12, 2))
def test_what_is_refused_half_way_is_completed_by_the_next_up(lab: tuple[FakeKernel, Path], number: int) -> None:
    kernel, file = lab
    kernel.fail_at = kernel._tried + number
    with suppress(KernelError):
        make(kernel, FAULTS["all at once"])
    kernel.fail_at = None
    converge.up(load(str(file)), kernel)
    assert drifting(kernel) == []
    assert len(record.find("lab").faults) == 4


@pytest.mark.parametrize("wanted", [[Fault("impair", "h", "UPLINK", LOSS)], [Fault("link", "h", "UPLINK")]], ids=str)
def test_a_node_that_is_the_machine_itself(lab: tuple[FakeKernel, Path], wanted: list[Fault]) -> None:
    kernel, file = lab
    file.write_text(TEXT.replace("{name: node1}", "{name: h, host: true}").replace("node: node1", "node: h"))
    converge.up(load(str(file)), kernel)
    uplink = next(t for t in record.find("lab").lab_json["targets"] if t["name"] == "h")["interfaces"][0]["name"]
    healthy, keys = dict(kernel.state), record.find("lab").machine_keys
    make(kernel, [fault._replace(interface=uplink) for fault in wanted])
    assert kernel.state != healthy
    assert drifting(kernel) == []
    assert converge.up(load(str(file)), kernel).changes == []
    make(kernel, [])
    assert kernel.state == healthy
    assert record.find("lab").machine_keys == keys


def test_a_fault_goes_with_its_target(lab: tuple[FakeKernel, Path]) -> None:
    kernel, file = lab
    make(kernel, [Fault("link", "db", "eth0"), Fault("node", "node1")])
    file.write_text(TEXT.replace("  - {name: db, node: node2}\n", ""))
    converge.up(load(str(file)), kernel)
    assert [row[1] for row in record.find("lab").faults] == ["node1"]
    assert drifting(kernel) == []


def test_a_stopped_node_has_no_containers_and_no_link_up(lab: tuple[FakeKernel, Path]) -> None:
    kernel, _ = lab
    make(kernel, [Fault("node", "node1")])
    assert not [each for each in kernel.state.values() if isinstance(each, Process)]
    up = [each.name for each in kernel.state.values() if each.netns == "lab.node1" and getattr(each, "up", False)]
    assert up == ["lo"]


def test_only_what_the_change_is_about_is_touched(lab: tuple[FakeKernel, Path]) -> None:
    kernel, _ = lab
    route = next(key for key in kernel.state if key[:2] == ("route", "lab.node3"))
    del kernel.state[route]
    make(kernel, [Fault("link", "db", "eth0")])
    assert route not in kernel.state


def test_an_unknown_target_is_told_with_those_that_there_are(lab: tuple[FakeKernel, Path]) -> None:
    with pytest.raises(UsageError, match="lab lab has no node node9: there are node1, node2, node3"):
        faults.named(record.find("lab"), "node9", ("node",))


PARSED: list[tuple[str, str, int]] = [
    ("delay", "20ms", 20_000_000), ("delay", "1.5s", 1_500_000_000), ("jitter", "300us", 300_000),
    ("loss", "100%", 2**32 - 1), ("corrupt", "0.1%", round((2**32 - 1) / 1000)),
    ("rate", "10mbit", 1_250_000), ("rate", "1gbit", 125_000_000), ("rate", "8 kbit", 1000),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "value"), PARSED)
def test_settings_as_people_write_them(name: str, text: str, value: int) -> None:
    assert parse(name, text) == value
    assert parse(name, described(((name, value),)).partition(" ")[2]) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("loss", "5"),
        ("loss", "101%"),
        ("loss", "0%"),
        ("delay", "5"),
        ("delay", "-1ms"),
        ("rate", "1xbit"),
        ("rate", ""),
    ],
)
def test_settings_that_are_none(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"is no|is too"):
        parse(name, text)


def test_a_rate_alone_needs_no_netem() -> None:
    assert kind_of(settings_of(rate=1)) == "tbf"
    assert kind_of(settings_of(rate=1, loss=1)) == "netem"
    assert lacking({"jitter"})
    assert lacking({"reorder", "loss"})
    assert not lacking({"jitter", "delay"})


def test_the_files_impairment_is_one(lab: tuple[FakeKernel, Path]) -> None:
    kernel, _ = lab
    found = [each for each in kernel.state.values() if isinstance(each, Qdisc)]
    assert found == [Qdisc("lab.node3", "eth0", "tbf", (("rate", 1_250_000),))]


LEARNING = """
name: lab
networking: {fabric: bgp}
nodes: [{name: node1}, {name: node2}, {name: node3}]
pods: [{name: web, node: node1}]
"""


@pytest.mark.parametrize("kind", ["a link", "a node", "two nodes", "a partition", "a bridge"])
def test_what_is_not_learned_meanwhile_is_no_drift_and_is_awaited_afterwards(
    lab: tuple[FakeKernel, Path], kind: str
) -> None:
    kernel, file = lab
    file.write_text(LEARNING)
    converge.up(load(str(file)), kernel)
    healthy: State = dict(kernel.state)
    make(kernel, FAULTS[kind])
    birds = {each.name for each in kernel.state.values() if isinstance(each, Process)}
    assert birds == {f"node{n}/bird" for n in {"a node": (2, 3), "two nodes": (3,)}.get(kind, (1, 2, 3))}
    assert drifting(kernel) == []
    # The kernel in memory has no daemons: what they take away after the hold time is taken away here.
    missing = {each.key for each in record.find("lab").healthy.values()} - record.find("lab").wanted.keys()
    assert bool(missing) == (kind != "a bridge")
    for key in missing:
        kernel.state.pop(key, None)
    assert drifting(kernel) == []
    assert converge.up(load(str(file)), kernel).changes == []
    done = len(kernel.log)
    make(kernel, [])
    assert kernel.state == healthy
    awaited = {op.object.key for op in kernel.log[done:] if op.verb == "await"}
    assert awaited == {key for key in missing if key[0] == "route"}
