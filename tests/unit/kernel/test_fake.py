"""The kernel in memory: what the contract tests cannot ask of a real one."""

from __future__ import annotations

import errno

import pytest
from small_labs import FOREIGN

from podnet.errors import KernelError
from podnet.kernel.fake import FakeKernel
from podnet.kernel.objects import Bridge, Loopback, Netns, NftTable, Process
from podnet.kernel.schedule import Op

PROCESS = Process("n", "n/main", ("sleep", "9"))


def test_at_the_start_there_is_the_machine_and_its_loopback() -> None:
    kernel = FakeKernel()
    assert kernel.namespaces() == set()
    assert kernel.observe([""]) == {("link", "", "lo"): Loopback("", up=True)}


def test_a_state_given_is_there_and_namespaces_in_it_have_a_loopback() -> None:
    kernel = FakeKernel(state=FOREIGN)
    assert kernel.namespaces() == {"other"}
    assert kernel.observe(["other"])["link", "other", "lo"] == Loopback("other", up=False)
    assert {key: each for key, each in kernel.state.items() if key in FOREIGN} == FOREIGN


@pytest.mark.parametrize("number", range(3))
def test_the_operation_with_the_number_asked_for_fails(number: int) -> None:
    ops = [Op("add", Netns(name)) for name in ("a", "b", "c")]
    kernel = FakeKernel(fail_at=number)
    told: list[int] = []
    with pytest.raises(KernelError, match=f"cannot add namespace {'abc'[number]}") as caught:
        kernel.apply(ops, told.append)
    assert caught.value.errno == errno.EIO
    assert kernel.namespaces() == set("abc"[:number])
    assert (kernel.ops_done, kernel.log, told) == (number, ops[:number], list(range(1, number + 1)))


def test_the_number_counts_over_all_calls_and_fails_once() -> None:
    kernel = FakeKernel(fail_at=1)
    kernel.apply([Op("add", Netns("a"))])
    with pytest.raises(KernelError):
        kernel.apply([Op("add", Netns("b"))])
    kernel.apply([Op("add", Netns("b"))])
    assert kernel.namespaces() == {"a", "b"}


def test_a_process_outlives_the_name_of_its_namespace() -> None:
    kernel = FakeKernel()
    kernel.apply([Op("add", Netns("n")), Op("add", PROCESS)])
    assert kernel.adrift() == []
    kernel.apply([Op("delete", Netns("n"))])
    assert kernel.observe(["n"]) == {PROCESS.key: PROCESS}
    kernel.apply([Op("add", Netns("n"))])
    assert kernel.adrift() == [PROCESS], "the namespace of that name is another one"
    kernel.apply([Op("delete", PROCESS), Op("add", PROCESS)])
    assert kernel.adrift() == []


def test_a_process_runs_once() -> None:
    kernel = FakeKernel()
    kernel.apply([Op("add", Netns("n")), Op("add", PROCESS)])
    with pytest.raises(KernelError) as caught:
        kernel.apply([Op("add", PROCESS)])
    assert caught.value.errno == errno.EEXIST


@pytest.mark.parametrize("verb", ["add", "delete"])
def test_loopback_is_neither_made_nor_deleted(verb: str) -> None:
    kernel = FakeKernel()
    with pytest.raises(KernelError):
        kernel.apply([Op(verb, Loopback(""))])
    assert kernel.state == FakeKernel().state


def test_what_is_deleted_twice_is_noted() -> None:
    kernel = FakeKernel()
    delete = Op("delete", Bridge("", "br0", "02:00:00:00:00:01"))
    kernel.apply([Op("add", delete.object), delete])
    assert kernel.idle == []
    kernel.apply([delete])
    assert kernel.idle == [delete]


def test_only_podnets_tables_are_seen_where_one_is_asked_for() -> None:
    kernel = FakeKernel(state=FOREIGN)
    old = NftTable("", "inet", "podnet-old", "")
    kernel.apply([Op("add", old)])
    assert kernel.observe([""]).get(old.key) is None
    found = kernel.observe([""], tables=[NftTable("", "inet", "podnet-new", "")])
    assert [each for each in found.values() if isinstance(each, NftTable)] == [old]
