"""A bench is private, and gone with all that is on it when the case ends, whichever way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from podnet.conform.bench import WORK_DIR, Bench, run_all
from podnet.conform.profiles import choose
from podnet.conform.suite import PRIVATE, judge, prepare
from podnet.kernel import netns

pytestmark = pytest.mark.kernel


def on_a_bench(job: Any, bench: Bench | None = None, timeout: float = 20.0) -> Any:
    ((_, answer),) = run_all(bench or Bench(PRIVATE), [job], parallel=1, timeout=timeout)
    return answer


def _look_around() -> dict[str, Any]:
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout)
    return {
        "pid": os.getpid(),
        "links": [link["ifname"] for link in links],
        "net": os.readlink("/proc/self/ns/net"),
        "run": sorted(os.listdir("/run")),
        "state": [os.listdir(path) for path in PRIVATE if os.path.isdir(path)],
        "sys": sorted(os.listdir("/sys/class/net")),
    }


def test_it_is_private() -> None:
    seen = on_a_bench(_look_around)
    assert seen["pid"] == 1
    assert seen["links"] == ["lo"]
    assert seen["sys"] == ["lo"]
    assert seen["net"] != os.readlink("/proc/self/ns/net")
    assert seen["run"] == [WORK_DIR.rpartition("/")[2], "lock", "netns"]
    assert not any(seen["state"])


def _litter() -> None:
    netns.create("left")
    subprocess.run(["ip", "link", "add", "left0", "type", "veth", "peer", "name", "left1"], check=True)
    subprocess.run(["nft", "add", "table", "inet", "left"], check=True)
    for folder in ("/run/cni", "/var/lib/cni/networks"):
        Path(folder).mkdir(parents=True)
        Path(folder, "left").write_text("x")
    subprocess.Popen(["sleep", "60"], start_new_session=True)


@pytest.mark.parametrize("path", ["/run/cni", "/var/lib/cni"])
def test_what_is_made_on_it_is_nowhere_else(path: str) -> None:
    existed = os.path.exists(path)
    assert on_a_bench(_litter) is None
    assert os.path.exists(path) == existed


def _hang() -> None:
    subprocess.Popen(["sleep", "60"], start_new_session=True)
    time.sleep(60)


def test_a_case_that_does_not_end_is_ended() -> None:
    answer = on_a_bench(_hang, timeout=1.0)
    assert isinstance(answer, RuntimeError)
    assert "did not end within 1 s" in str(answer)


def _die() -> None:
    os._exit(7)


def _raise() -> None:
    raise KeyError("x")


@pytest.mark.parametrize(("job", "message"), [(_die, "ended without an answer"), (_raise, "KeyError: 'x'")])
def test_a_case_that_breaks_is_told(job: Any, message: str) -> None:
    answer = on_a_bench(job)
    assert isinstance(answer, RuntimeError)
    assert message in str(answer)


def test_several_at_once_each_have_their_own() -> None:
    answers = dict(run_all(Bench(PRIVATE), [_look_around] * 6, parallel=3, timeout=60))
    assert sorted(answers) == list(range(6))
    assert all(answer["links"] == ["lo"] for answer in answers.values())


def _read(path: str) -> str:
    return Path(path).read_text()


def test_a_kept_directory_below_a_hidden_one_is_visible() -> None:
    kept = Path("/run/podnet/kept")
    kept.mkdir()
    try:
        (kept / "file").write_text("seen")
        assert on_a_bench(partial(_read, str(kept / "file")), Bench(PRIVATE, keep=(str(kept),))) == "seen"
        hidden = on_a_bench(partial(_read, str(kept / "file")))
        assert isinstance(hidden, RuntimeError)
    finally:
        (kept / "file").unlink()
        kept.rmdir()


def test_killing_the_suite_ends_everything(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    conf = tmp_path / "conf.json"
    conf.write_text("{}")
    arguments = ["-c", "from podnet.cli.conform_command import command; command()", str(slow), "--conf", str(conf)]
    suite = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 30
    while not _running(str(slow)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _running(str(slow))
    suite.send_signal(signal.SIGKILL)
    suite.wait()
    deadline = time.monotonic() + 30
    while _running(str(slow)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _running(str(slow))


def _running(path: str) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if path.encode() in words[:2] and b"-c" not in words:
                return True
    return False


def test_a_plugin_that_hangs_is_a_failure_and_not_the_end(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    report = judge(prepare(str(slow), choose("slow", conf="{}"), timeout=0.5), only=["A1a", "V1a"])
    assert {result.id: result.verdict for result in report.results} == {"V1a": "fail", "A1a": "fail"}
    assert "still running after" in report.results[0].evidence


def test_a_plugin_that_cannot_add_is_not_accused_of_what_follows(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text('#!/bin/sh\ncat >/dev/null\necho \'{"cniVersion": "1.0.0", "code": 100, "msg": "no"}\'\nexit 1\n')
    broken.chmod(0o755)
    report = judge(prepare(str(broken), choose("broken", conf="{}")), only=["A1a", "P4a", "D1b", "K2a"])
    verdicts = {result.id: result.verdict for result in report.results}
    assert verdicts == {"A1a": "fail", "P4a": "not measured", "D1b": "not measured", "K2a": "not applicable"}
