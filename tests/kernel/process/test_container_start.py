"""A container is started in its pod, and seen as what it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from podnet.errors import KernelError
from podnet.kernel.log import read_log

pytestmark = pytest.mark.kernel


def text(path: Path) -> str:
    return read_log(path).decode() if path.exists() else ""


def test_no_supervisor_is_started_by_looking(lab):
    assert lab.supervisor.pid() is None
    assert lab.supervisor.observe() == []
    lab.supervisor.stop(["web/app"])
    lab.supervisor.shutdown()
    assert os.listdir(lab.directory) == []


def test_a_container_runs_in_the_network_namespace_of_its_pod(lab):
    states = lab.supervisor.start(
        [lab.process("web/app", "sleep", "1000"), lab.process("api/app", "sleep", "1", pod=1)]
    )
    for state, pod in zip(states, lab.pods, strict=True):
        assert os.stat(f"/proc/{state.pid}/ns/net").st_ino == os.stat(f"/run/netns/{pod}").st_ino
    assert states[0].state == "running"
    assert abs(states[0].started - time.time()) < 5
    assert lab.supervisor.observe()[0] == states[0]


def test_the_pid_is_the_machines(lab):
    [state] = lab.supervisor.start([lab.process("web/app", "sleep", "1234")])
    assert Path(f"/proc/{state.pid}/cmdline").read_bytes() == b"sleep\x001234\x00"
    assert lab.supervisors() == [lab.supervisor.pid()]


def test_two_containers_of_one_pod_share_localhost(lab, wait_until):
    serve = (
        "import socket; s = socket.create_server(('127.0.0.1', 8080)); print('ready', flush=True); "
        "s.accept()[0].sendall(b'hello'); input()"
    )
    ask = "import socket; print(socket.create_connection(('127.0.0.1', 8080)).recv(5).decode())"
    lab.supervisor.start([lab.process("web/server", sys.executable, "-c", serve)])
    wait_until(lambda: "ready" in text(lab.supervisor.log_path("web/server")))
    lab.supervisor.start([lab.process("web/client", sys.executable, "-c", ask)])
    wait_until(lambda: lab.status("web/client").state == "exited")
    assert text(lab.supervisor.log_path("web/client")) == "hello\n"
    refused = "import socket; socket.create_connection(('127.0.0.1', 8080))"
    lab.supervisor.start([lab.process("api/client", sys.executable, "-c", refused, pod=1)])
    wait_until(lambda: lab.status("api/client").exit_code == 1)


@pytest.mark.parametrize(
    ("command", "exit_code", "number"),
    [("exit 0", 0, None), ("exit 7", 7, None), ("kill -SEGV $$", None, 11), ("kill -KILL $$", None, 9)],
)
def test_how_a_container_ended_is_seen(lab, wait_until, command, exit_code, number):
    lab.supervisor.start([lab.process("web/app", "sh", "-c", command)])
    wait_until(lambda: lab.status("web/app").state == "exited")
    assert (lab.status("web/app").exit_code, lab.status("web/app").signal) == (exit_code, number)


def test_a_signal_from_outside_ends_a_container(lab, wait_until):
    [state] = lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
    os.kill(state.pid, signal.SIGTERM)
    wait_until(lambda: lab.status("web/app").signal == signal.SIGTERM)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("nginxx",), "cannot execute 'nginxx': No such file or directory"),
        (("/etc/passwd",), "cannot execute '/etc/passwd': Permission denied"),
        (("/tmp",), "cannot execute '/tmp': Permission denied"),
    ],
)
def test_what_cannot_be_executed_is_named_and_the_others_run(lab, argv, why):
    with pytest.raises(KernelError) as refused:
        lab.supervisor.start([lab.process("web/server", *argv), lab.process("web/good", "sleep", "1000")])
    assert str(refused.value) == f"web/server: {why}"
    assert lab.status("web/server").state == "failed"
    assert lab.status("web/server").message == f"web/server: {why}"
    assert lab.status("web/server").pid == 0
    assert lab.status("web/good").state == "running"


def test_all_that_failed_are_named(lab):
    lost = lab.process("web/b", "sleep", "1")
    lost = type(lost)("nowhere", lost.name, lost.argv)
    with pytest.raises(KernelError) as refused:
        lab.supervisor.start([lab.process("web/a", "nginxx"), lost])
    assert str(refused.value).splitlines() == [
        "web/a: cannot execute 'nginxx': No such file or directory",
        "web/b: no namespace nowhere under /run/netns",
    ]


def test_the_environment_is_small_and_clean(lab, wait_until, monkeypatch):
    monkeypatch.setenv("SECRET", "of the caller")
    monkeypatch.setenv("TERM", "xterm")
    lab.supervisor.start([lab.process("web/app", "env", "-0", env=(("LANG", "C"), ("COLOR", "blue\ngreen")))])
    wait_until(lambda: lab.status("web/app").state == "exited")
    entries = text(lab.supervisor.log_path("web/app")).rstrip("\0").split("\0")
    assert sorted(entries) == [
        "COLOR=blue\ngreen",
        "HOME=/root",
        "HOSTNAME=web",
        "LANG=C",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PODNET_CONTAINER=web/app",
    ]


def test_a_container_inherits_nothing(lab, wait_until):
    """No descriptor, no blocked or ignored signal, no terminal, no limit of the supervisor."""
    look = (
        "ls -l /proc/self/fd; grep -E 'SigBlk|SigIgn' /proc/self/status; ulimit -n; pwd; umask; "
        "test \"$(cut -d' ' -f6 /proc/$$/stat)\" = $$ && echo leads its session"
    )
    lab.supervisor.start([lab.process("web/app", "sh", "-c", look)])
    wait_until(lambda: lab.status("web/app").state == "exited")
    seen = text(lab.supervisor.log_path("web/app"))
    files = [line.split(" -> ")[1] for line in seen.splitlines() if " -> " in line]
    assert files[0] == "/dev/null"
    assert files[1] == files[2]
    assert len(files) == 4, f"besides the directory being listed: {files}"
    assert seen.count("0000000000000000") == 2
    limit = subprocess.run(["sh", "-c", "ulimit -n"], capture_output=True, text=True, check=True).stdout
    assert seen.endswith(f"{limit}/\n0022\nleads its session\n")


def test_sys_and_proc_and_the_hostname_are_the_containers(lab, wait_until):
    subprocess.run(["ip", "-n", lab.pods[0], "link", "add", "eth7", "type", "bridge"], check=True)
    look = "ls /sys/class/net; hostname; ps -o args= -p $$; grep -c netns /proc/mounts"
    lab.supervisor.start([lab.process("web/app", "sh", "-c", look)])
    wait_until(lambda: lab.status("web/app").state == "exited")
    assert text(lab.supervisor.log_path("web/app")).splitlines() == ["eth7", "lo", "web", f"sh -c {look}", "0"]


def test_a_deleted_pod_is_not_held_by_the_containers_of_others(lab, wait_until):
    """A mount of every namespace in every container would keep them all alive."""
    lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
    subprocess.run(["ip", "link", "add", "ptv0", "type", "veth", "peer", "ptv1", "netns", lab.pods[1]], check=True)
    subprocess.run(["ip", "netns", "del", lab.pods[1]], check=True)
    # The far end goes with its namespace, and takes the near end along.
    wait_until(lambda: subprocess.run(["ip", "link", "show", "ptv0"], capture_output=True).returncode != 0)
    subprocess.run(["ip", "netns", "add", lab.pods[1]], check=True)


def test_what_runs_already_is_left_alone(lab):
    app = lab.process("web/app", "sleep", "1000")
    [first] = lab.supervisor.start([app])
    assert lab.supervisor.start([app]) == [first]
    with pytest.raises(KernelError, match=r"web/app: runs already \(pid \d+\) with another command"):
        lab.supervisor.start([lab.process("web/app", "sleep", "2000")])
    assert lab.supervisor.observe() == [first]


def test_one_name_is_one_container(lab):
    sidecar = lab.process("web/sidecar", "sleep", "1000")
    with pytest.raises(KernelError, match="web/sidecar: is to run with another command"):
        lab.supervisor.start([sidecar, sidecar, lab.process("web/sidecar", "sleep", "2000")])
    assert [one.process for one in lab.supervisor.observe()] == [sidecar]
    assert len(lab.inside()) == 1


def test_what_ended_is_started_anew_and_its_log_goes_on(lab, wait_until):
    app = lab.process("web/app", "echo", "hello")
    for count in (1, 2):
        lab.supervisor.start([app])
        wait_until(lambda: lab.status("web/app").state == "exited")
        wait_until(lambda c=count: text(lab.supervisor.log_path("web/app")) == "hello\n" * c)


def test_a_container_ends_with_its_first_process(lab, wait_until):
    lab.supervisor.start([lab.process("web/app", "sh", "-c", "setsid sleep 1000 & setsid sleep 1000 & exit 3")])
    wait_until(lambda: lab.status("web/app").exit_code == 3)
    wait_until(lambda: not lab.inside())


def test_orphans_are_waited_for(lab, wait_until):
    lab.supervisor.start([lab.process("web/app", "sh", "-c", "(sleep 0.1 &) ; sleep 1000")])
    wait_until(lambda: len(lab.inside()) == 2)
    children = Path(f"/proc/{lab.supervisor.pid()}/task/{lab.supervisor.pid()}/children")
    wait_until(lambda: len(children.read_text().split()) == 1)


@pytest.mark.stress
def test_200_containers(lab, record_property):
    apps = [lab.process(f"web/app{i}", "sleep", "1000") for i in range(200)]
    began = time.monotonic()
    states = lab.supervisor.start(apps)
    each = (time.monotonic() - began) / len(apps) * 1000
    record_property("ms_per_container", round(each, 2))
    print(f"{each:.2f} ms a container")
    assert {state.state for state in states} == {"running"}
    assert each < 250  # 5 on two quiet processors
    assert lab.inside() == {state.pid for state in states}
    began = time.monotonic()
    lab.supervisor.shutdown()
    assert time.monotonic() - began < 30.0
    assert lab.inside() == set()
