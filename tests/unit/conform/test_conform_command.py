"""podnet conform: what can be asked without root."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from podnet.cli.conform_command import command
from podnet.errors import UsageError


def test_list_shows_the_requirements() -> None:
    done = CliRunner().invoke(command, ["--list"])
    assert done.exit_code == 0
    assert "A2b" in done.output
    assert "[interface]" in done.output


def test_list_as_json() -> None:
    done = CliRunner().invoke(command, ["--list", "-o", "json", "--kind", "ipam", "--level", "MUST"])
    rows = json.loads(done.output)
    assert rows
    assert all(row["level"] == "MUST" and "ipam" in row["kinds"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ([], click.UsageError, "give the path of a plugin's executable"),
        (["/not/there/bridge"], UsageError, "is no executable file"),
        (["/bin/true"], UsageError, "no built-in profile for 'true'"),
        (["--list", "--only", "Z9"], UsageError, "no requirement has the id Z9"),
        (["--list", "-o", "junit"], click.UsageError, "no JUnit report"),
    ],
)
def test_wrong_usage(arguments: list[str], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        command.main(arguments, standalone_mode=False)


def test_a_directory_is_no_plugin(tmp_path: Path) -> None:
    (tmp_path / "bridge").mkdir()
    with pytest.raises(UsageError, match="is no executable file"):
        command.main([str(tmp_path / "bridge")], standalone_mode=False)
