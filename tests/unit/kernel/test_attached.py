"""Attachments by CNI plugins as objects: when they differ, what outlives what, and their place in the order."""

from __future__ import annotations

import pytest

from podnet.kernel.diff import Change, diff
from podnet.kernel.objects import Attached, KernelObject, Netns, Process, State, replace
from podnet.kernel.schedule import schedule

POD = Attached("p", "eth0", "n", "net", '{"name": "net"}', "/opt/cni/bin")
NAMES = (Netns("n"), Netns("p"))


def state(*objects: KernelObject) -> State:
    return {each.key: each for each in objects}


def only(wanted: State, found: State) -> Change:
    (change,) = diff(wanted, found, 0)
    return change


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"state": "plugin bridge failed (CHECK): no eth0"}, "plugin bridge failed (CHECK): no eth0"),
        ({"config": "{}"}, "its configuration differs"),
        ({"path": "/bin"}, "path is /bin, should be /opt/cni/bin"),
        ({"node": "m"}, "node is m, should be n"),
    ],
)
def test_whatever_differs_it_is_made_anew(fields: dict[str, str], reason: str) -> None:
    change = only(state(*NAMES, POD), state(*NAMES, replace(POD, **fields)))
    assert (change.action, change.reason) == ("recreate", reason)
    assert [op.verb for op in schedule([change])] == ["delete", "add"]


def test_the_same_is_no_change() -> None:
    assert diff(state(*NAMES, POD), state(*NAMES, POD), 0) == []


def test_plugins_are_told_before_a_namespace_goes() -> None:
    changes = diff(state(Netns("n")), state(*NAMES, POD), 0)
    assert [str(op) for op in schedule(changes)] == [
        "delete attachment of eth0 in p to CNI network net", "delete namespace p",
    ]  # fmt: skip


def test_a_container_starts_when_its_pod_is_attached_and_ends_before_it_is_detached() -> None:
    container = Process("p", "p/main", ("true",))
    whole = state(*NAMES, container, POD)
    assert [op.object.kind for op in schedule(diff(whole, {}, 0))] == ["netns", "netns", "attachment", "process"]
    assert [op.object.kind for op in schedule(diff({}, whole, 0))] == ["process", "attachment", "netns", "netns"]
