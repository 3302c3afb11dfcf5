"""One supervisor a lab: it outlives its starter, and nothing outlives it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from podnet.errors import KernelError
from podnet.kernel.log import read_log
from podnet.kernel.process import Supervisor

pytestmark = pytest.mark.kernel


def text(path: Path) -> str:
    return read_log(path).decode() if path.exists() else ""


def alive(pid: int) -> bool:
    """Whether the process is there and not merely waiting for the machine's init to notice its end."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_supervisor_outlives_who_started_it(lab, wait_until):
    code = (
        "import sys; from podnet.kernel.objects import Process; from podnet.kernel.process import Supervisor; "
        "Supervisor(sys.argv[1]).start([Process(sys.argv[2], 'web/app', ('sleep', '1000'))])"
    )
    subprocess.run([sys.executable, "-c", code, lab.directory, lab.pods[0]], check=True)
    assert lab.status("web/app").state == "running"
    pid = lab.supervisor.pid()
    status = Path(f"/proc/{pid}/status").read_text()
    assert "NSpid:" in status
    assert status.split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/fd/1") == os.readlink(f"/proc/{pid}/fd/2") == f"{lab.directory}/supervisor.log"
    assert {name: oct(os.stat(f"{lab.directory}/{name}").st_mode & 0o777) for name in os.listdir(lab.directory)} == {
        "hosts": "0o644",
        "logs": "0o700",
        "supervisor.lock": "0o600",
        "supervisor.log": "0o600",
        "supervisor.sock": "0o600",
    }


def test_killing_the_supervisor_ends_all_and_start_works_again(lab, wait_until):
    apps = [lab.process(f"web/app{i}", "sleep", "1000") for i in range(20)]
    lab.supervisor.start(apps)
    killed = lab.supervisor.pid()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not lab.inside())
    wait_until(lambda: lab.supervisor.pid() is None)
    assert lab.supervisor.observe() == []
    lab.supervisor.start(apps[:1])
    assert lab.supervisor.pid() not in {killed, None}
    assert [one.process.name for one in lab.supervisor.observe()] == ["web/app0"]


def test_shutdown_ends_everything_and_again_is_no_error(lab):
    lab.supervisor.start([lab.process(f"web/app{i}", "sleep", "1000") for i in range(5)])
    pid = lab.supervisor.pid()
    began = time.monotonic()
    lab.supervisor.shutdown(grace=60.0)
    assert time.monotonic() - began < 30.0, "it waits for what has ended"
    assert not alive(pid)
    assert lab.inside() == set()
    assert lab.supervisor.pid() is None
    lab.supervisor.shutdown()
    assert sorted(os.listdir(lab.directory)) == ["hosts", "logs", "supervisor.lock", "supervisor.log"]
    assert Path(lab.directory, "supervisor.log").read_text() == ""


def test_shutdown_does_not_wait_longer_than_the_grace(lab, wait_until):
    lab.supervisor.start([lab.process("web/app", "sh", "-c", "trap '' TERM; echo up; sleep 1000; sleep 1000")])
    wait_until(lambda: "up" in text(lab.supervisor.log_path("web/app")))
    began = time.monotonic()
    lab.supervisor.shutdown(grace=0.5)
    assert 0.5 <= time.monotonic() - began < 15.0
    assert lab.inside() == set()


def test_shutdown_ends_a_supervisor_that_does_not_answer(lab):
    lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
    pid = lab.supervisor.pid()
    os.kill(pid, signal.SIGSTOP)
    lab.supervisor.shutdown(grace=0.2)
    assert lab.supervisor.pid() is None
    assert lab.inside() == set()


def test_sigterm_to_the_supervisor_is_a_shutdown(lab, wait_until):
    lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
    os.kill(lab.supervisor.pid(), signal.SIGTERM)
    wait_until(lambda: lab.supervisor.pid() is None and not lab.inside())


def test_starts_at_the_same_time_share_one_supervisor(lab):
    code = (
        "import sys; from podnet.kernel.objects import Process; from podnet.kernel.process import Supervisor; input(); "
        "Supervisor(sys.argv[1]).start([Process(sys.argv[2], 'web/' + sys.argv[3], ('sleep', '1000'))])"
    )
    starters = [
        subprocess.Popen([sys.executable, "-c", code, lab.directory, lab.pods[0], f"app{i}"], stdin=subprocess.PIPE)
        for i in range(4)
    ]
    time.sleep(0.5)
    for starter in starters:
        starter.stdin.write(b"\n")
        starter.stdin.close()
    assert [starter.wait(60) for starter in starters] == [0, 0, 0, 0]
    assert lab.supervisors() == [lab.supervisor.pid()]
    assert sorted(one.process.name for one in lab.supervisor.observe()) == [f"web/app{i}" for i in range(4)]
    assert len(lab.inside()) == 4


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1])
def test_shutdown_during_start_leaves_nothing(lab, wait_until, delay):
    apps = [lab.process(f"web/app{i}", "sleep", "1000") for i in range(60)]
    errors = []

    def start() -> None:
        try:
            lab.supervisor.start(apps)
        except KernelError as error:
            errors.append(str(error))

    starter = threading.Thread(target=start)
    starter.start()
    wait_until(lambda: lab.supervisor.pid() is not None)
    time.sleep(delay)
    lab.supervisor.shutdown()
    starter.join()
    # Either the start came first and was ended, or it came after and is whole.
    assert lab.supervisor.pid() is None or len(lab.inside()) == 60, errors
    lab.supervisor.shutdown()
    assert lab.inside() == set()


