"""The command line without a lab: exit codes, help, JSON, what is imported, and arguments of all kinds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import podnet
from podnet import cli as command_line
from podnet.errors import PodnetError
from podnet.lab import record

COMMANDS = list(command_line._COMMANDS)
HEAVY = {"pyroute2", "scapy", "pydantic", "yaml", "rich", "netaddr", "prometheus_client"}
GOOD = "name: good\nnodes: [{name: n1}]\npods: [{name: p, node: n1}]\n"
BAD = "name: bad\nnodes: [{name: n1}]\npods: [{name: p, node: n2}, {name: P, node: n1}]\n"


@pytest.fixture(autouse=True)
def no_lab_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RUN_DIR", tmp_path / "podnet")
    monkeypatch.setattr(record, "LABS_DIR", tmp_path / "podnet" / "labs")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Call ``main`` with arguments; returns exit code, standard output and standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["podnet", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        code = ended.value.code
        assert isinstance(code, int)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        assert "unexpected" not in err
        return code, out, err

    return call


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("--help", 0, "Exit codes: 0 done; 1 a check failed"),
        ("-h", 0, "podnet up topologies/two-nodes.yaml"),
        ("--version", 0, podnet.__version__),
        ("version", 0, podnet.__version__),
        ("list", 0, "no lab is running"),
        ("down --all", 0, "no lab is running: nothing to do"),
        ("validate good.yaml", 0, "1 node"),
        ("schema", 0, '"properties"'),
        ("", 2, "podnet [OPTIONS] COMMAND"),
        ("validate bad.yaml", 2, "bad.yaml:3:"),
        ("validate absent.yaml", 2, "absent.yaml"),
        ("validate .", 2, "."),
        ("validate", 2, "topology.yaml"),
        ("plan bad.yaml", 2, "n2"),
        ("up bad.yaml", 2, "n2"),
        ("status", 2, "no lab is running: start one with 'podnet up TOPOLOGY'"),
        ("status nosuch", 2, "no lab named nosuch is running"),
        ("status good.yaml", 2, "no lab named good is running"),
        ("test", 2, "no lab is running"),
        ("down", 2, "no lab is running"),
        ("exec web -- true", 2, "no lab is running"),
        ("exec a/b/c -- true", 2, "no lab named a is running"),
        ("shell web", 2, "no lab is running"),
        ("logs web", 2, "no lab is running"),
        ("exec", 2, "Missing argument"),
        ("nosuch", 2, "No such command 'nosuch'"),
        ("stats", 2, "Did you mean 'status'?"),
        ("dwon", 2, "Did you mean 'down'?"),
        ("status --chek", 2, "--check"),
        ("status -o yaml", 2, "'yaml' is not one of 'text', 'json'"),
        ("completion tcsh", 2, "'tcsh' is not one of"),
        ("status a b", 2, "unexpected extra argument"),
    ],
)
def test_exit_code_and_message(arguments: str, code: int, said: str, run, files: Path) -> None:  # type: ignore[no-untyped-def]
    found, out, err = run_allowing_extra(run, arguments)
    assert (found, said in out + err) == (code, True), out + err
    if code:
        assert out == ""


def run_allowing_extra(run, arguments: str):  # type: ignore[no-untyped-def]
    """click's own "unexpected extra argument" is no unexpected error."""
    if arguments != "status a b":
        return run(*arguments.split())
    result = CliRunner().invoke(command_line.cli, arguments.split())
    return result.exit_code, "", result.output


