"""Who the supervisor is, the kernel says; and whose a process is, its marks say."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import pytest

from podnet.errors import KernelError
from podnet.kernel.container import Container, Processes, Seen, owners
from podnet.kernel.process import Supervisor, holder


def test_no_lock_no_supervisor(tmp_path):
    assert holder(str(tmp_path)) is None
    assert holder(str(tmp_path / "nowhere")) is None
    (tmp_path / "supervisor.lock").write_text("1\n")
    assert Supervisor(str(tmp_path)).pid() is None


def test_the_holder_of_the_lock_is_the_supervisor(tmp_path):
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    path = str(tmp_path / "supervisor.lock")
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert holder(str(tmp_path)) == other.pid
        other.kill()
    assert holder(str(tmp_path)) is None


def test_a_lock_of_another_kind_is_no_supervisor(tmp_path):
    """flock(2) and POSIX locks do not see each other."""
    with open(tmp_path / "supervisor.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder(str(tmp_path)) is None


def test_a_link_in_place_of_the_lock_is_refused(tmp_path):
    os.symlink("/etc/passwd", tmp_path / "supervisor.lock")
    with pytest.raises(KernelError, match=r"cannot read .*supervisor\.lock"):
        holder(str(tmp_path))


def test_the_client_imports_nothing_heavy():
    """What ``podnet status`` pays for."""
    code = "import sys; import podnet.kernel.process; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"ctypes", "subprocess", "asyncio", "logging", "pyroute2", "scapy", "pydantic"} & set(loaded)


def container(name: str, mounts: int, pid: int = 0) -> Container:
    return Container(f"net-{name}", name, ["true"], [], pid=pid, mounts=mounts)


CONTAINERS = [container("web/app", 500, 10), container("web/sidecar", 600, 20), container("api/app", 0, 30)]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({10: Seen(1, "5", 500, "")}, {10: "web/app"}),
        ({11: Seen(10, "5", 500, "")}, {11: "web/app"}),
        ({11: Seen(1, "5", 500, "")}, {11: "web/app"}),  # a daemon, its parent gone, its environment cleared
        ({11: Seen(1, "5", 600, "web/app")}, {11: "web/sidecar"}),  # the mount namespace is the stronger mark
        ({11: Seen(1, "5", 700, "web/app")}, {11: "web/app"}),  # it left the mount namespace
        ({11: Seen(10, "5", 700, ""), 10: Seen(1, "5", 500, "")}, {10: "web/app", 11: "web/app"}),
        (
            {2: Seen(3, "5", 7, ""), 3: Seen(4, "5", 8, ""), 4: Seen(10, "5", 9, "")},
            {2: "web/app", 3: "web/app", 4: "web/app"},
        ),
        ({11: Seen(1, "5", 700, "")}, {}),
        ({11: Seen(1, "5", 700, "other/app")}, {}),
        ({30: Seen(1, "5", 1, "")}, {30: "api/app"}),  # forked, and not in its mount namespace yet
        ({40: Seen(1, "5", 0, "")}, {}),
    ],
)
def test_whose_a_process_is(seen, expected):
    assert owners(seen, CONTAINERS) == expected


@pytest.mark.parametrize(("began", "expected"), [("5", {11: "web/app"}), ("6", {})], ids=["itself", "a later one"])
def test_who_is_about_to_end_is_known_from_before(began, expected):
    assert owners({11: Seen(1, began, 0, "")}, CONTAINERS, [(11, "5", "web/app")]) == expected


def test_outside_a_pid_namespace_of_its_own_nothing_is_supervised():
    """There, all processes would be the machine's."""
    with pytest.raises(KernelError, match="only the first process of a PID namespace"):
        Processes()
