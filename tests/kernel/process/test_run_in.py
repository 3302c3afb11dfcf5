"""A command in a namespace, in the foreground: what it says, what it sees, and how it ends."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

RUN = """
import os, sys
from podnet.errors import KernelError
from podnet.kernel.execute import run_in
try:
    code = run_in(sys.argv[1], sys.argv[2:])
except KernelError as error:
    sys.exit(f"refused: {error}")
sys.exit(code)
"""


def run(netns: str, *argv: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", RUN, netns, *argv], capture_output=True, text=True, **options)


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("kill -PIPE $$", 141)],
)
def test_the_exit_code_is_a_shells(lab, command, code):
    assert run(lab.pods[0], "sh", "-c", command).returncode == code


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("nginxx", 127, "podnet: cannot execute 'nginxx': No such file or directory\n"),
        ("/etc/passwd", 126, "podnet: cannot execute '/etc/passwd': Permission denied\n"),
        ("/tmp", 126, "podnet: cannot execute '/tmp': Permission denied\n"),
    ],
)
def test_what_cannot_be_executed_is_named(lab, command, code, message):
    done = run(lab.pods[0], command)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", message)


def test_a_namespace_that_is_not_there_is_named():
    assert run("nowhere", "true").stderr == "refused: cannot run 'true': no namespace nowhere under /run/netns\n"


def test_input_and_both_outputs_pass_through(lab):
    done = run(lab.pods[0], "sh", "-c", "cat; echo problem >&2", input="through\n")
    assert (done.stdout, done.stderr) == ("through\n", "problem\n")


def test_it_runs_in_the_namespace_and_sys_shows_its_devices(lab):
    subprocess.run(["ip", "-n", lab.pods[0], "link", "add", "eth7", "type", "bridge"], check=True)
    done = run(lab.pods[0], "sh", "-c", "ls /sys/class/net; readlink /proc/self/ns/net")
    inode = os.stat(f"/run/netns/{lab.pods[0]}").st_ino
    assert done.stdout == f"eth7\nlo\nnet:[{inode}]\n"


def test_the_machine_itself_is_the_empty_name():
    assert run("", "readlink", "/proc/self/ns/net").stdout == os.readlink("/proc/self/ns/net") + "\n"


def test_the_caller_stays_where_it_is(lab):
    code = (
        "import os, sys; from podnet.kernel.execute import run_in; "
        "look = lambda: [os.readlink('/proc/self/ns/' + n) for n in ('net', 'mnt', 'pid', 'uts')] + [os.getcwd()]; "
        "before = look(); assert run_in(sys.argv[1], ['true']) == 0; assert look() == before; "
        "assert os.listdir('/proc/self/fd') == os.listdir('/proc/self/fd'); print(len(os.listdir('/proc/self/fd')))"
    )
    done = subprocess.run([sys.executable, "-c", code, lab.pods[0]], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("4\n", "")


def test_the_environment_is_the_callers_or_the_one_given(lab):
    code = "import sys; from podnet.kernel.execute import run_in; run_in(sys.argv[1], ['env'], {sys.argv[2]: 'x'})"
    given = subprocess.run([sys.executable, "-c", code, lab.pods[0], "ONLY"], capture_output=True, text=True)
    assert given.stdout == "ONLY=x\n"
    assert "COLOR=blue\n" in run(lab.pods[0], "env", env={**os.environ, "COLOR": "blue"}).stdout


def test_files_of_the_namespace_stand_in_for_those_in_etc(lab, tmp_path):
    """In a copy of /etc, so that the machine's own is not touched."""
    etc = tmp_path / "etc"
    (etc / "netns" / lab.pods[0]).mkdir(parents=True)
    (etc / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    (etc / "netns" / lab.pods[0] / "resolv.conf").write_text("nameserver 10.96.0.10\n")
    (etc / "netns" / lab.pods[0] / "absent.conf").write_text("nothing to stand in for\n")
    script = 'mount --bind "$1" /etc && shift && exec "$@"'
    look = [sys.executable, "-c", RUN, lab.pods[0], "cat", "/etc/resolv.conf", "/etc/hosts"]
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", str(etc), *look], capture_output=True, text=True)
    assert done.stdout == "nameserver 10.96.0.10\n127.0.0.1 localhost\n"
    assert done.stderr == (
        f"podnet: cannot bind /etc/netns/{lab.pods[0]}/absent.conf over /etc/absent.conf: No such file or directory\n"
    )
    assert (etc / "resolv.conf").read_text() == "nameserver 192.0.2.1\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_caller_reaches_the_command(lab, number, wait_until):
    caller = subprocess.Popen([sys.executable, "-c", RUN, lab.pods[0], "sleep", "1000"])
    wait_until(lambda: any(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in lab.inside()))
    caller.send_signal(number)
    assert caller.wait(5) == 128 + number
    assert lab.inside() == set()


def test_what_nohup_ignores_stays_ignored(lab):
    command = f"trap '' HUP; exec {sys.executable} -c \"$0\" {lab.pods[0]} grep SigIgn /proc/self/status"
    done = subprocess.run(["sh", "-c", command, RUN], capture_output=True, text=True)
    assert done.stdout.split() == ["SigIgn:", "0000000000000001"], done.stderr


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *argv: str) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execvp(argv[0], argv)  # noqa: S606
        self.shown = ""

    def until(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in self.shown:
            ready, _, _ = select.select([self._terminal], [], [], deadline - time.monotonic())
            assert ready, f"the terminal shows {self.shown!r}"
            self.shown += os.read(self._terminal, 4096).decode()

    def keys(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def ended(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        try:
            while chunk := os.read(self._terminal, 4096):
                self.shown += chunk.decode()
        except OSError:  # EIO: the other side is closed
            pass
        finally:
            os.close(self._terminal)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize(("key", "code"), [("\x03", 130), ("\x1c", 131)], ids=["Ctrl-C", "Ctrl-backslash"])
def test_the_terminals_keys_are_the_commands(lab, key, code):
    command = "ulimit -c 0; tty -s && echo on a terminal; exec sleep 1000"
    terminal = Terminal(sys.executable, "-c", RUN, lab.pods[0], "sh", "-c", command)
    terminal.until("on a terminal")
    time.sleep(0.1)
    terminal.keys(key)
    assert terminal.ended() == code
    assert "Traceback" not in terminal.shown


def test_a_command_that_handles_ctrl_c_goes_on(lab):
    command = "trap 'echo not now' INT; echo up; read line; read line; echo got $line; exit 3"
    terminal = Terminal(sys.executable, "-c", RUN, lab.pods[0], "bash", "-c", command)
    terminal.until("up")
    terminal.keys("\x03")
    terminal.until("not now")
    terminal.keys("one\ntwo\n")
    assert terminal.ended() == 3
    assert "got two" in terminal.shown