def test_all_errors_of_a_file_come_at_once_with_their_places(run, files: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("validate", "bad.yaml")
    assert (code, out) == (2, "")
    assert len(re.findall(r"bad\.yaml:3:\d+", err)) == 2
    code, out, err = run("validate", "bad.yaml", "-o", "json")
    assert code == 2
    shown = json.loads(out)
    assert shown["valid"] is False
    assert len(shown["problems"]) == 2


@pytest.mark.parametrize(
    "arguments", [["version"], ["list"], ["validate", "good.yaml"], ["down", "--all"], ["down", "nosuch"]], ids=" ".join
)
def test_json_is_all_that_is_on_standard_output(arguments: list[str], run, files: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run(*arguments, "-o", "json")
    assert code == 0
    assert isinstance(json.loads(out), dict)
    assert err == ""


def test_the_schema_is_json_and_fits_the_files(run, files: Path) -> None:  # type: ignore[no-untyped-def]
    jsonschema = pytest.importorskip("jsonschema")
    yaml = pytest.importorskip("yaml")
    _, out, _ = run("schema")
    validator = jsonschema.Draft202012Validator(json.loads(out))
    assert list(validator.iter_errors(yaml.safe_load(GOOD))) == []
    assert list(validator.iter_errors({"name": 1})) != []


def test_a_traceback_with_debug_only(monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
    for arguments, shown in ((["--debug", "status"], True), (["status"], False)):
        done = subprocess.run(
            [sys.executable, "-c", _WITHOUT_LABS, *arguments], capture_output=True, text=True, check=False
        )
        assert ("Traceback" in done.stderr) is shown
        assert "no lab is running" in done.stderr
        assert done.returncode != 0


_WITHOUT_LABS = """
import pathlib, sys
from podnet.lab import record
record.RUN_DIR = pathlib.Path("/nonexistent"); record.LABS_DIR = record.RUN_DIR / "labs"
from podnet.cli import main
main()
"""


def test_an_error_that_nobody_foresaw_is_one_line(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def fail() -> list[str]:
        raise RuntimeError("boom")

    monkeypatch.setattr(record, "names", fail)
    monkeypatch.setattr(sys, "argv", ["podnet", "list"])
    result: list[object] = []
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    result.append(ended.value.code)
    assert result == [4]


def test_a_reader_that_goes_away_is_no_error(files: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "podnet", "schema"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 0


class TestHelp:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_each_command_says_what_it_does(self, name: str, run) -> None:  # type: ignore[no-untyped-def]
        code, out, err = run(name, "--help")
        assert (code, err) == (0, "")
        assert re.match(rf"Usage: \S.*podnet {name}\b|Usage: podnet {name}\b", out)
        assert len(out.splitlines()) > 4

    def test_the_list_of_commands_is_true(self, run) -> None:  # type: ignore[no-untyped-def]
        _, out, _ = run("--help")
        for name, help_text in command_line._COMMANDS.items():
            assert f"  {name}  " in out
            found = command_line.cli.get_command(click.Context(command_line.cli), name)
            assert found is not None
            assert found.short_help == help_text

    def test_no_help_imports_anything_heavy(self) -> None:
        script = (
            "import sys, contextlib, io\nfrom podnet.cli import cli\n"
            "for name in [[], *[[c] for c in sys.argv[1:]]]:\n"
            "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
            "        cli.main([*name, '--help'], standalone_mode=False)\n"
            "    assert 'Usage' in out.getvalue()\n"
            "    print(' '.join(name) or '-', *{m.partition('.')[0] for m in sys.modules})\n"
        )
        done = subprocess.run([sys.executable, "-c", script, *COMMANDS], capture_output=True, text=True, check=True)
        lines = done.stdout.splitlines()
        assert len(lines) == len(COMMANDS) + 1
        for line in lines:
            name, *imported = line.split()
            assert set(imported) & HEAVY == set(), name


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script_names_the_program(self, shell: str, run) -> None:  # type: ignore[no-untyped-def]
        code, out, err = run("completion", shell)
        assert (code, err) == (0, "")
        assert "_PODNET_COMPLETE" in out
        assert "podnet" in out

    def test_bash_accepts_it(self, run) -> None:  # type: ignore[no-untyped-def]
        _, out, _ = run("completion", "bash")
        done = subprocess.run(["bash", "-n"], input=out, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_it_completes_commands(self) -> None:
        env = {"_PODNET_COMPLETE": "bash_complete", "COMP_WORDS": "podnet st", "COMP_CWORD": "1"}
        script = "import sys\nsys.argv = ['podnet']\nfrom podnet.cli import main\nmain()\n"
        done = subprocess.run(
            [sys.executable, "-c", script], env=os.environ | env, capture_output=True, text=True, check=False
        )
        assert done.stdout.splitlines() == ["plain,status"], done.stderr


WORDS = st.sampled_from(
    [*COMMANDS, "--help", "-o", "json", "text", "--check", "--all", "--lab", "lab", "-c", "-f", "--tail", "-1", "99",
     "--", "-", "good.yaml", "bad.yaml", "/dev/null", "/", "a/b", "..", "\0x", "", "é", "\udcff", "-" * 40, "%s"]
)  # fmt: skip
# Those that act, or that wait for a terminal, are not called with words drawn by lot.
HARMLESS = [name for name in COMMANDS if name not in {"up", "doctor", "plan"}]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(command=st.sampled_from(HARMLESS), words=st.lists(WORDS | st.text(max_size=8), max_size=5))
def test_no_arguments_make_it_fail_in_a_way_that_nobody_foresaw(
    command: str, words: list[str], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is none of these would be told as "unexpected".
    try:
        command_line.cli.main([command, *words], prog_name="podnet", standalone_mode=False)
    except (click.ClickException, PodnetError):
        pass
    except SystemExit as ended:
        assert ended.code in {0, 1, 2}  # noqa: PT017
