"""The lab's verbs over the kernel in memory: the N-th operation fails, for every N, and what follows then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from podnet.errors import ConflictError, KernelError, LabBusyError
from podnet.kernel.fake import FakeKernel
from podnet.kernel.objects import Bridge, KernelObject, Netns, Route, State
from podnet.lab import converge, machine, record, teardown
from podnet.lab.drift import drift
from podnet.model.topology import Topology
from podnet.topology.load import loads

SMALL = """
name: lab
nodes: [{name: n1}, {name: n2}]
pods:
  - {name: a, node: n1, containers: [{name: main, command: [sleep, "9"]}]}
  - {name: b, node: n2}
"""
EDITED = """
name: lab
networking: {bridge: cni0, mtu: 1400}
nodes: [{name: n2}, {name: n3, routes: [{dst: 192.0.2.0/24, type: blackhole}]}]
pods:
  - {name: b, node: n3}
  - {name: c, node: n2}
"""
HOST = """
name: lab
nodes: [{name: h, host: true}]
pods: [{name: a, node: h}]
clients: [{name: m, subnet: underlay}]
"""
FILES = {"small": SMALL, "edited": EDITED, "host node": HOST}


def _topology(text: str) -> Topology:
    return loads(text, "lab.yaml")


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Records go into a folder of the test, and the machine itself is not touched."""
    folder = tmp_path / "podnet"
    monkeypatch.setattr(record, "RUN_DIR", folder)
    monkeypatch.setattr(record, "LABS_DIR", folder / "labs")
    monkeypatch.setattr(machine, "claim", lambda lab, sysctls, neighbours: None)
    monkeypatch.setattr(machine, "give_back", lambda lab: None)
    monkeypatch.setattr(machine, "router_advertisements", lambda lab: [])
    monkeypatch.setattr(machine, "neighbour_limits", lambda lab, versions: ({}, 0))
    yield folder
    assert not folder.exists(), f"left behind: {sorted(map(str, folder.rglob('*')))}"


def _down(kernel: FakeKernel) -> bool:
    def stop() -> None:
        for each in [key for key in kernel.state if key[0] == "process"]:
            del kernel.state[each]

    return teardown.down("lab", kernel, stop)


def _left(kernel: FakeKernel) -> set[str]:
    """What is there besides the machine's own loopback; sysctls are given back by ``machine``."""
    return {str(each) for each in kernel.state.values() if each.kind != "sysctl"} - {"link lo in the machine"}


def _settled(kernel: FakeKernel, topology: Topology) -> None:
    assert converge.up(topology, kernel).changes == []
    entry = record.load("lab")
    assert entry is not None
    assert entry.settled
    assert drift(entry, kernel)[0] == []
    assert kernel.adrift() == []


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_up_up_down_down(text: str) -> None:
    kernel = FakeKernel()
    topology = _topology(text)
    planned = converge.plan(topology, kernel).changes
    assert _left(kernel) == set()
    assert converge.up(topology, kernel).changes == planned
    done = kernel.ops_done
    _settled(kernel, topology)
    assert kernel.ops_done == done  # the second up did nothing at all
    assert _down(kernel) is True
    assert _left(kernel) == set()
    assert _down(kernel) is False
    assert kernel.idle == []  # nothing was deleted that was gone already


def _operations(text: str) -> int:
    kernel = FakeKernel()
    converge.up(_topology(text), kernel)
    count = kernel.ops_done
    _down(kernel)
    return count


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_whatever_operation_of_up_fails_the_next_up_completes_it_and_down_removes_it(text: str) -> None:
    topology = _topology(text)
    for number in range(_operations(text)):
        for then in ("up", "down"):
            kernel = FakeKernel(fail_at=number)
            with pytest.raises(KernelError) as caught:
                converge.up(topology, kernel)
            told = str(caught.value)
            assert f"operation {number} was made to fail" in told
            assert "half-built" in told
            assert "'podnet up' completes it" in told
            assert "'podnet down lab' removes it" in told
            entry = record.load("lab")
            assert entry is not None
            assert not entry.settled
            if then == "up":
                converge.up(topology, kernel)
                _settled(kernel, topology)
            assert _down(kernel) is True
            assert _left(kernel) == set(), f"operation {number}, then {then}"


