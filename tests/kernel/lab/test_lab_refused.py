"""Something fails half-way in ``up``: the message names it and says what to do, and what it says works."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_cli import PODNET, Topology, changed, clean, named, podnet, proved, succeeds, two_nodes, write
from lab_kernel import differences, namespaces, pairs_with_one_index, snapshot

pytestmark = pytest.mark.kernel


def _sysctl(topology: Topology) -> None:
    named(topology, "pods", "web")["sysctls"] = {"net.ipv4.no_such_thing": "1"}


def _sysctl_value(topology: Topology) -> None:
    named(topology, "pods", "web")["sysctls"] = {"net.ipv4.ip_forward": "many"}


def _gateway(topology: Topology) -> None:
    # In the pod's network, but its broadcast address.
    named(topology, "pods", "web")["routes"] = [{"dst": "192.0.2.0/24", "via": "10.244.0.255"}]


def _command(topology: Topology) -> None:
    named(topology, "pods", "web")["containers"] = [{"name": "main", "command": ["/no/such/command"]}]


REFUSED: list[tuple[str, Callable[[Topology], None], str]] = [
    ("a sysctl that is not there", _sysctl, "net.ipv4.no_such_thing"),
    ("a value that the sysctl does not take", _sysctl_value, "net.ipv4.ip_forward"),
    ("a gateway that the kernel refuses", _gateway, "192.0.2.0/24"),
    ("a command that is not there", _command, "/no/such/command"),
]
ROWS = pytest.mark.parametrize(("what", "edit", "named_thing"), REFUSED, ids=[row[0] for row in REFUSED])


def _refused(path: Path, named_thing: str) -> None:
    done = podnet("up", path)
    assert done.code == 4, done.text
    assert named_thing in done.err
    assert "web" in done.err
    assert "half-built" in done.err
    assert "'podnet up' completes it" in done.err
    assert "'podnet down lab' removes it" in done.err


@ROWS
def test_then_down_removes_it(what: str, edit: Callable[[Topology], None], named_thing: str, tmp_path: Path) -> None:
    machine = snapshot("")
    _refused(write(tmp_path, changed(two_nodes(), edit)), named_thing)
    shown = podnet("status", "lab", "--check", "-o", "json")
    assert (shown.code, shown.json["state"]) == (1, "unfinished")
    assert "unfinished" in succeeds("list").out
    succeeds("down", "lab")
    assert namespaces() == set()
    assert differences({"": machine}, {"": snapshot("")}) == []


@ROWS
def test_then_up_of_a_mended_file_completes_it(
    what: str, edit: Callable[[Topology], None], named_thing: str, tmp_path: Path
) -> None:
    path = write(tmp_path, changed(two_nodes(), edit))
    _refused(path, named_thing)
    _refused(path, named_thing)  # nothing became worse
    write(tmp_path, two_nodes())
    succeeds("up", path)
    assert pairs_with_one_index("lab") == []
    clean()
    proved()


@ROWS
def test_then_the_whole_lab_of_before_is_there_again(
    what: str, edit: Callable[[Topology], None], named_thing: str, tmp_path: Path
) -> None:
    """A running lab, an edit that is refused, and back."""
    path = write(tmp_path, two_nodes())
    succeeds("up", path)
    write(tmp_path, changed(two_nodes(), edit))
    _refused(path, named_thing)
    write(tmp_path, two_nodes())
    succeeds("up", path)
    clean()
    proved()


def test_open_files_that_do_not_suffice_are_told_before_anything_is_touched(tmp_path: Path) -> None:
    topology = two_nodes()
    topology["pods"][0]["replicas"] = 60
    path = write(tmp_path, topology)
    done = subprocess.run(
        [*PODNET, "up", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)),
    )
    assert done.returncode == 3, done.stderr
    assert "open files" in done.stderr
    assert "ulimit" in done.stderr
    assert namespaces() == set()


def test_a_soft_limit_of_open_files_is_lifted(tmp_path: Path) -> None:
    topology = two_nodes()
    topology["pods"][0]["replicas"] = 60
    path = write(tmp_path, topology)
    done = subprocess.run(
        [*PODNET, "up", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096)),
    )
    assert done.returncode == 0, done.stderr
    clean()


def test_a_damaged_record_is_told_with_the_way_out(tmp_path: Path) -> None:
    path = write(tmp_path, two_nodes())
    succeeds("up", path)
    record = Path("/run/podnet/labs/lab/record.json")
    whole = record.read_bytes()
    for damaged in (b"", b"{", b"[]", b"null", b'{"version": 99}', whole[: len(whole) // 2]):
        record.write_bytes(damaged)
        for command in (("status", "lab"), ("down", "lab"), ("up", str(path)), ("list",)):
            done = podnet(*command)
            assert done.code == 4, (damaged, command, done.text)
            assert "record.json" in done.err
    record.write_bytes(whole)
    clean()
