"""What containers write is kept in order, bounded, and can be followed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from podnet.kernel.log import follow_log, read_log

pytestmark = pytest.mark.kernel


def text(path: Path) -> str:
    return read_log(path).decode() if path.exists() else ""


def test_a_log_holds_both_outputs_in_order(lab, wait_until):
    lab.supervisor.start([lab.process("web/app", "sh", "-c", "echo one; echo two >&2; printf three")])
    wait_until(lambda: text(lab.supervisor.log_path("web/app")) == "one\ntwo\nthree")
    assert lab.supervisor.log_path("web/app") == Path(lab.directory, "logs/web/app.log")


def test_a_log_can_be_followed_until_the_container_ended(lab):
    seen = Path(lab.directory, "seen")
    command = f"for i in 1 2 3 4; do echo $i; until grep -qsx $i {seen}; do sleep 0.02; done; done"
    lab.supervisor.start([lab.process("web/app", "sh", "-c", command)])
    chunks = []
    for chunk in follow_log(
        lab.supervisor.log_path("web/app"), until=lambda: lab.status("web/app").state == "exited", poll=0.05
    ):
        chunks.append(chunk)
        seen.write_bytes(chunk)
    assert chunks == [b"1\n", b"2\n", b"3\n", b"4\n"], "each came as it was written"


def test_a_log_is_bounded_and_keeps_what_is_newest(lab, wait_until):
    last = 3_000_000  # 23 MB
    lab.supervisor.start([lab.process("web/app", "seq", str(last))])
    path = lab.supervisor.log_path("web/app")
    wait_until(lambda: lab.status("web/app").state == "exited", 30.0)
    wait_until(lambda: read_log(path, 1) == f"{last}\n".encode())
    sizes = {file.name: file.stat().st_size for file in path.parent.iterdir()}
    assert set(sizes) == {"app.log", "app.log.1"}
    assert max(sizes.values()) <= 5 << 20
    kept = [int(line) for line in read_log(path).split()]
    assert kept == list(range(kept[0], last + 1)), "whole lines, none missing in between"
    assert 5 << 20 <= sum(sizes.values()) <= 10 << 20


def test_a_container_that_writes_without_end_does_not_keep_the_supervisor_from_answering(lab):
    lab.supervisor.start([lab.process("web/app", "yes"), lab.process("web/other", "yes")])
    began = time.monotonic()
    assert len(lab.supervisor.observe()) == 2
    lab.supervisor.stop(["web/app", "web/other"])
    assert time.monotonic() - began < 15.0
    assert lab.inside() == set()
