"""A machine of a test's own: network, mounts and processes that nobody else sees, and that end with the test.

A runtime writes to fixed places (``/run/containerd``, ``/run/netns``, ``/var/lib/cni``): here these are empty file
systems in memory. Its first process waits for the end of its standard input; so the machine ends with whoever
made it, also with one that was killed, and takes every process in it along.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["OwnMachine", "until"]

_SETUP = """
mount -t tmpfs -o mode=755 podnet-test /run
mount -t tmpfs -o mode=755 podnet-test /var/lib
mkdir -p /run/netns /run/cni/bin /run/cni/net.d
ip link set lo up
sysctl -qw net.ipv4.ip_forward=0
echo ready
read -r _ || exit 0
"""
# In a process there: SQLite follows the way through /proc to a path that is another file on the test's own machine.
_READ = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for table, in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1").fetchall():
    # Where the search for the next address goes on is kept by intention.
    for row in db.execute(f"SELECT * FROM {table}") if table != "latest" else ():
        print(table, *row)
"""
_PATIENCE = 60.0  # seconds: the machine that the tests run on may be busy
_SETTLES_WITHIN = 20.0


def until(condition: Callable[[], Any], what: str, patience: float = _PATIENCE) -> Any:
    """Wait for a condition to be true; what it was. Fails the test after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain: {what}"
        time.sleep(0.02)


class OwnMachine:
    """The machine; ``path`` translates a path in it to one that the test can open."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        flags = ["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
        self._init = subprocess.Popen(
            ["unshare", *flags, "--propagation", "private", "bash", "-euc", _SETUP],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._init.stdout is not None
        if self._init.stdout.readline() != "ready\n":
            self.close()
            msg = "the test's own machine could not be made"
            raise AssertionError(msg)

    def close(self) -> None:
        """End every process of the machine."""
        assert self._init.stdin is not None
        assert self._init.stdout is not None
        self._init.stdin.close()
        try:
            self._init.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._init.kill()
            self._init.wait()
        self._init.stdout.close()
        for each in self._started:
            each.wait(_PATIENCE)

    def argv(self, *argv: str | Path, netns: str = "") -> list[str | Path]:
        """A command as the test must start it for it to run in here, or in one of the machine's namespaces."""
        spaces = f"/proc/{self._init.pid}/ns"
        enter: list[str | Path] = ["nsenter", f"--net={spaces}/net", f"--mount={spaces}/mnt", f"--ipc={spaces}/ipc",
                                   f"--uts={spaces}/uts", f"--pid={spaces}/pid_for_children"]  # fmt: skip
        # A path below the machine's own mounts: only whoever is there can open it.
        return [*enter, "nsenter", f"--net={netns}", *argv] if netns else [*enter, *argv]

    def run(
        self, *argv: str | Path, netns: str = "", check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            self.argv(*argv, netns=netns), capture_output=True, text=True, stdin=subprocess.DEVNULL, **options
        )
        if check:
            said = f"{done.stdout}{done.stderr}"
            assert done.returncode == 0, f"{' '.join(map(str, argv))}: exit code {done.returncode}: {said}"
        return done

    def out(self, *argv: str | Path, netns: str = "") -> str:
        """What a command prints."""
        return self.run(*argv, netns=netns).stdout

    def json(self, *argv: str | Path, netns: str = "") -> Any:
        """What a command prints as JSON."""
        return json.loads(self.out(*argv, netns=netns) or "[]")

    def start(self, *argv: str | Path, log: Path, netns: str = "", **options: Any) -> subprocess.Popen[bytes]:
        """Start a command that goes on running; what it says goes to ``log``."""
        with log.open("ab") as file:
            started = subprocess.Popen(
                self.argv(*argv, netns=netns), stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options
            )
        self._started.append(started)
        return started

    def path(self, inside: str | Path) -> Path:
        """A path of the machine, as seen from the test."""
        return Path(f"/proc/{self._first()}/root{inside}")

    def _first(self) -> int:
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        return int(children[0])

    # -- what there is in it --------------------------------------------------------------------------------

    def address(self, name: str, netns: str = "") -> list[str]:
        """The addresses of an interface, with prefix length, without link-local ones."""
        rows = self.json("ip", "-j", "address", "show", "dev", name, netns=netns)
        return [f"{each['local']}/{each['prefixlen']}" for row in rows for each in row.get("addr_info", [])
                if each.get("scope") == "global"]  # fmt: skip

    def state(self) -> dict[str, list[str]]:
        """All that a runtime and its plugins could leave, by topic."""
        # What is on its way to being a container's process is none yet.
        until(lambda: not [each for each in self.processes() if each.endswith("runc init")], "containers have started")
        rules = self.json("nft", "-j", "list", "ruleset").get("nftables", [])
        return {
            "links": sorted(row["ifname"] for row in self.json("ip", "-j", "link")),
            "routes": sorted(row["dst"] for row in self.json("ip", "-j", "route", "show", "table", "main")),
            "rules": sorted(_rule(row) for row in rules if "metainfo" not in row),
            "queueing": sorted(line for line in self.out("tc", "qdisc").splitlines() if "noqueue" not in line),
            "namespaces": sorted(self.out("ls", "/run/netns").split()),
            "mounts": sorted(self.mounts()),
            "processes": sorted(self.processes()),
            "results": sorted(self.files("/var/lib/cni/results")),
            "reservations": self.reservations(),
        }

    def changes(self, before: dict[str, list[str]]) -> list[str]:
        """What came and what went since, one line each.

        As soon as that is nothing; runtimes end their helpers and mounts in the background.
        """
        deadline = time.monotonic() + _SETTLES_WITHIN
        while True:
            after = self.state()
            lines = [f"{topic}: gone: {each}" for topic in before for each in before[topic] if each not in after[topic]]
            lines += [f"{topic}: left: {each}" for topic in after for each in after[topic] if each not in before[topic]]
            if not lines or time.monotonic() > deadline:
                return lines
            time.sleep(0.05)

    def mounts(self) -> list[str]:
        """The mount points on the machine's own file systems; others are the surrounding machine's, and come and go."""
        rows = [line.split() for line in self.out("cat", "/proc/self/mountinfo").splitlines()]
        own = {row[0] for row in rows if "podnet-test" in row[row.index("-") :]}
        found = []
        while new := [row for row in rows if row[1] in own and row[0] not in own]:
            own |= {row[0] for row in new}
            found += [row[4] for row in new]
        return found

    def processes(self) -> list[str]:
        """What runs, without the machine's first process and whoever asks."""
        found = []
        for line in self.out("ps", "-eo", "pid=,args=").splitlines():
            pid, _, command = line.strip().partition(" ")
            if pid != "1" and "ps -eo" not in command and "<defunct>" not in command:
                found.append(command)
        return found

    def files(self, folder: str) -> list[str]:
        """The names in a folder, as far as there is one."""
        return self.run("ls", "-A", folder, check=False).stdout.split()

    def reservations(self, state: str = "/var/lib/cni/podnet") -> list[str]:
        """The attachments and addresses in the plugin's ledger, read by SQLite itself."""
        file = f"{state}/podnet.sqlite"
        return self.out(sys.executable, "-I", "-c", _READ, file).splitlines() if self.files(file) else []


def _rule(row: dict[str, Any]) -> str:
    def steady(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: steady(v) for k, v in value.items() if k not in ("handle", "packets", "bytes", "index")}
        return [steady(each) for each in value] if isinstance(value, list) else value

    return json.dumps(steady(row), sort_keys=True)


@contextmanager
def own_machine(plugins: Sequence[tuple[str, Path]] = ()) -> Iterator[OwnMachine]:
    """A machine with these executables, as name and file, in ``/run/cni/bin``."""
    machine = OwnMachine()
    try:
        for name, file in plugins:
            machine.path("/run/cni/bin").joinpath(name).symlink_to(file)
        yield machine
    finally:
        machine.close()


def missing(*programs: str) -> str:
    """Which of these programs are not installed; empty where none is."""
    lacking = [each for each in programs if shutil.which(each, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    return f"{', '.join(lacking)} not installed: scripts/setup --test" if lacking else ""
