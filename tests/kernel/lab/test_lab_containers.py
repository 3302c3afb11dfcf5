"""Containers: processes of a pod, supervised; their end is seen, and ``down`` ends exactly them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lab_cli import PODNET, Topology, changed, clean, drift, podnet, proved, succeeds, two_nodes, write
from lab_kernel import eventually, ip, run

pytestmark = pytest.mark.kernel

SERVER = """
import http.server, sys
http.server.test(http.server.SimpleHTTPRequestHandler, port=8080, bind="127.0.0.1")
"""
CALLER = """
import time, urllib.request
while True:
    try:
        print("answer", urllib.request.urlopen("http://127.0.0.1:8080").status, flush=True)
        break
    except OSError:
        time.sleep(0.05)
time.sleep(1000)
"""


def _with(*containers: dict[str, Any], pod: str = "web") -> Topology:
    topology = two_nodes()
    next(each for each in topology["pods"] if each["name"] == pod)["containers"] = list(containers)
    return topology


def _shell(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": ["sh", "-c", script], **more}


def _shown(pod: str = "web") -> dict[str, dict[str, Any]]:
    pods = succeeds("status", "lab", "-o", "json").json["pods"]
    return {c["name"]: c for each in pods if each["name"] == pod for c in each["containers"]}


def _inode(path: str) -> int:
    return Path(path).stat().st_ino


def test_two_containers_of_a_pod_talk_over_localhost(tmp_path: Path) -> None:
    topology = _with(
        {"name": "server", "command": [sys.executable, "-c", SERVER]},
        {"name": "caller", "command": [sys.executable, "-c", CALLER]},
    )
    succeeds("up", write(tmp_path, topology))
    eventually(lambda: "answer 200" in podnet("logs", "web", "-c", "caller").out, within=20)
    for each in _shown().values():
        assert each["state"] == "running"
        assert _inode(f"/proc/{each['pid']}/ns/net") == _inode("/run/netns/lab.web")
    assert "8080" in run("lab.web", "ss", "-Htln")
    assert run("lab.api", "ss", "-Htln") == ""
    clean()
    proved()


def test_a_container_sees_its_pods_devices_and_its_environment(tmp_path: Path) -> None:
    script = "echo dev: $(ls /sys/class/net); echo A=$A; hostname; sleep 1000"
    succeeds("up", write(tmp_path, _with(_shell("main", script, env={"A": "b c"}))))
    text = eventually(lambda: (out := podnet("logs", "web").out).count("\n") == 3 and out)
    assert text.splitlines()[:2] == ["dev: eth0 lo", "A=b c"]


@pytest.mark.parametrize(
    ("script", "ended"),
    [("exit 0", {"exit_code": 0}), ("exit 3", {"exit_code": 3}), ("kill -TERM $$", {"signal": signal.SIGTERM})],
    ids=["code 0", "code 3", "signal"],
)
def test_the_end_of_a_container_is_seen(script: str, ended: dict[str, int], tmp_path: Path) -> None:
    path = write(tmp_path, _with(_shell("short", f"sleep 0.3; {script}"), _shell("long", "sleep 1000")))
    succeeds("up", path)
    shown = eventually(lambda: (c := _shown())["short"]["state"] != "running" and c)
    assert ended.items() <= shown["short"].items()
    assert shown["long"]["state"] == "running"
    if ended == {"exit_code": 0}:
        # It has done its work: that is no difference, and up leaves it alone.
        clean()
        assert "nothing to change" in succeeds("up", path).out
        assert _shown()["short"]["pid"] == shown["short"]["pid"]
    else:
        assert drift() == {"create container web/short in lab.web"}
        text = podnet("status", "lab").out
        assert ("code 3" if "exit_code" in ended else "signal 15") in text
        succeeds("up", path)
        again = _shown()
        assert again["short"]["pid"] != shown["short"]["pid"]
        assert again["long"]["pid"] == shown["long"]["pid"]


def test_logs(tmp_path: Path) -> None:
    topology = _with(
        _shell("talker", "for i in 1 2 3 4 5; do echo out $i; done; echo oops >&2; sleep 1000"),
        _shell("other", "echo other; sleep 1000"),
    )
    succeeds("up", write(tmp_path, topology))
    eventually(lambda: "oops" in podnet("logs", "web", "-c", "talker").out)
    eventually(lambda: "other" in podnet("logs", "web", "-c", "other").out)
    talk = "".join(f"out {i}\n" for i in range(1, 6)) + "oops\n"
    assert succeeds("logs", "web", "-c", "talker").out == talk
    assert succeeds("logs", "lab/web", "-c", "talker", "--tail", "2").out == "out 5\noops\n"
    assert succeeds("logs", "web", "-c", "talker", "--tail", "0").out == ""
    assert succeeds("logs", "web").out == f"==> talker <==\n{talk}==> other <==\nother\n"
    for arguments, words in (
        (("logs", "web", "-c", "nobody"), "talker, other"),
        (("logs", "api"), "has no containers"),
        (("logs", "node1"), "has no containers"),
        (("logs", "wep"), "did you mean web"),
        (("logs", "web", "-f"), "choose one with -c"),
    ):
        done = podnet(*arguments)
        assert done.code == 2
        assert words in done.err


def test_logs_follow_what_is_written_and_end_with_ctrl_c(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"echo first; while read line <{fifo}; do echo $line; done; sleep 1000"
    succeeds("up", write(tmp_path, _with(_shell("main", script))))
    with subprocess.Popen([*PODNET, "logs", "-f", "web"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as following:  # fmt: skip
        assert following.stdout is not None
        assert following.stderr is not None
        assert following.stdout.readline() == "first\n"
        fifo.write_text("second\n")
        assert following.stdout.readline() == "second\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(5) in {0, 130}
        assert "Traceback" not in following.stderr.read()


def test_logs_follow_until_the_container_ends(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    succeeds("up", write(tmp_path, _with(_shell("main", f"echo first; read line <{fifo}; echo $line; exit 3"))))
    with subprocess.Popen([*PODNET, "logs", "-f", "web"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as following:  # fmt: skip
        assert following.stdout is not None
        assert following.stdout.readline() == "first\n"
        fifo.write_text("last\n")
        assert following.communicate(timeout=60) == ("last\n", "")
        assert following.returncode == 0
    assert podnet("logs", "-f", "web").out == "first\nlast\n"  # of one that has ended, at once


def test_a_lost_hosts_file_comes_back_with_the_next_up(tmp_path: Path) -> None:
    path = write(tmp_path, two_nodes())
    succeeds("up", path)
    hosts = Path("/run/podnet/labs/lab/hosts")
    was = hosts.read_text()
    hosts.unlink()
    assert "nothing to change" in succeeds("up", path).out
    assert hosts.read_text() == was


def test_an_edited_command_restarts_that_container_alone(tmp_path: Path) -> None:
    topology = _with(_shell("one", "sleep 1000"), _shell("two", "sleep 1000"))
    path = write(tmp_path, topology)
    succeeds("up", path)
    before = _shown()

    def edit(edited: Topology) -> None:
        edited["pods"][0]["containers"][0]["command"] = ["sleep", "2000"]

    write(tmp_path, changed(topology, edit))
    assert {c["object"] for c in podnet("plan", path, "-o", "json").json["changes"]} == {"container web/one in lab.web"}
    succeeds("up", path)
    after = _shown()
    assert after["one"]["pid"] != before["one"]["pid"]
    assert after["two"]["pid"] == before["two"]["pid"]
    assert Path(f"/proc/{after['one']['pid']}/cmdline").read_bytes() == b"sleep\0" + b"2000\0"
    assert not Path(f"/proc/{before['one']['pid']}").exists()
    clean()

    write(tmp_path, _with(_shell("two", "sleep 1000")))
    succeeds("up", path)
    assert _shown().keys() == {"two"}
    assert _shown()["two"]["pid"] == before["two"]["pid"]
    assert not Path(f"/proc/{after['one']['pid']}").exists()
    clean()


def test_down_ends_exactly_them(tmp_path: Path) -> None:
    """What a container started too, however it tries to get away; what others run in the pod stays."""
    script = "sleep 1001 & setsid sleep 1002 & (trap '' TERM; sleep 1003) & sleep 1004"
    succeeds("up", write(tmp_path, _with(_shell("main", script))))
    eventually(lambda: len(_of("sleep\x00100")) == 4)
    with subprocess.Popen(["nsenter", "--net=/run/netns/lab.web", "sleep", "1009"]) as mine:
        started = time.monotonic()
        succeeds("down", "lab")
        assert time.monotonic() - started < 30
        assert set(_of("sleep\x00100").values()) == {"sleep\x001009\x00"}
        assert mine.poll() is None
        mine.kill()


def _of(beginning: str) -> dict[int, str]:
    """Processes by the beginning of their command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if command.startswith(beginning):
                found[int(entry.name)] = command
    return found


def test_a_lab_without_containers_runs_no_process(tmp_path: Path) -> None:
    before = set(_of(""))
    succeeds("up", write(tmp_path, two_nodes()))
    assert set(_of("")) - before == set()


def test_a_pod_that_goes_takes_its_containers_along(tmp_path: Path) -> None:
    topology = _with(_shell("main", "sleep 1000"), pod="api")
    topology["pods"][0]["containers"] = [_shell("main", "sleep 1000")]
    path = write(tmp_path, topology)
    succeeds("up", path)
    gone, stays = _shown("api")["main"]["pid"], _shown("web")["main"]["pid"]
    write(tmp_path, changed(topology, lambda t: t["pods"].pop(1)))
    succeeds("up", path)
    assert not Path(f"/proc/{gone}").exists()
    assert _shown("web")["main"]["pid"] == stays
    assert ip("lab.web", "link")
    clean()
