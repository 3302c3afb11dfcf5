"""What a lab does about the neighbour table, and how the machine's limits are shared and put back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from podnet.kernel import netns, sysctl
from podnet.kernel.objects import Neighbours, State, Sysctl
from podnet.lab import machine, neighbours, record
from podnet.lab.drift import own
from podnet.lab.targets import lab_of
from podnet.model.lab import Lab
from podnet.model.placement import Placement
from podnet.topology.load import loads
from podnet.topology.place import place

SOFT, HARD = "net/ipv4/neigh/default/gc_thresh2", "net/ipv4/neigh/default/gc_thresh3"
HARD6 = "net/ipv6/neigh/default/gc_thresh3"
LIMITS = {f"net/{family}/neigh/default/{name}": value
          for family in ("ipv4", "ipv6") for name, value in (("gc_thresh2", 512), ("gc_thresh3", 1024))}  # fmt: skip


def placed(pods: int, family: str = "ipv4") -> tuple[Lab, Placement]:
    """One node: pods and gateway on its bridge are ``pods + 1``, of which everyone may know every other."""
    text = f"name: lab\nnetworking: {{ipFamily: {family}}}\nnodes: [{{name: n}}]\n"
    placement = place(loads(text + f"pods: [{{name: p, node: n, replicas: {pods}}}]\n", "lab.yaml"), {})
    return lab_of(placement), placement


def decided(
    pods: int, before: dict[str, int], others: int = 0, family: str = "ipv4", wanted: State | None = None
) -> State:
    lab, placement = placed(pods, family)
    return neighbours.with_neighbours(wanted or {}, lab, placement, before, others)


def values(state: State) -> dict[str, str]:
    return {each.name: each.value for each in state.values() if isinstance(each, Sysctl)}


@pytest.mark.parametrize(
    ("pods", "others", "raised"),
    [
        (22, 0, False),  # 23 * 22 = 506, half of the limit is 512
        (23, 0, True),
        (10, 402, False),  # 110 of its own
        (10, 403, True),  # other labs count: the table is one
    ],
)
def test_limits_are_raised_by_what_is_needed_as_soon_as_half_of_them_could_be_used(
    pods: int, others: int, raised: bool
) -> None:
    state = decided(pods, LIMITS, others)
    need = (pods + 1) * pods
    assert neighbours.need(*placed(pods)) == need
    assert values(state) == ({SOFT: str(512 + need + others), HARD: str(1024 + need + others)} if raised else {})
    assert not any(isinstance(each, Neighbours) for each in state.values())


def test_each_family_has_its_own_limits() -> None:
    assert set(values(decided(30, LIMITS, family="dual"))) == set(LIMITS)
    assert set(values(decided(30, LIMITS | {HARD6: 100_000}, family="dual"))) == {SOFT, HARD}


@pytest.mark.parametrize(("pods", "written"), [(22, 0), (23, 24)])
def test_where_limits_cannot_be_raised_neighbours_are_written(pods: int, written: int) -> None:
    state = decided(pods, {})
    found = [each for each in state.values() if isinstance(each, Neighbours)]
    assert values(state) == {}
    assert [len(each.entries) for each in found if len(each.entries) > 1] == [written] * written


def test_what_the_file_says_counts_more() -> None:
    said = Sysctl("", HARD, "5000")
    assert values(decided(30, LIMITS, wanted={said.key: said})) == {SOFT: str(512 + 930), HARD: "5000"}


@pytest.mark.parametrize(
    ("found", "seen"), [("100", "100"), ("1999", "1999"), ("2000", "2000"), ("9000", "2000"), ("odd", "odd")]
)
def test_a_higher_limit_is_no_difference(found: str, seen: str) -> None:
    wanted, was = Sysctl("", HARD, "2000"), Sysctl("", HARD, found)
    assert own({was.key: was}, {wanted.key}, {wanted.key: wanted}) == {was.key: Sysctl("", HARD, seen)}


class Machine:
    """The machine's sysctls as a dict."""

    def __init__(self, values: dict[str, int]) -> None:
        self.values = {name: str(value) for name, value in values.items()}

    def read(self, wanted: Iterable[tuple[str, str]]) -> list[Sysctl]:
        return [Sysctl(where, name, self.values[name]) for where, name in wanted if name in self.values]

    def write(self, new: Sysctl) -> None:
        self.values[new.name] = new.value


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(LIMITS)
    folder = tmp_path / "podnet"
    monkeypatch.setattr(machine, "RUN_DIR", str(folder))
    monkeypatch.setattr(machine, "LABS_DIR", str(folder / "labs"))
    monkeypatch.setattr(machine, "FILE", str(folder / "machine.json"))
    monkeypatch.setattr(record, "RUN_DIR", str(folder))
    for name in ("read", "write"):
        monkeypatch.setattr(sysctl, name, getattr(made, name))
    monkeypatch.setattr(sysctl, "writable", made.values.__contains__)
    monkeypatch.setattr(netns, "lacking", lambda: "")
    monkeypatch.setattr(netns, "prepare", lambda: None)
    return made


def up(here: Machine, name: str, pods: int) -> None:
    before, others = machine.neighbour_limits(name, (4,))
    lab, placement = placed(pods)
    sysctls = [
        e for e in neighbours.with_neighbours({}, lab, placement, before, others).values() if isinstance(e, Sysctl)
    ]
    machine.claim(name, sysctls, neighbours.need(lab, placement))
    for each in sysctls:
        if int(here.values[each.name]) < int(each.value):
            here.write(each)


def test_labs_add_up_and_the_last_one_puts_back_what_was_before_the_first(here: Machine, tmp_path: Path) -> None:
    up(here, "one", 30)
    assert here.values[HARD] == str(1024 + 930)
    up(here, "two", 40)
    assert here.values[HARD] == str(1024 + 930 + 1640)
    up(here, "one", 30)  # again: it changes nothing
    assert here.values[HARD] == str(1024 + 930 + 1640)
    machine.give_back("one")
    assert int(here.values[HARD]) >= 1024 + 1640
    assert json.loads((tmp_path / "podnet/machine.json").read_text())["neighbours"] == {"two": 1640}
    machine.give_back("two")
    assert here.values == {name: str(value) for name, value in LIMITS.items()}
    assert not (tmp_path / "podnet").exists()


def test_a_lab_that_needs_little_counts_for_the_next_one(here: Machine) -> None:
    up(here, "one", 20)
    assert here.values[HARD] == "1024"
    up(here, "two", 20)
    assert here.values[HARD] == str(1024 + 2 * 420)
    machine.give_back("two")
    assert here.values[HARD] == "1024"
    machine.give_back("one")


def test_a_lab_that_shrinks_gives_back(here: Machine) -> None:
    up(here, "one", 30)
    up(here, "one", 5)
    assert here.values[HARD] == "1024"
    machine.give_back("one")
