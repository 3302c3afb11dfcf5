"""``podnet logs`` shows each line once, whether or not it follows."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from podnet.cli import logs_command
from podnet.kernel.objects import Process
from podnet.kernel.process import ProcessStatus, Supervisor


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], "1\n2\n3\n"),
        (["--tail", "2"], "2\n3\n"),
        (["--tail", "0"], ""),
        (["--follow"], "1\n2\n3\n4\n"),
        (["--follow", "--tail", "2"], "2\n3\n4\n"),
        (["--follow", "--tail", "0"], "4\n"),
    ],
    ids=" ".join,
)
def test_each_line_is_shown_once(tmp_path, monkeypatch, arguments, shown):
    path = tmp_path / "logs" / "web" / "app.log"
    path.parent.mkdir(parents=True)
    path.write_text("1\n2\n3\n")

    def write_more(_seconds: float) -> None:
        # Instead of waiting for more: more comes, then the lab goes, which ends the following.
        if path.read_text().endswith("4\n"):
            path.unlink()
        else:
            path.write_text("1\n2\n3\n4\n")

    running = ProcessStatus(Process("one.web", "web/app", ("true",)), 1, "running", None, None, 0.0, "")
    monkeypatch.setattr(Supervisor, "observe", lambda _: [running])

    @contextmanager
    def lab_kernel(_name: str):
        yield None, Supervisor(str(tmp_path))

    target = SimpleNamespace(kind="pod", name="web", containers=("app",))
    monkeypatch.setattr(logs_command, "resolve", lambda _lab, _pod: (SimpleNamespace(name="one"), target))
    monkeypatch.setattr(logs_command, "lab_kernel", lab_kernel)
    monkeypatch.setattr("podnet.kernel.log.time.sleep", write_more)
    done = CliRunner().invoke(logs_command.command, [*arguments, "web"], catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (0, shown)
