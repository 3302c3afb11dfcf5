"""A log is two files of bounded size; a reader sees one stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from podnet.errors import KernelError
from podnet.kernel.log import Log, follow_log, previous_log, read_log, split_at_line
from podnet.kernel.process import Supervisor


@pytest.mark.parametrize(
    ("data", "room", "fresh", "now", "later"),
    [
        (b"one\ntwo\n", 8, False, b"one\ntwo\n", b""),
        (b"one\ntwo\n", 7, False, b"one\n", b"two\n"),
        (b"one\ntwo\n", 4, False, b"one\n", b"two\n"),
        (b"one\ntwo\n", 3, False, b"", b"one\ntwo\n"),
        (b"one\ntwo\n", 3, True, b"one", b"\ntwo\n"),
        (b"one\n", 0, False, b"", b"one\n"),
        (b"one\n", -5, False, b"", b"one\n"),
    ],
)
def test_a_file_is_left_at_the_end_of_a_line(data, room, fresh, now, later):
    assert split_at_line(data, room, fresh=fresh) == (now, later)


def lines(first: int, last: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(first, last + 1))


def test_the_newest_half_and_the_one_before_are_kept(tmp_path):
    path = tmp_path / "web" / "app.log"
    log = Log(path, half=20)
    for number in range(1000, 1010):  # five bytes each, so four fill a file
        log.write(b"%d\n" % number)
    log.close()
    assert previous_log(path).read_bytes() == lines(1004, 1007)
    assert path.read_bytes() == lines(1008, 1009)
    assert read_log(path) == lines(1004, 1009)
    assert sorted(file.name for file in path.parent.iterdir()) == ["app.log", "app.log.1"]


@pytest.mark.parametrize("chunk", [1, 3, 19, 20, 21, 500])
def test_the_bound_holds_however_the_bytes_come(tmp_path, chunk):
    path = tmp_path / "app.log"
    log = Log(path, half=20)
    data = lines(1000, 1099)
    for at in range(0, len(data), chunk):
        log.write(data[at : at + chunk])
        assert path.stat().st_size <= 20
    log.close()
    assert data.endswith(read_log(path))
    assert len(read_log(path)) >= 20


def test_a_line_longer_than_a_file_is_cut(tmp_path):
    path = tmp_path / "app.log"
    log = Log(path, half=10)
    log.write(b"x" * 25 + b"\n")
    log.close()
    assert read_log(path) == b"x" * 15 + b"\n"


def test_a_log_goes_on_where_it_was(tmp_path):
    path = tmp_path / "app.log"
    for number in (1, 2):
        log = Log(path, half=100)
        log.write(b"%d\n" % number)
        log.close()
    assert read_log(path) == b"1\n2\n"


@pytest.mark.parametrize(
    ("tail", "shown"),
    [(None, b"1\n2\n3"), (0, b""), (1, b"3"), (2, b"2\n3"), (3, b"1\n2\n3"), (9, b"1\n2\n3")],
)
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_tail_counts_lines_over_both_files(tmp_path, tail, shown, end):
    path = tmp_path / "app.log"
    previous_log(path).write_bytes(b"1\n")
    path.write_bytes(b"2\n3" + end)
    assert read_log(path, tail) == (shown + end if shown else b"")


def test_a_log_that_was_never_begun_is_named(tmp_path):
    for read in (read_log, lambda path: next(follow_log(path))):
        with pytest.raises(KernelError, match=r"no log /.*/app\.log: that container was never started") as refused:
            read(tmp_path / "app.log")
        assert refused.value.errno == 2


def test_following_misses_nothing_when_the_log_turns(tmp_path):
    path = tmp_path / "app.log"
    log = Log(path, half=20)
    log.write(lines(1000, 1001))
    rounds = iter(range(1002, 1030))

    def over() -> bool:
        # Called once a round, before the reading: writes a little more than is in one file.
        for _, number in zip(range(5), rounds, strict=False):
            log.write(b"%d\n" % number)
        return next(rounds_left, None) is None

    rounds_left = iter(range(10))
    seen = b"".join(follow_log(path, tail=1, until=over, poll=0))
    log.close()
    assert seen == lines(1001, 1029)


def test_following_ends_where_the_log_is_removed(tmp_path):
    path = tmp_path / "app.log"
    path.write_bytes(b"last\n")
    follow = follow_log(path, poll=0)
    assert next(follow) == b"last\n"
    path.unlink()
    assert list(follow) == []


@pytest.mark.parametrize("name", ["web", "web/", "/app", "web/../app", "../app", "web/..", "./app", "web/a\0", ""])
def test_only_pod_and_container_name_a_log(name):
    with pytest.raises(KernelError, match="names no container"):
        Supervisor("/run/podnet/labs/one").log_path(name)


def test_the_path_of_a_log():
    path = Supervisor("/run/podnet/labs/one").log_path("web/app")
    assert path == Path("/run/podnet/labs/one/logs/web/app.log")
