"""The lab's hosts file lies over /etc/hosts of its containers, and of commands that are run in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from podnet.kernel.log import read_log

pytestmark = pytest.mark.kernel

RUN = """
import sys
from podnet.kernel.execute import run_in
sys.exit(run_in(sys.argv[1], sys.argv[3:], hosts=sys.argv[2] or None))
"""
START = """
import sys
from podnet.kernel.objects import Process
from podnet.kernel.process import Supervisor
[state] = Supervisor(sys.argv[1]).start([Process(sys.argv[2], "web/app", ("sh", "-c", sys.argv[3]))])
print(state.state, state.message)
"""
NAMES = "127.0.0.1 localhost\n10.244.0.5 web\n"


def run(netns: str, hosts: Path | str, *argv: str, etc: Path | None = None) -> subprocess.CompletedProcess[str]:
    return python(RUN, netns, str(hosts), *argv, etc=etc)


def python(code: str, *argv: str, etc: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program, with another folder as /etc where one is given; the machine's own is not touched."""
    command = [sys.executable, "-c", code, *argv]
    if etc:
        command = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc && exec "$@"', str(etc), *command]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def hosts(lab) -> Path:
    path = Path(lab.directory, "hosts")
    path.write_text(NAMES)
    return path


@pytest.fixture(autouse=True)
def _the_machines_own_stays():
    def look() -> tuple[str, list[str]]:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return Path("/etc/hosts").read_text(), [line for line in mounts if " /etc/" in line]

    before = look()
    yield
    assert look() == before


def ended(lab, wait_until, *argv: str) -> str:
    """What a container wrote until it ended."""
    lab.supervisor.start([lab.process("web/app", *argv)])
    wait_until(lambda: lab.status("web/app").state == "exited")
    path = lab.supervisor.log_path("web/app")
    wait_until(lambda: path.exists() and read_log(path))
    return read_log(path).decode()


def test_a_container_finds_its_own_name(lab, hosts, wait_until):
    look = "import socket, time; began = time.monotonic(); name = socket.gethostname(); "
    look += "print(name, socket.gethostbyname(name), socket.getfqdn(), time.monotonic() - began < 1)"
    assert ended(lab, wait_until, sys.executable, "-c", look) == "web 10.244.0.5 web True\n"
    assert lab.status("web/app").message == ""


def test_a_running_container_sees_what_changes_in_the_file(lab, hosts, wait_until):
    command = "echo up; until getent hosts later; do sleep 0.02; done"
    lab.supervisor.start([lab.process("web/app", "sh", "-c", command)])
    path = lab.supervisor.log_path("web/app")
    wait_until(lambda: read_log(path) == b"up\n")
    hosts.write_text(f"{NAMES}10.244.1.7 later\n")
    wait_until(lambda: lab.status("web/app").exit_code == 0)
    wait_until(lambda: b"later" in read_log(path))
    assert read_log(path).split() == [b"up", b"10.244.1.7", b"later"]


def test_the_file_can_be_removed_while_containers_have_it(lab, hosts):
    [state] = lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
    hosts.unlink()
    assert Path(f"/proc/{state.pid}/root/etc/hosts").read_text() == NAMES


def test_a_container_that_started_before_the_file_was_written_sees_it_written(lab, wait_until):
    [state] = lab.supervisor.start([lab.process("web/app", "sleep", "1000")])
    seen = Path(f"/proc/{state.pid}/root/etc/hosts")
    assert seen.read_text() == Path("/etc/hosts").read_text()
    Path(lab.directory, "hosts").write_text(NAMES)
    assert seen.read_text() == NAMES
    assert Path(lab.directory, "hosts").stat().st_mode & 0o777 == 0o644


def test_without_the_file_it_is_the_machines(lab, wait_until):
    assert ended(lab, wait_until, "cat", "/etc/hosts") == Path("/etc/hosts").read_text()
    assert lab.status("web/app").message == ""


def test_a_container_cannot_rename_the_others(lab, hosts, wait_until, tmp_path):
    """In a copy of /etc, which is what would be written to were the lab's file not over it."""
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    command = "echo 192.0.2.1 web >> /etc/hosts || echo refused"
    for netns in (lab.pods[0], ""):
        assert run(netns, hosts, "sh", "-c", command, etc=tmp_path).stdout == "refused\n"
    assert python(START, lab.directory, lab.pods[0], command, etc=tmp_path).stdout.startswith(("running", "exited"))
    wait_until(lambda: lab.status("web/app").state == "exited")
    wait_until(lambda: read_log(lab.supervisor.log_path("web/app")).endswith(b"refused\n"))
    assert hosts.read_text() == NAMES
    assert (tmp_path / "hosts").read_text() == "127.0.0.1 localhost\n"


def test_a_command_in_a_pod_finds_the_names(lab, hosts):
    done = run(lab.pods[0], hosts, "getent", "hosts", "web")
    assert (done.stdout.split(), done.stderr) == (["10.244.0.5", "web"], "")


@pytest.mark.parametrize("name", ["", "absent"])
def test_a_command_without_the_file_sees_the_machines(lab, name):
    done = run(lab.pods[0], name and f"{lab.directory}/{name}", "cat", "/etc/hosts")
    assert (done.stdout, done.stderr) == (Path("/etc/hosts").read_text(), "")


def test_a_file_of_the_one_namespace_is_stronger_than_the_labs(lab, hosts, tmp_path):
    folder = tmp_path / "etc" / "netns" / lab.pods[0]
    folder.mkdir(parents=True)
    (tmp_path / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (folder / "hosts").write_text("192.0.2.9 own\n")
    done = run(lab.pods[0], hosts, "cat", "/etc/hosts", etc=tmp_path / "etc")
    assert (done.stdout, done.stderr) == ("192.0.2.9 own\n", "")


def test_a_machine_without_etc_hosts_is_complained_of(lab, hosts, tmp_path):
    why = f"cannot bind {hosts} over /etc/hosts (read-only): No such file or directory"
    for netns in (lab.pods[0], ""):
        done = run(netns, hosts, "echo", "runs", etc=tmp_path)
        assert (done.stdout, done.stderr) == ("runs\n", f"podnet: {why}\n")
    assert (
        python(START, lab.directory, lab.pods[0], "exec sleep 1000", etc=tmp_path).stdout == f"running web/app: {why}\n"
    )


@pytest.mark.parametrize("name", ["", "absent"])
def test_on_the_machine_itself_nothing_is_made_without_the_file(lab, name):
    done = run("", name and f"{lab.directory}/{name}", "readlink", "/proc/self/ns/mnt", "/proc/self/ns/net")
    assert done.stdout.split() == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net")]


def test_on_the_machine_itself_only_the_names_are_other(lab, hosts):
    """A fresh /sys would hide what the machine has mounted below its own, such as control groups."""

    def points(mounts: str) -> list[tuple[str, str]]:
        rows = [line.split(" - ") for line in mounts.splitlines()]
        return sorted((left.split()[4], right.split()[0]) for left, right in rows)

    done = run("", hosts, "cat", "/proc/self/mountinfo")
    new = points(done.stdout)
    for mount in points(Path("/proc/self/mountinfo").read_text()):
        new.remove(mount)
    assert [place for place, _ in new] == ["/etc/hosts"]
    assert run("", hosts, "getent", "hosts", "web").stdout.split() == ["10.244.0.5", "web"]
