"""A container ends with all that came from it, and nothing else does."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from podnet.kernel.log import read_log

pytestmark = pytest.mark.kernel

# A daemon as textbooks make it, and its environment is cleared; the first process stays.
DAEMON = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", ["sleep", "1000"], {})
    os._exit(0)
os.wait()
print("up", flush=True)
signal.pause()
"""

# It takes some milliseconds to end, after it has lost its memory and before it loses its mount namespace: so many locks
# has it to give back. In many files, because the kernel looks through all of a file's for each new one.
SLOW_TO_END = """
import fcntl, signal, tempfile
files = [tempfile.TemporaryFile() for _ in range(300)]
for file in files:
    for at in range(600):
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * at)
print("up", flush=True)
signal.pause()
"""


def text(path: Path) -> str:
    return read_log(path).decode() if path.exists() else ""


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def ended(pid: int) -> bool:
    """Whether it has ended: perhaps it is still to be waited for (Z), or is being waited for just now (X)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_stop_ends_a_container_and_not_its_neighbours(lab, other_lab):
    for one in (lab, other_lab):
        one.supervisor.start([one.process(f"web/{name}", "sleep", "1000") for name in ("app", "sidecar")])
    app, sidecar = lab.supervisor.observe()
    began = time.monotonic()
    lab.supervisor.stop(["web/app", "web/unknown"], grace=60.0)
    assert time.monotonic() - began < 30.0, "it waits for what has ended"
    assert not alive(app.pid)
    assert lab.supervisor.observe() == [sidecar]
    assert lab.inside() == {sidecar.pid}
    assert len(other_lab.inside()) == 2


@pytest.mark.parametrize("how", ["stop", "shutdown", "kill"])
def test_a_daemon_ends_with_its_container(lab, wait_until, how):
    lab.supervisor.start([lab.process("web/app", sys.executable, "-c", DAEMON)])
    lab.supervisor.start([lab.process("web/sidecar", "sleep", "1000")])
    wait_until(lambda: "up" in text(lab.supervisor.log_path("web/app")))
    assert len(lab.inside()) == 3
    sidecar = lab.status("web/sidecar").pid
    supervisor = lab.supervisor.pid()
    match how:
        case "stop":
            lab.supervisor.stop(["web/app"])
            assert lab.inside() == {sidecar}
        case "shutdown":
            lab.supervisor.shutdown()
            assert lab.inside() == set()
        case "kill":
            os.kill(supervisor, signal.SIGKILL)
            wait_until(lambda: not lab.inside())


@pytest.mark.parametrize(
    "leave",
    ["unshare --mount sleep 1000", "env -i unshare --mount sleep 1000", "unshare --net --mount setsid sleep 1000"],
    ids=["marked by its environment", "marked by its parent", "in no pod any more"],
)
def test_a_process_that_left_the_mount_namespace_is_found(lab, wait_until, leave):
    lab.supervisor.start([lab.process("web/app", "sh", "-c", f"{leave} & sleep 1000")])
    lab.supervisor.start([lab.process("web/sidecar", "sleep", "2000")])
    of_lab = os.stat(f"/proc/{lab.status('web/app').pid}/ns/pid").st_ino

    def sleeping() -> int:
        found = 0
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and os.stat(f"/proc/{entry}/ns/pid").st_ino == of_lab:
                    found += Path(f"/proc/{entry}/comm").read_text() == "sleep\n" and not ended(int(entry))
        return found

    wait_until(lambda: sleeping() == 3)
    lab.supervisor.stop(["web/app"])
    assert sleeping() == 1


def test_a_process_that_is_about_to_end_is_waited_for(lab, wait_until):
    # It has neither its container's mount namespace nor its environment, and after SIGTERM no parent any more.
    command = f"env -i unshare --mount {sys.executable} -Ic '{SLOW_TO_END}' & exec sleep 1000"
    lab.supervisor.start([lab.process("web/app", "sh", "-c", command)])
    wait_until(lambda: "up" in text(lab.supervisor.log_path("web/app")), 60.0)
    first = lab.status("web/app").pid
    (slow,) = lab.inside() - {first}
    lab.supervisor.stop(["web/app"], grace=30.0)
    assert ended(slow)
    assert ended(first)


def test_what_ignores_sigterm_is_killed_after_the_grace(lab, wait_until):
    lab.supervisor.start([lab.process("web/app", "sh", "-c", "trap '' TERM; echo up; sleep 1000; sleep 1000")])
    wait_until(lambda: "up" in text(lab.supervisor.log_path("web/app")))
    began = time.monotonic()
    lab.supervisor.stop(["web/app"], grace=0.5)
    assert 0.5 <= time.monotonic() - began < 15.0
    assert lab.inside() == set()


def test_what_handles_sigterm_is_given_time(lab, wait_until):
    command = "trap 'sleep 0.3; echo bye; exit' TERM; echo up; while :; do sleep 0.05; done"
    lab.supervisor.start([lab.process("web/app", "sh", "-c", command)])
    wait_until(lambda: "up" in text(lab.supervisor.log_path("web/app")))
    lab.supervisor.stop(["web/app"], grace=5.0)
    wait_until(lambda: text(lab.supervisor.log_path("web/app")).endswith("bye\n"))


def test_after_stop_the_port_is_free(lab, wait_until):
    """Ten rounds, because a process that is about to end is easily taken for one that ended."""
    serve = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 80), reuse_port=False); print('up', flush=True)"
    )
    server = lab.process("web/server", sys.executable, "-c", f"{serve}; time.sleep(1000)")
    for round_number in range(1, 11):
        lab.supervisor.start([server])
        wait_until(lambda n=round_number: text(lab.supervisor.log_path("web/server")) == "up\n" * n)
        lab.supervisor.stop(["web/server"])
