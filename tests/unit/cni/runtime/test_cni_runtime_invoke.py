"""Running a plugin: where it is found, what it gets, and what becomes of its answer, error, silence or hang."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import podnet
from podnet.cni.runtime import invoke
from podnet.cni.runtime.invoke import PluginNotFoundError, find, run
from podnet.cni.spec.errors import CNIError

ENVIRON = {"CNI_COMMAND": "ADD", "PATH": os.defpath}


@pytest.fixture(params=[False, True], ids=["spawned", "tied"], autouse=True)
def tied(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Everything is true of both ways to start a plugin."""
    found: bool = request.param
    monkeypatch.setattr(sys.modules[__name__], "run", partial(invoke.run, tied=found))
    return found


def script(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


def failure(executable: str, data: bytes = b"{}", **options: Any) -> CNIError:
    with pytest.raises(CNIError) as caught:
        run(executable, data, ENVIRON, **options)
    return caught.value


def test_h4_the_first_regular_file_in_the_path(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    paths = [str(tmp_path / "gone"), "", str(first), str(second)]
    script(second / "bridge", "")
    assert find("bridge", paths) == str(second / "bridge")
    (first / "bridge").mkdir()  # no regular file
    assert find("bridge", paths) == str(second / "bridge")
    script(first / "portmap", "")
    script(second / "portmap", "")
    assert find("portmap", paths) == str(first / "portmap")


@pytest.mark.parametrize("name", ["", "../sh", "/bin/sh", "a/b", "a\0b"])
def test_h4_names_that_are_no_plugin(tmp_path: Path, name: str) -> None:
    with pytest.raises(PluginNotFoundError, match="invalid plugin name"):
        find(name, ["/bin", str(tmp_path)])


def test_h4_not_found_says_where() -> None:
    with pytest.raises(PluginNotFoundError) as caught:
        find("bridge", ["/gone", "/gone/too"])
    assert caught.value.msg == 'failed to find plugin "bridge" in path [/gone /gone/too]'
    assert caught.value.exit_code == 2


def test_p3_p4_environment_input_and_output(tmp_path: Path) -> None:
    said: list[bytes] = []
    plugin = script(tmp_path / "p", '#!/bin/sh\necho "$CNI_COMMAND $X $#"\ncat\necho log >&2\n')
    assert run(plugin, b'{"a":1}', {**ENVIRON, "X": "y z"}, stderr=said.append) == b'ADD y z 0\n{"a":1}'
    assert said == [b"log\n"]


@pytest.mark.parametrize("size", [0, 70_000, 3_000_000])
def test_no_size_of_input_or_output_blocks(tmp_path: Path, size: int) -> None:
    data = b"x" * size
    plugin = script(tmp_path / "p", "#!/bin/sh\ncat\ncat /dev/zero | head -c 200000 >&2\n")
    said: list[bytes] = []
    assert run(plugin, data, ENVIRON, stderr=said.append, timeout=60) == data
    assert len(b"".join(said)) == 200_000
    assert run(script(tmp_path / "q", "#!/bin/sh\nexit 0\n"), data, ENVIRON) == b""  # one that does not read


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("""echo '{"code":11,"msg":"later","details":"d"}'; exit 1""", 11, "later; d"),
        ("""echo '{"Code":7,"Msg":"m"}'; exit 3""", 7, "m"),
        ("exit 2", 999, "netplugin failed with no error message: exit status 2"),
        ("echo why >&2; exit 2", 999, 'netplugin failed: "why\\n": exit status 2'),
        ("echo nonsense; exit 1", 999, 'netplugin failed but error parsing its diagnostic message "nonsense\\n": '),
        ("echo '{}'; exit 1", 999, "netplugin failed but error parsing its diagnostic message"),
        ("""echo '{"code":"x","msg":"y"}'; exit 1""", 999, "netplugin failed but error parsing"),
        ("kill -9 $$", 999, "netplugin failed with no error message: signal 9"),
    ],
)
def test_p12_errors(tmp_path: Path, text: str, code: int, message: str) -> None:
    error = failure(script(tmp_path / "p", f"#!/bin/sh\n{text}\n"))
    assert error.code == code
    assert str(error).startswith(message)


def test_p12_a_typed_error_leaves_the_log(tmp_path: Path) -> None:
    said: list[bytes] = []
    plugin = script(tmp_path / "p", """#!/bin/sh\necho log >&2; echo '{"code":7,"msg":"m"}'; exit 1\n""")
    failure(plugin, stderr=said.append)
    assert said == [b"log\n"]


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [("#!/bin/sh\n", 0o644, "Permission denied"), ("#!/gone/interpreter\n", 0o755, "No such file or directory"),
     ("no interpreter", 0o755, "Exec format error")],
)  # fmt: skip
def test_a_plugin_that_cannot_be_started(tmp_path: Path, text: str, mode: int, message: str) -> None:
    error = failure(script(tmp_path / "p", text, mode))
    assert (error.code, error.msg) == (999, f"plugin p cannot be started: {tmp_path}/p: {message}")