def test_a_supervisor_whose_starter_was_killed_meanwhile_goes_on(lab, wait_until):
    listening, told = os.pipe()
    os.close(listening)  # as the kernel does for whoever was killed
    try:
        command = [sys.executable, "-I", "-m", "podnet.kernel.supervisor", lab.directory]
        assert subprocess.run(command, stdout=told, stderr=subprocess.STDOUT, cwd="/").returncode == 0
    finally:
        os.close(told)
    wait_until(lambda: lab.supervisor.pid() is not None)
    first = lab.supervisor.pid()
    lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
    assert lab.supervisor.pid() == first
    assert lab.status("web/app").state == "running"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_supervisor_that_ends_while_it_is_asked_is_as_good_as_none(lab, wait_until, number):
    """It is stopped, so that requests reach it and are never read; then it ends."""
    lab.supervisor.start([lab.process("web/old", "sleep", "1000")])
    first = lab.supervisor.pid()
    os.kill(first, signal.SIGSTOP)
    seen, errors = {}, []

    def ask(what: str) -> None:
        try:
            if what == "start":
                lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
            elif what == "stop":
                lab.supervisor.stop(["web/old"])
            else:
                seen["status"] = lab.supervisor.observe()
        except KernelError as error:
            errors.append(str(error))

    askers = [threading.Thread(target=ask, args=(what,)) for what in ("start", "stop", "status")]
    for asker in askers:
        asker.start()
    # Each has connected: their ends of the supervisor's socket wait to be accepted.
    wait_until(lambda: Path("/proc/net/unix").read_text().count(f"{lab.directory}/supervisor.sock") >= 4)
    os.kill(first, number)
    os.kill(first, signal.SIGCONT)
    for asker in askers:
        asker.join()
    assert errors == []
    assert {one.process.name for one in seen["status"]} <= {"web/app", "web/old"}
    assert lab.supervisor.pid() not in {first, None}
    assert lab.status("web/app").state == "running"
    assert [one.process.name for one in lab.supervisor.observe()] == ["web/app"]


def test_a_supervisor_that_hangs_up_and_lives_is_named(lab):
    """As it does on who is not root."""
    lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
    os.chmod(lab.directory, 0o755)  # noqa: S103 - what must not help
    for name in ("supervisor.sock", "supervisor.lock"):
        os.chmod(f"{lab.directory}/{name}", 0o666)  # noqa: S103
    code = (
        "import os, sys; from podnet.kernel import process; os.setuid(65534); process._SPAWN_LIMIT = 0.2; "
        "process.Supervisor(sys.argv[1]).observe()"
    )
    asked = subprocess.run([sys.executable, "-c", code, lab.directory], capture_output=True, text=True)
    assert f"(pid {lab.supervisor.pid()}) hung up when it was asked to status" in asked.stderr
    assert lab.status("web/app").state == "running"


@pytest.mark.parametrize("what", ["the directory", "the lock file"])
def test_a_supervisor_whose_directory_is_gone_ends(lab, wait_until, what):
    lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
    [pid] = lab.supervisors()
    if what == "the directory":
        shutil.rmtree(lab.directory)
    else:
        Path(lab.directory, "supervisor.lock").unlink()
    assert lab.supervisor.pid() is None
    wait_until(lambda: not alive(pid) and not lab.inside())


def test_a_supervisor_without_containers_ends(lab, wait_until):
    lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
    lab.supervisor.stop(["web/app"])
    assert lab.supervisor.pid() is not None
    assert wait_until(lambda: lab.supervisor.pid() is None, 60.0) > 9.0


def test_a_directory_that_is_not_there_is_named(lab):
    with pytest.raises(KernelError, match=r"cannot start the supervisor of /nonexistent/lab: .*No such file"):
        Supervisor("/nonexistent/lab").start([lab.process("web/app", "true")])


def test_who_is_not_root_is_not_answered(lab):
    lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
    os.chmod(lab.directory, 0o755)  # noqa: S103 - what must not help
    os.chmod(f"{lab.directory}/supervisor.sock", 0o666)  # noqa: S103
    code = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); os.setuid(65534); s.connect(sys.argv[1]); "
        'print(s.recv(100)) if not s.sendall(b\'{"do": "shutdown", "grace": 0}\\n\') else 0'
    )
    asked = subprocess.run(
        [sys.executable, "-c", code, f"{lab.directory}/supervisor.sock"], capture_output=True, text=True
    )
    assert asked.stdout in {"", "b''\n"}
    assert lab.status("web/app").state == "running"


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b'{"do": "dance"}\n', b'{"do": "start"}\n', b'{"do": "sta', b"\xff\n"]
)
def test_no_request_ends_the_supervisor(lab, line):
    lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{lab.directory}/supervisor.sock")
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(1000)
    assert answer.startswith(b'{"error"')
    assert lab.status("web/app").state == "running"
