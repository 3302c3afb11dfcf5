"""Namespaces that a process of its own makes while what follows goes on."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podnet.errors import KernelError
from podnet.kernel import netns
from podnet.kernel.diff import diff
from podnet.kernel.linux import LinuxKernel
from podnet.kernel.maker import Maker
from podnet.kernel.objects import Bridge, KernelObject, Netns, Veth
from podnet.kernel.schedule import Op, schedule

pytestmark = pytest.mark.kernel

PREFIX = f"pna{os.getpid()}"
NODE = f"{PREFIX}-node"
PODS = [f"{PREFIX}-pod{number}" for number in range(20)]

HOLDER = """
import fcntl, os, sys, time
from podnet.kernel.maker import Maker
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
maker = Maker([f"{sys.argv[2]}-{number}" for number in range(100_000)])
maker.wait(f"{sys.argv[2]}-0")
print("made", flush=True)
time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    for name in sorted(netns.names()):
        if name.startswith(PREFIX):
            netns.delete(name)


def made() -> set[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines() if line.startswith(PREFIX)}


def lab() -> list[KernelObject]:
    objects: list[KernelObject] = [*(Netns(pod) for pod in PODS), Netns(NODE), Bridge(NODE, "br0", "02:00:00:00:02:01")]
    for number, pod in enumerate(PODS):
        macs = f"02:00:00:00:03:{number:02x}", f"02:00:00:00:04:{number:02x}"
        objects.append(Veth(NODE, f"v{number}", pod, "eth0", macs[0], master="br0"))
        objects.append(Veth(pod, "eth0", NODE, f"v{number}", macs[1]))
    return objects


def ops(objects: list[KernelObject]) -> list[Op]:
    return schedule(diff({each.key: each for each in objects}, {}, 0))


def test_all_is_there_when_apply_returns_whatever_the_order() -> None:
    kernel = LinuxKernel()
    try:
        wanted = {each.key: each for each in lab()}
        kernel.apply(ops(lab()))
        assert made() == {NODE, *PODS}
        found = kernel.observe([NODE, *PODS])
        assert {key: found.get(key) for key in wanted} == wanted
    finally:
        kernel.close()


def test_namespaces_alone_are_waited_for() -> None:
    kernel = LinuxKernel()
    kernel.apply([Op("add", Netns(pod)) for pod in PODS])
    assert made() == set(PODS)


@pytest.mark.parametrize("number", [0, 7, len(PODS) - 1])
def test_one_that_cannot_be_made_is_named_and_none_follows_it(number: int) -> None:
    netns.create(PODS[number])
    kernel = LinuxKernel()
    try:
        with pytest.raises(KernelError) as caught:
            kernel.apply([Op("add", Netns(pod)) for pod in PODS])
        assert str(caught.value) == f"cannot add namespace {PODS[number]}: namespace {PODS[number]} exists"
        assert caught.value.errno == 17
        assert made() == set(PODS[: number + 1])
    finally:
        kernel.close()


def test_links_in_namespaces_that_cannot_be_made_are_refused_with_them() -> None:
    netns.create(PODS[5])
    kernel = LinuxKernel()
    try:
        with pytest.raises(KernelError, match=f"cannot add namespace {PODS[5]}: namespace {PODS[5]} exists"):
            kernel.apply(ops(lab()))
    finally:
        kernel.close()


def test_a_killed_maker_is_an_error() -> None:
    maker = Maker([f"{PREFIX}-{number}" for number in range(100_000)])
    try:
        maker.wait(f"{PREFIX}-0")
        os.kill(maker.pid, signal.SIGKILL)
        with pytest.raises(KernelError, match="was killed"):
            maker.wait_for_all()
    finally:
        maker.close()


def test_it_ends_with_the_process_that_started_it_and_holds_its_lock_until_then(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock, PREFIX], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "made\n"
        holder.kill()
    with lock.open() as file:
        deadline = time.monotonic() + 60
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline, "the maker lives on"
                time.sleep(0.01)
    # Its last deed may be half done; with the lock free, nothing more comes.
    before = netns.names()
    time.sleep(0.05)
    assert netns.names() == before