def test_h7_an_executable_that_is_being_written_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invoke, "_BUSY_PAUSE", 0.05)
    plugin = script(tmp_path / "p", "#!/bin/sh\necho done\n")
    with open(plugin, "ab") as writing:
        error = failure(plugin)
        assert (error.code, error.msg) == (11, f"plugin p cannot be started: {plugin}: Text file busy")
        timer = threading.Timer(0.1, writing.close)
        timer.start()
        try:
            assert run(plugin, b"", ENVIRON) == b"done\n"
        finally:
            timer.join()


def test_the_timeout_ends_a_plugin_and_its_children(tmp_path: Path) -> None:
    plugin = script(tmp_path / "p", f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/child\nwait\n")
    start = time.monotonic()
    error = failure(plugin, timeout=0.5)
    assert time.monotonic() - start < 10
    assert (error.code, error.msg) == (11, "plugin p gave no answer within 0.5 s and was ended")
    child = int((tmp_path / "child").read_text(encoding="utf-8"))
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and _state(child) != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _state(child) in ("Z", "")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_timeout_kills_what_ignores_the_first_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invoke, "_GRACE", 0.2)
    plugin = script(tmp_path / "p", "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.1; done\n")
    start = time.monotonic()
    assert failure(plugin, timeout=0.3).code == 11
    assert time.monotonic() - start < 10


def test_a_child_left_behind_does_not_hold_us_up(tmp_path: Path) -> None:
    plugin = script(tmp_path / "p", f"#!/bin/sh\nsleep 20 &\necho $! > {tmp_path}/child\necho done\n")
    start = time.monotonic()
    try:
        assert run(plugin, b"", ENVIRON) == b"done\n"
        assert time.monotonic() - start < 10
    finally:
        os.kill(int((tmp_path / "child").read_text(encoding="utf-8")), signal.SIGKILL)


def test_no_descriptor_and_no_process_is_left(tmp_path: Path) -> None:
    good = script(tmp_path / "good", "#!/bin/sh\nls -l /proc/self/fd | wc -l\n")
    bad = script(tmp_path / "bad", "#!/bin/sh\nexit 1\n")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        run(good, b"", ENVIRON)
        failure(bad)
        failure(str(tmp_path / "gone"))
        failure(good, timeout=-1)
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_plugin_gets_signals_as_they_were_and_none_of_our_files(tmp_path: Path) -> None:
    plugin = script(tmp_path / "p", "#!/bin/sh\ngrep SigIgn /proc/self/status\nls /proc/self/fd\n")
    ours = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 700)
    try:
        _, ignored, *descriptors = run(plugin, b"", ENVIRON).decode().split()
    finally:
        os.close(ours)
    assert int(ignored, 16) & 1 << (signal.SIGPIPE - 1) == 0
    assert {"0", "1", "2"} <= set(descriptors)
    assert str(ours) not in descriptors


def test_json_of_an_error_reaches_the_caller_unchanged(tmp_path: Path) -> None:
    value = {"cniVersion": "1.0.0", "code": 142, "msg": "grüße", "details": "d"}
    (tmp_path / "e.json").write_text(json.dumps(value), encoding="utf-8")
    error = failure(script(tmp_path / "p", f"#!/bin/sh\ncat {tmp_path}/e.json; exit 1\n"))
    assert error.to_json("1.0.0") == value


def test_running_a_plugin_imports_little() -> None:
    """A plugin that delegates pays for these imports on every call."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(podnet.__file__).parent.parent)!r})\n"
        "from podnet.cni.runtime import invoke\n"
        "invoke.run(sys.executable, b'', {})\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = done.stdout.split()
    assert "podnet.cni.runtime.invoke" in loaded
    assert {"subprocess", "dataclasses", "inspect", "threading", "socket", "selectors"}.isdisjoint(loaded)


_CALLER = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from podnet.cni.runtime.invoke import run
call = threading.Thread(target=run, args=(sys.argv[2], b"{}", {"PATH": "/usr/bin:/bin"}), kwargs={"tied": True})
call.start()
call.join()
"""


def test_a_delegate_ends_with_a_caller_that_is_killed(tmp_path: Path, tied: bool) -> None:
    if not tied:
        return
    plugin = script(
        tmp_path / "p", f"#!/bin/sh\necho $$ > {tmp_path}/new\nmv {tmp_path}/new {tmp_path}/pid\nexec sleep 60\n"
    )
    root = str(Path(podnet.__file__).parents[1])
    with subprocess.Popen([sys.executable, "-IS", "-c", _CALLER, root, plugin]) as caller:
        _until((tmp_path / "pid").exists, "the delegate to begin")
        delegate = int((tmp_path / "pid").read_text(encoding="utf-8"))
        assert Path(f"/proc/{delegate}").exists()
        caller.kill()
    _until(lambda: not Path(f"/proc/{delegate}").exists() or _state(delegate) == "Z", "the delegate's end")


def _until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, f"waited 30 s for {what}"
        time.sleep(0.01)
