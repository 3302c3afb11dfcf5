"""The commands beside a running lab: exit codes, targets, JSON on standard output, colour."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from lab_cli import PODNET, podnet, succeeds, two_nodes, write

pytestmark = pytest.mark.kernel


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    path = write(tmp_path, two_nodes())
    succeeds("up", path)
    return path


def _bad(folder: Path) -> Path:
    path = folder / "bad.yaml"
    path.write_text("name: bad\nnodes: [{name: n}]\npods: [{name: p, node: m}]\n")
    return path


def test_exit_codes_beside_a_running_lab(lab: Path, tmp_path: Path) -> None:
    expected: list[tuple[int, list[str]]] = [
        (0, ["up", str(lab)]),
        (0, ["plan", str(lab), "--check"]),
        (0, ["status"]),
        (0, ["status", "lab", "--check"]),
        (0, ["status", str(lab), "--check"]),
        (0, ["list"]),
        (0, ["test"]),
        (0, ["test", "lab", "--protocol", "icmp"]),
        (0, ["exec", "web", "--", "true"]),
        (0, ["validate", str(lab)]),
        (0, ["down", "other"]),  # what is not there needs no taking down
        (2, ["up", str(tmp_path / "absent.yaml")]),
        (2, ["up", str(_bad(tmp_path))]),
        (2, ["plan", str(_bad(tmp_path))]),
        (2, ["status", "other"]),
        (2, ["test", "other"]),
        (2, ["exec", "nosuch", "--", "true"]),
        (2, ["logs", "nosuch"]),
        (2, ["shell", "nosuch"]),
        (2, ["down", "lab", "--all"]),
        (2, ["test", "--timeout", "0"]),
        (2, ["test", "--protocol", "gre"]),
        (2, ["logs", "web", "--tail", "-1"]),
    ]
    assert [(podnet(*arguments).code, arguments) for _, arguments in expected] == expected
    subprocess.run(["ip", "-n", "lab.web", "route", "del", "default"], check=True)
    differing: list[tuple[int, list[str]]] = [
        (0, ["status"]),
        (1, ["status", "--check"]),
        (0, ["plan", str(lab)]),
        (1, ["plan", str(lab), "--check"]),
        (1, ["test", "--timeout", "0.2"]),
    ]
    assert [(podnet(*arguments).code, arguments) for _, arguments in differing] == differing


def test_without_privileges_it_says_what_is_missing(lab: Path) -> None:
    # Somebody who may read everything, wherever this checkout lies, and nothing else.
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
              "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # fmt: skip
    for command in (["up", "-"], ["down", "lab"]):
        done = subprocess.run(
            [*nobody, *PODNET, *command],
            input=lab.read_text(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 3, (command, done.stdout, done.stderr)
        assert "root" in done.stderr
        assert "Traceback" not in done.stderr
    succeeds("status", "lab", "--check")


@pytest.mark.parametrize(
    "command",
    [
        ["up", "LAB"], ["plan", "LAB"], ["status"], ["list"], ["test"], ["validate", "LAB"], ["version"], ["doctor"],
        ["down", "lab"], ["down", "--all"], ["down", "other"], ["schema"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_json_is_all_that_is_on_standard_output(command: list[str], lab: Path) -> None:
    option = [] if command == ["schema"] else ["-o", "json"]
    done = podnet(*[str(lab) if word == "LAB" else word for word in command], *option)
    assert done.code in ({0, 3} if command == ["doctor"] else {0})
    assert isinstance(json.loads(done.out), dict)
    assert done.err == ""


def test_json_also_when_there_is_nothing_or_a_difference(lab: Path) -> None:
    subprocess.run(["ip", "-n", "lab.web", "route", "del", "default"], check=True)
    for command in (["status", "--check"], ["plan", str(lab), "--check"], ["test", "--timeout", "0.2"]):
        done = podnet(*command, "-o", "json")
        assert done.code == 1
        assert isinstance(done.json, dict)
    shown = podnet("test", "--timeout", "0.2", "-o", "json").json
    assert shown["summary"]["failed"] > 0
    assert shown["summary"]["expected"] == shown["summary"]["passed"] + shown["summary"]["failed"]
    keys = {"from", "to", "protocol", "family", "expected", "observed"}
    assert all(keys <= result.keys() for result in shown["results"])
    assert len(shown["results"]) == shown["summary"]["expected"]
    succeeds("down")
    assert podnet("list", "-o", "json").json == {"labs": []}
    assert podnet("down", "--all", "-o", "json").json == {"removed": [], "absent": []}


@pytest.mark.parametrize("code", [0, 1, 42, 127, 255])
def test_exec_keeps_the_exit_code(code: int, lab: Path) -> None:
    assert podnet("exec", "web", "--", "sh", "-c", f"exit {code}").code == code


def test_exec(lab: Path) -> None:
    assert podnet("exec", "web", "--", "sh", "-c", "kill -TERM $$").code == 128 + 15
    assert podnet("exec", "web", "--", "/no/such").code == 127
    assert podnet("exec", "web", "--", "/etc/passwd").code == 126
    assert succeeds("exec", "web", "--", "cat", stdin=b"through\n").out == "through\n"
    assert succeeds("exec", "web", "cat", stdin=b"without dashes\n").out == "without dashes\n"
    assert "10.244.0.2/24" in succeeds("exec", "web", "--", "ip", "-4", "-o", "addr").out
    assert "podnet0" in succeeds("exec", "node1", "ip", "link").out
    assert succeeds("exec", "lab/web", "--", "echo", "--help", "-o", "--", "x").out == "--help -o -- x\n"
    assert succeeds("exec", "--lab", "lab", "web", "--", "ls", "/sys/class/net").out.split() == ["eth0", "lo"]
    done = podnet("exec", "wen", "--", "true")
    assert (done.code, "did you mean web" in done.err) == (2, True)
    assert podnet("exec", "web").code == 2
    assert podnet("exec", "web", "--").code == 2


def test_shell_runs_in_the_target(lab: Path) -> None:
    done = podnet("shell", "web", stdin=b"ls /sys/class/net; echo $PODNET_TARGET; exit 7\n", env={"SHELL": "/bin/sh"})
    assert done.code == 7
    assert done.out.split() == ["eth0", "lo", "lab/web"]


def test_several_labs_have_to_be_told_apart(lab: Path, tmp_path: Path) -> None:
    succeeds("up", write(tmp_path, two_nodes("other")))
    for command in (["status"], ["test"], ["down"], ["exec", "web", "--", "true"], ["logs", "web"], ["shell", "web"]):
        done = podnet(*command)
        assert done.code == 2, command
        assert "lab, other" in done.err
    assert podnet("exec", "other/web", "--", "true").code == 0
    assert podnet("exec", "--lab", "other", "web", "--", "true").code == 0
    assert podnet("exec", "third/web", "--", "true").code == 2
    assert {row["name"] for row in podnet("list", "-o", "json").json["labs"]} == {"lab", "other"}
    assert podnet("down", "--all", "-o", "json").json == {"removed": ["lab", "other"], "absent": []}


def test_status_list_and_down_import_nothing_heavy(lab: Path) -> None:
    heavy = {"pyroute2", "scapy", "pydantic", "yaml", "rich", "netaddr"}
    script = (
        "import sys\nfrom podnet.cli import main\nsys.argv = ['podnet', *sys.argv[1:]]\n"
        "try:\n    main()\n"
        "finally:\n    print('imported:', *{n.partition('.')[0] for n in sys.modules}, file=sys.stderr)\n"
    )
    for command in (["status"], ["status", "-o", "json"], ["list"], ["exec", "web", "--", "true"], ["down", "lab"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        imported = set(done.stderr.rpartition("imported:")[2].split())
        assert "podnet" in imported
        assert imported & heavy == set(), command


def on_terminal(*arguments: str) -> str:
    """What podnet writes to a terminal."""
    master, slave = pty.openpty()
    with subprocess.Popen([*PODNET, *arguments], stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not part:
                break
            shown += part
        process.wait(30)
    os.close(master)
    return shown.decode()


def test_colour_only_on_a_terminal(lab: Path, tmp_path: Path) -> None:
    subprocess.run(["ip", "-n", "lab.web", "route", "del", "default"], check=True)
    for command in (["plan", str(lab)], ["status"], ["test", "--timeout", "0.2"], ["doctor"]):
        assert "\x1b[" not in podnet(*command).text, command
        assert "\x1b[" in on_terminal(*command), command
    assert "\x1b[" not in on_terminal("status", "-o", "json")
    assert json.loads(on_terminal("status", "-o", "json"))["state"] == "drifted"


def test_the_labs_names_resolve_in_exec(tmp_path: Path) -> None:
    succeeds("up", write(tmp_path, two_nodes()))
    found = succeeds("exec", "web", "--", "getent", "hosts", "db").out.split()
    assert found == ["10.244.1.2", "db"]