def test_whatever_operation_of_an_edit_fails_the_next_up_completes_it_either_way() -> None:
    first, second = _topology(SMALL), _topology(EDITED)
    kernel = FakeKernel()
    converge.up(first, kernel)
    before = kernel.ops_done
    converge.up(second, kernel)
    count = kernel.ops_done - before
    _down(kernel)
    assert count > 20
    for number in range(count):
        for then in (first, second):
            kernel = FakeKernel(fail_at=before + number)
            converge.up(first, kernel)
            with pytest.raises(KernelError, match="half-built"):
                converge.up(second, kernel)
            converge.up(then, kernel)
            _settled(kernel, then)
            _down(kernel)
            assert _left(kernel) == set()


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_whatever_operation_of_down_fails_the_next_down_or_up_succeeds(text: str) -> None:
    topology = _topology(text)
    built = _operations(text)
    kernel = FakeKernel()
    converge.up(topology, kernel)
    _down(kernel)
    count = kernel.ops_done - built
    assert count >= 3
    for number in range(count):
        for then in ("down", "up"):
            kernel = FakeKernel(fail_at=built + number)
            converge.up(topology, kernel)
            with pytest.raises(KernelError, match="was made to fail"):
                _down(kernel)
            assert record.load("lab") is not None
            if then == "up":
                converge.up(topology, kernel)
                _settled(kernel, topology)
            assert _down(kernel) is True
            assert _left(kernel) == set()


def test_a_failed_edit_may_be_taken_down_at_once() -> None:
    kernel = FakeKernel()
    converge.up(_topology(SMALL), kernel)
    kernel.fail_at = kernel.ops_done + 10
    with pytest.raises(KernelError):
        converge.up(_topology(EDITED), kernel)
    assert _down(kernel) is True
    assert _left(kernel) == set()


def test_each_edit_back_and_forth_ends_where_the_file_says() -> None:
    kernel = FakeKernel()
    for text in (SMALL, EDITED, HOST, SMALL, HOST, EDITED, SMALL):
        converge.up(_topology(text), kernel)
        _settled(kernel, _topology(text))
    _down(kernel)
    assert _left(kernel) == set()


def _state(*objects: KernelObject) -> State:
    return {each.key: each for each in objects}


IN_THE_WAY = [
    (SMALL, Netns("lab.a"), "lab.a"),
    (HOST, Bridge("", "podnet0", "02:00:00:00:00:01"), "networking.bridge"),
    (HOST, Route("", "10.244.0.0/25", type="blackhole", protocol=4), "10.244.0.0/25"),
]


@pytest.mark.parametrize(("text", "foreign", "named"), IN_THE_WAY, ids=[str(row[1]) for row in IN_THE_WAY])
def test_what_stands_in_the_way_is_refused_before_anything_is_touched(
    text: str, foreign: KernelObject, named: str
) -> None:
    kernel = FakeKernel(state=_state(foreign))
    before = dict(kernel.state)
    for verb in (converge.plan, converge.up):
        with pytest.raises(ConflictError, match=named.replace(".", r"\.")):
            verb(_topology(text), kernel)
    assert kernel.state == before
    assert kernel.ops_done == 0
    assert _down(kernel) is False
    assert kernel.state == before


def test_what_is_not_podnets_survives_a_whole_life() -> None:
    foreign = _state(
        Netns("other"),
        Bridge("", "docker0", "02:42:00:00:00:01"),
        Route("", "172.18.0.0/16", via="", dev="docker0", protocol=4),
    )
    kernel = FakeKernel(state=foreign)
    converge.up(_topology(HOST), kernel)
    _down(kernel)
    assert {key: kernel.state.get(key) for key in foreign} == foreign


def test_a_locked_lab_is_told_at_once() -> None:
    kernel = FakeKernel()
    with record.locked("lab"):
        for verb in (lambda: converge.up(_topology(SMALL), kernel), lambda: _down(kernel)):
            with pytest.raises(LabBusyError, match="another podnet is changing lab lab right now"):
                verb()
    assert kernel.ops_done == 0


def test_progress_counts_up_to_all_operations() -> None:
    kernel = FakeKernel()
    told: list[tuple[int, int]] = []
    converge.up(_topology(SMALL), kernel, lambda done, total: told.append((done, total)))
    totals = {total for _, total in told}
    assert totals == {kernel.ops_done}
    assert told[-1] == (kernel.ops_done, kernel.ops_done)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    _down(kernel)
