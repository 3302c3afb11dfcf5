"""The plugin as executables, with state of their own, and servers that end with the test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[4]
PYTHON = ROOT / "cni/podnet-python"
STATE = Path("/var/lib/cni/podnet")


def until(true: Callable[[], Any], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.01)


class Plugin:
    """An executable of the plugin, called as a runtime calls it."""

    def __init__(self, path: Path, socket: Path) -> None:
        self.path, self.socket = path, socket

    def environ(self, command: str, container: str, ifname: str, **more: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PODNET_CNI_SOCKET": str(self.socket),
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": ifname,
            "CNI_PATH": str(self.path.parent),
        } | more

    def start(
        self,
        command: str,
        conf: dict[str, Any],
        container: str = "c1",
        ifname: str = "eth0",
        before: tuple[str, ...] = (),
        **more: str,
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*before, self.path],
            env=self.environ(command, container, ifname, **more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(conf))
        process.stdin.close()
        process.stdin = None
        return process

    def call(self, command: str, conf: dict[str, Any], container: str = "c1", **more: Any) -> tuple[int, Any, str]:
        """Exit code, what was printed (``None`` for nothing), and what was said beside."""
        process = self.start(command, conf, container, **more)
        output, said = process.communicate(timeout=120)
        return process.returncode, json.loads(output) if output else None, said

    def add(self, conf: dict[str, Any], container: str = "c1", **more: Any) -> Any:
        code, answer, said = self.call("ADD", conf, container, **more)
        assert code == 0, (answer, said)
        return answer


class Servers:
    """Starts servers at the test's socket, in the network namespace that this object was made in."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._stack = ExitStack()
        # The tests' host is another one, and what they start is in it.
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, self._home)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        there = f"--net=/proc/{os.getpid()}/fd/{self._home}"
        argv = ["nsenter", there, sys.executable, "-IS", PYTHON, "serve", "--socket", self.socket, *options]
        process = self._stack.enter_context(subprocess.Popen(argv, stdin=subprocess.DEVNULL))
        self._stack.callback(process.kill)
        until(lambda: self.socket.exists() or process.poll() is not None, "the server's socket")
        assert process.poll() is None
        return process

    def end(self) -> None:
        self._stack.close()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a CNI bin directory, with the small executable and the Python one beside it."""
    folder = tmp_path_factory.mktemp("bin")
    build = ["gcc", "-Os", "-static", "-Wall", "-Wextra", "-Werror", "-o", folder / "podnet", ROOT / "cni/podnet.c"]
    subprocess.run(build, check=True)
    (folder / "podnet-python").write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from podnet.cni.executable import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    (folder / "podnet-python").chmod(0o755)
    return folder


@pytest.fixture
def state() -> Iterator[Path]:
    """An empty /var/lib/cni of the test's own."""
    STATE.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "podnet-test", STATE.parent], check=True)
    try:
        yield STATE
    finally:
        subprocess.run(["umount", "-l", STATE.parent], check=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: a socket's has 107 bytes."""
    path = Path(f"/run/podnet/test-{os.getpid()}")
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def servers(state: Path, folder: Path) -> Iterator[Servers]:
    found = Servers(folder / "cni.sock")
    try:
        yield found
    finally:
        found.end()


@pytest.fixture(params=["podnet", "podnet-python"])
def plugin(request: pytest.FixtureRequest, compiled: Path, servers: Servers) -> Plugin:
    """Both executables that a runtime may find."""
    return Plugin(compiled / request.param, servers.socket)


@pytest.fixture
def small(compiled: Path, servers: Servers) -> Plugin:
    """The small executable."""
    return Plugin(compiled / "podnet", servers.socket)


@pytest.fixture
def calls(state: Path) -> Callable[[], list[tuple[str, str, bool]]]:
    """What the log says of every call: verb, container, whether a server has carried it out."""

    def found() -> list[tuple[str, str, bool]]:
        lines = (state / "calls.jsonl").read_text().splitlines() if (state / "calls.jsonl").exists() else []
        return [
            (each["verb"], each.get("container", ""), each["warm"]) for each in map(json.loads, filter(None, lines))
        ]

    return found
