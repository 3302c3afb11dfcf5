"""A lab's run directory and two pods, and the proof that nothing of them is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from podnet.kernel.objects import Process
from podnet.kernel.process import ProcessStatus, Supervisor


@dataclass
class Lab:
    directory: str
    pods: tuple[str, str]

    @property
    def supervisor(self) -> Supervisor:
        return Supervisor(self.directory)

    def process(self, name: str, *argv: str, env: tuple[tuple[str, str], ...] = (), pod: int = 0) -> Process:
        return Process(self.pods[pod], name, argv, env)

    def status(self, name: str) -> ProcessStatus:
        return next(one for one in self.supervisor.observe() if one.process.name == name)

    def inside(self, pod: int = 0) -> set[int]:
        """The processes in a pod's network namespace, as iproute2 finds them."""
        found = subprocess.run(["ip", "netns", "pids", self.pods[pod]], capture_output=True, text=True, check=True)
        return {int(pid) for pid in found.stdout.split()}

    def supervisors(self) -> list[int]:
        """The processes whose command line says that they supervise this lab."""
        wanted = ["podnet.kernel.supervisor", self.directory]
        return [pid for pid in pids() if command_line(pid)[-2:] == wanted]


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def wait_until(true: Callable[[], object], seconds: float = 30.0) -> float:
    """Wait until something is so; returns how long that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"not so within {seconds} s"
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., float]:
    return wait_until


def _new_lab(tag: str) -> Lab:
    pods = (f"pt{os.getpid()}{tag}-web", f"pt{os.getpid()}{tag}-api")
    for pod in pods:
        subprocess.run(["ip", "netns", "add", pod], check=True)
        subprocess.run(["ip", "-n", pod, "link", "set", "lo", "up"], check=True)
    return Lab(tempfile.mkdtemp(prefix="podnet-test-"), pods)


def _ended(lab: Lab) -> None:
    """End whatever the test left, by the kernel's own means and not by what is tested; then nothing is there."""
    left: set[int] = set()
    try:
        for pid in lab.supervisors():
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30.0
        while time.monotonic() < deadline:
            left = {*lab.supervisors(), *lab.inside(0), *lab.inside(1)}
            if not left:
                break
            time.sleep(0.02)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    finally:
        for pod in lab.pods:
            subprocess.run(["ip", "netns", "del", pod], check=True)
        shutil.rmtree(lab.directory, ignore_errors=True)
    assert not left, "processes outlived their supervisor"


@pytest.fixture
def lab() -> Iterator[Lab]:
    one = _new_lab("a")
    yield one
    _ended(one)


@pytest.fixture
def other_lab() -> Iterator[Lab]:
    one = _new_lab("b")
    yield one
    _ended(one)
