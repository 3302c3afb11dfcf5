"""``scripts/vm``: what its guest says is passed on, how it ends is told, and qemu never outlives it.

qemu is played by a program of a few lines here, which answers on the same ports; a real boot is tests/vm.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
MACHINE = CHECKOUT / "scripts/machine"

# Plays the guest: opens the ports that it is given, then runs PLAY.
QEMU = """#!{python}
import os, re, socket, sys, time
open({pid!r}, "w").write(str(os.getpid()))
given = dict(re.findall(r"socket,id=(\\w+),fd=(\\d+)", " ".join(sys.argv)))
control, out, err = (socket.socket(fileno=int(given[name])) for name in ("control", "stdout", "stderr"))
folder = re.search(r"podnet.run=(\\S+)", " ".join(sys.argv))[1]
{play}
"""


def run(
    tmp_path: Path, play: str, *command: str, deadline: int = 60, kill_after: float | None = None
) -> tuple[int, str, str]:
    """The runner's exit code, output and errors, with a guest that plays this."""
    qemu = tmp_path / "qemu"
    qemu.write_text(QEMU.format(python=sys.executable, pid=str(tmp_path / "pid"), play=play))
    qemu.chmod(0o755)
    program = f"""if True:
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(MACHINE)!r})
        from guest import Guest, GuestError, run
        from prepare import Tree
        here = Path({str(tmp_path)!r})
        tree = Tree("6.1", here / "vmlinuz", here / "modules", here / "initramfs", {str(qemu)!r})
        try:
            code = run(Guest(tree, {list(command)!r}, here, {deadline}, 512, 1), lambda text: print("vm:", text))
        except GuestError as error:
            print(error)
            code = error.exit_code
        sys.exit(code)"""
    # What it keeps in temporary files must not be left in everybody's folder by the one that is killed.
    argv, env = [sys.executable, "-c", program], os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    if kill_after is not None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        process.kill()
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


ENDED = """
control.sendall(b"booted\\n")
out.sendall(b"hello\\n" * 50_000); err.sendall(b"beware\\n"); control.sendall(b"exit %d\\n")
"""


@pytest.mark.parametrize("code", [0, 7, 127])
def test_output_and_exit_code_are_passed_on(tmp_path: Path, code: int) -> None:
    found, out, err = run(tmp_path, ENDED % code, "true")
    assert found == code
    assert out.count("hello\n") == 50_000
    assert err == "beware\n"


def test_the_guest_is_told_the_command_the_folder_and_the_environment(tmp_path: Path) -> None:
    play = 'out.sendall(open(folder + "/command", "rb").read()); control.sendall(b"booted\\nexit 0\\n")'
    _, out, _ = run(tmp_path, play, "echo", "two words", "$HOME")
    script = out.partition("\n")[2]
    done = subprocess.run(["sh", "-c", script.replace("ulimit -n 1048576", "pwd")], capture_output=True, text=True)
    assert done.stdout == f"{tmp_path}\ntwo words $HOME\n"
    assert f"export PATH={os.environ['PATH']}" in script


ENDS = [
    ("a guest that does not boot", "sys.exit(0)", 125, "the guest did not boot"),
    ("what qemu complains of", 'sys.exit("no such machine")', 125, "no such machine"),
    ("a guest that dies", 'control.sendall(b"booted\\n"); sys.exit(1)', 125, "ended before the command did"),
    ("a panic", 'open(folder + "/console", "w").write("Kernel panic - why\\n" + "x\\n" * 99); sys.exit(1)', 125,
     "Kernel panic - why"),
    ("a command that takes too long", 'control.sendall(b"booted\\n"); time.sleep(600)', 124, "did not end within 1 s"),
]  # fmt: skip


@pytest.mark.parametrize(("play", "code", "told"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_it_says_how_a_guest_failed(tmp_path: Path, play: str, code: int, told: str) -> None:
    found, out, _ = run(tmp_path, play, "true", deadline=1)
    assert found == code
    assert told in out
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_qemu_does_not_outlive_a_runner_that_is_killed(tmp_path: Path) -> None:
    code, _, _ = run(tmp_path, "time.sleep(600)", "true", kill_after=0)
    assert code < 0
    deadline = time.monotonic() + 10
    while Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_missing_is_named_with_the_package_that_has_it(tmp_path: Path) -> None:
    argv = [sys.executable, str(MACHINE), "--", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert done.returncode == 3
    assert done.stderr.startswith("vm: qemu-system-x86_64 is not here")
    assert "qemu-system-x86: scripts/setup --vm" in done.stderr


def test_arguments_are_checked() -> None:
    for given, told in ([], "which command?"), (["--memory", "64", "--", "true"], "at least 512 MiB"):
        done = subprocess.run([sys.executable, str(MACHINE), *given], capture_output=True, text=True)
        assert done.returncode == 2
        assert told in done.stderr
