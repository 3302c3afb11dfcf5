"""The log of calls: bounded, whole with many writers, and shown as it was asked for."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from podnet.cli.cni_command import command
from podnet.cni import journal
from podnet.cni.journal import Stopwatch, append, record, records
from podnet.cni.plugin.main import run


def entry(verb: str = "ADD", network: str = "net", container: str = "c1", **answer: Any) -> dict[str, Any]:
    watch = Stopwatch()
    watch("read")
    watch("answer")
    return record(watch, verb, (network, container, "eth0"), answer, warm=True)


def log(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(command, ["log", "--state", str(folder), *options])


def test_what_is_written_down() -> None:
    found = entry(ips=[{"address": "10.0.0.2/24"}, {"address": "fd00::2/64"}])
    assert found["addresses"] == ["10.0.0.2/24", "fd00::2/64"]
    assert set(found["phases"]) == {"read", "answer"}
    assert found["ms"] == pytest.approx(sum(found["phases"].values()), abs=0.01)
    assert entry(ip4={"ip": "10.0.0.2/24"})["addresses"] == ["10.0.0.2/24"]
    long = entry(code=7, msg="m" * 1000, details="d" * 1000)["error"]
    assert (long["code"], len(long["msg"]), len(long["details"])) == (7, 303, 303)
    assert len(json.dumps(entry(container="c" * 5000, network="n" * 5000))) < 2000


def test_the_files_stay_bounded_and_the_newest_calls_are_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_BYTES", 4000)
    for number in range(200):
        append(str(tmp_path), entry(container=f"c{number}"))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * (4000 + 400)
    found = [each["container"] for each in records(str(tmp_path))]
    assert found == [f"c{number}" for number in range(200 - len(found), 200)]
    assert len(found) > 15


def _write(folder: str, name: str, count: int) -> None:
    for number in range(count):
        append(folder, entry(container=f"{name}-{number}"))


def test_many_writers_do_not_mix_and_a_killed_one_spoils_no_others_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(str(tmp_path), f"w{i}", 500)) for i in range(4)]
    doomed = [context.Process(target=_write, args=(str(tmp_path), f"k{i}", 100_000)) for i in range(2)]
    for each in (*writers, *doomed):
        each.start()
    for each in writers:
        each.join()
    for each in doomed:
        each.kill()
        each.join()
    lines = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir(), reverse=True)).split(b"\n")
    halves = [line for line in lines if line and journal.parsed(line) is None]
    assert len(halves) <= len(doomed)  # each was killed at one moment
    assert not [line for line in halves if b'"w' in line]


def test_writers_that_turn_the_file_together_lose_nothing_of_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_BYTES", 100_000)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(str(tmp_path), f"w{i}", 300)) for i in range(4)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert {path.name for path in tmp_path.iterdir()} == {"calls.jsonl", "calls.jsonl.1"}
    found = [each["container"] for each in records(str(tmp_path))]
    assert len(found) == len(set(found)) > 400
    for writer in {each.partition("-")[0] for each in found}:
        own = [int(each.partition("-")[2]) for each in found if each.startswith(f"{writer}-")]
        assert own == list(range(own[0], own[0] + len(own)))


def test_a_call_leaves_a_record_also_when_it_cannot_be_read(tmp_path: Path) -> None:
    base = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/absent", "CNI_IFNAME": "eth0", "CNI_PATH": "/nowhere"}
    calls = [("ADD", b"{"), ("ADD", b'{"cniVersion": "1.1.0", "name": "net"}'), ("VERSION", b""), ("NOPE", b"{}")]
    for verb, data in calls:
        run({"CNI_COMMAND": verb, **base}, lambda data=data: data, state=str(tmp_path / "state"))  # type: ignore[misc]
    found = list(records(str(tmp_path / "state")))
    assert [(each["verb"], each["error"]["code"], each.get("network", "")) for each in found] == [
        ("ADD", 6, ""),
        ("ADD", 3, "net"),
        ("NOPE", 7, ""),
    ]


def test_lines_that_are_none_are_passed_over(tmp_path: Path) -> None:
    append(str(tmp_path), entry())
    with (tmp_path / "calls.jsonl").open("ab") as file:
        file.write(b'{"verb": "ADD", "tim\n\n[]\nnull\n')
    append(str(tmp_path), entry("DEL"))
    assert [each["verb"] for each in records(str(tmp_path))] == ["ADD", "DEL"]


@pytest.mark.parametrize(
    ("options", "containers"),
    [
        ([], ["a1", "b1", "a2"]),
        (["-n", "1"], ["a2"]),
        (["-n", "0"], []),
        (["--verb", "del"], ["b1"]),
        (["--network", "two"], ["a2"]),
        (["--container", "a"], ["a1", "a2"]),
        (["--container", "a", "-n", "1", "--verb", "ADD"], ["a2"]),
        (["--network", "three"], []),
    ],
)
def test_filters(tmp_path: Path, options: list[str], containers: list[str]) -> None:
    for verb, network, container in (("ADD", "one", "a1"), ("DEL", "one", "b1"), ("ADD", "two", "a2")):
        append(str(tmp_path), entry(verb, network, container))
    found = json.loads(log(tmp_path, "-o", "json", *options).output)["calls"]
    assert [each["container"] for each in found] == containers
    lines = log(tmp_path, *options).output.splitlines()[1:]
    assert [line.split()[4].partition("/")[0] for line in lines] == containers


def test_as_text(tmp_path: Path) -> None:
    append(str(tmp_path), entry(ips=[{"address": "10.0.0.2/24"}]))
    append(str(tmp_path), entry("ADD", code=11, msg="later", details="\x1b[2Jgone"))
    head, first, second = log(tmp_path).output.splitlines()
    assert head.split() == ["TIME", "VERB", "NETWORK", "CONTAINER", "MS", "HOW", "PHASES", "RESULT"]
    assert first.endswith("10.0.0.2/24")
    assert second.endswith("error 11: later; ?[2Jgone")


def test_there_is_no_log(tmp_path: Path) -> None:
    assert log(tmp_path).output == ""
    assert "the plugin was never called here" in str(log(tmp_path / "absent").exception)


def test_follow_shows_those_that_come_also_after_the_file_was_turned(tmp_path: Path) -> None:
    append(str(tmp_path), entry(container="before"))
    podnet = Path(sys.executable).parent / "podnet"
    argv = [podnet, "cni", "log", "-f", "-n", "1", "-o", "json", "--state", tmp_path]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["container"] == "before"
            append(str(tmp_path), entry(container="then"))
            assert json.loads(process.stdout.readline())["container"] == "then"
            os.rename(tmp_path / "calls.jsonl", tmp_path / "calls.jsonl.1")
            append(str(tmp_path), entry(container="last"))
            assert json.loads(process.stdout.readline())["container"] == "last"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def test_it_is_cheap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No bound on time, which a busy machine would break: the number of files that are opened.
    found, opened, real = entry(), [], os.open

    def counted(path: str, *arguments: int) -> int:
        opened.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", counted)
    append(str(tmp_path), found)
    assert opened == [str(tmp_path / "calls.jsonl")]
