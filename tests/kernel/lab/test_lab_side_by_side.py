"""Several labs at once, and several podnets at once."""

from __future__ import annotations

import fcntl
import subprocess
import time
from pathlib import Path

import pytest
from lab_cli import PODNET, Topology, clean, podnet, proved, succeeds, two_nodes, write
from lab_kernel import differences, namespaces, namespaces_of, snapshot, snapshots, sysctl

pytestmark = pytest.mark.kernel


def _host_node(name: str, number: int) -> Topology:
    return {
        "name": name,
        "networking": {"podSubnet": f"10.{number}.0.0/16", "bridge": f"br{number}"},
        "underlay": {"subnets": [{"name": "underlay", "cidr": f"198.18.{number}.0/24"}]},
        "nodes": [{"name": "host", "host": True, "subnet": "underlay"}],
        "pods": [{"name": "web", "node": "host"}],
    }


def test_two_labs_with_the_same_addresses_do_not_disturb_each_other(tmp_path: Path) -> None:
    one, two = (write(tmp_path, two_nodes(name)) for name in ("one", "two"))
    succeeds("up", one)
    before = snapshots("one", "")
    succeeds("up", two)
    proved("two")
    assert differences(before, snapshots("one", "")) == []
    proved("one")
    other = snapshots("two", "")
    succeeds("down", "one")
    assert namespaces_of("one") == []
    assert differences(other, snapshots("two", "")) == []
    clean("two")
    proved("two")


def test_two_host_nodes_share_the_machine_and_its_sysctls(tmp_path: Path) -> None:
    machine = snapshot("")
    one, two = (write(tmp_path, _host_node(name, number)) for name, number in (("one", 1), ("two", 2)))
    succeeds("up", one)
    succeeds("up", two)
    proved("one")
    proved("two")
    before = snapshots("two")
    succeeds("down", "one")
    assert sysctl("", "net/ipv4/ip_forward") == "1"  # the other lab still needs it
    assert differences(before, snapshots("two")) == []
    clean("two")
    proved("two")
    succeeds("down", "two")
    assert differences({"": machine}, {"": snapshot("")}) == []


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("podSubnet", {"networking": {"podSubnet": "10.1.0.0/16", "bridge": "br2"}}),
        ("bridge", {"networking": {"podSubnet": "10.2.0.0/16", "bridge": "br1"}}),
        ("underlay", {"underlay": {"subnets": [{"name": "underlay", "cidr": "198.18.1.0/25"}]}}),
    ],
)
def test_two_host_nodes_that_overlap_are_refused(what: str, change: Topology, tmp_path: Path) -> None:
    succeeds("up", write(tmp_path, _host_node("one", 1)))
    before = snapshots("one", "")
    done = podnet("up", write(tmp_path, _host_node("two", 2) | change))
    assert done.code == 4, done.text
    # Both sides are named, so that one knows which to change.
    ours, theirs = {
        "podSubnet": ("10.1.0.1/24", "10.1.0.1/24"),
        "bridge": ("networking.bridge", "br1"),
        "underlay": ("198.18.1.2/25", "198.18.1.2/24"),
    }[what]
    assert ours in done.err
    assert theirs in done.err
    assert namespaces_of("two") == []
    assert differences(before, snapshots("one", "")) == []
    assert [lab["name"] for lab in podnet("list", "-o", "json").json["labs"]] == ["one"]
    clean("one")


def test_a_lab_that_is_being_changed_refuses_a_second_change_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, two_nodes())
    succeeds("up", path)
    before = snapshots("lab", "")
    with Path("/run/podnet/labs/lab.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (("up", str(path)), ("down", "lab")):
            started = time.monotonic()
            done = podnet(*command)
            assert done.code == 4
            assert "another podnet is changing lab lab" in done.err
            assert time.monotonic() - started < 30
        assert podnet("status", "lab", "--check").code == 0  # reading needs no lock
        assert differences(before, snapshots("lab", "")) == []
    succeeds("up", path)


def test_two_ups_at_once_one_wins(tmp_path: Path) -> None:
    topology = two_nodes()
    topology["pods"][0]["replicas"] = 150
    path = write(tmp_path, topology)
    running = [
        subprocess.Popen([*PODNET, "up", str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]  # fmt: skip
    ended = [(process.communicate(timeout=60), process.returncode) for process in running]
    codes = [code for _, code in ended]
    assert set(codes) <= {0, 4}
    assert codes.count(0) >= 1
    for (_, err), code in ended:
        if code == 4:
            assert "another podnet is changing lab lab" in err
    assert codes.count(4) >= 1, "a lab of 150 pods takes longer than a start: they met"
    clean()


def test_up_and_down_of_different_labs_at_once(tmp_path: Path) -> None:
    paths = [write(tmp_path, _host_node(f"lab{i}", i)) for i in range(1, 5)]
    for command in ("up", "down", "up"):
        running = [
            subprocess.Popen([*PODNET, command, str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
            for path in paths
        ]  # fmt: skip
        ended = [(process.communicate(timeout=60)[0], process.returncode) for process in running]
        assert [code for _, code in ended] == [0] * 4, ended
    for path in paths:
        clean(path.stem)
    succeeds("down", "--all")
    assert namespaces() == set()
    assert sysctl("", "net/ipv4/ip_forward") == "0"
