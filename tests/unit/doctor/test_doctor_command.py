"""`podnet doctor`: what it prints and exits with, for findings that are given."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from podnet.cli.doctor_command import command
from podnet.kernel import capabilities
from podnet.kernel.capabilities import Capability

if TYPE_CHECKING:
    from click.testing import Result


def doctor(monkeypatch: pytest.MonkeyPatch, found: list[Capability], *arguments: str) -> Result:
    monkeypatch.setattr(capabilities, "probe_all", lambda: found)
    return CliRunner().invoke(command, arguments)


def capability(name: str, found: str, *, required: bool) -> Capability:
    return Capability(name, f"use of {name}", found, f"saw {name}", f"get {name}", required)


@pytest.mark.parametrize(
    ("found", "required", "exit_code"),
    [
        ("yes", True, 0),
        ("yes", False, 0),
        ("no", False, 0),
        ("unknown", False, 0),
        ("no", True, 3),
        ("unknown", True, 3),
    ],
)
def test_exit_code_tells_whether_all_that_is_required_is_there(
    monkeypatch: pytest.MonkeyPatch, found: str, required: bool, exit_code: int
) -> None:
    rows = [capability("good", "yes", required=True), capability("veth", found, required=required)]
    for arguments in ((), ("-o", "json")):
        assert doctor(monkeypatch, rows, *arguments).exit_code == exit_code


def test_each_line_says_what_does_not_work_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [capability("veth", "yes", required=True), capability("ipvs", "no", required=False)]
    lines = doctor(monkeypatch, rows).output.splitlines()
    assert lines[1].split() == ["veth", "ok", "use", "of", "veth,", "required", "saw", "veth"]
    assert lines[2].split() == ["ipvs", "missing", "use", "of", "ipvs", "saw", "ipvs", "->", "get", "ipvs"]
    assert len(lines) == 3


def test_what_is_required_and_missing_is_named_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [capability("veth", "no", required=True), capability("bridge", "no", required=True)]
    assert doctor(monkeypatch, rows).output.splitlines()[-1] == "No lab runs here without: veth, bridge."


def test_json_holds_every_capability_and_stdout_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [capability("veth", "no", required=True), capability("ipvs", "unknown", required=False)]
    assert json.loads(doctor(monkeypatch, rows, "-o", "json").stdout) == {
        "ok": False,
        "capabilities": [
            {
                "name": name,
                "needed_for": f"use of {name}",
                "found": found,
                "detail": f"saw {name}",
                "remedy": f"get {name}",
                "required": required,
            }
            for name, found, required in (("veth", "no", True), ("ipvs", "unknown", False))
        ],
    }


def test_no_heavy_library_is_imported() -> None:
    code = (
        "import sys; import podnet.cli.doctor_command, podnet.kernel.capabilities as c; c.probe_all();"
        "print(sorted({'pyroute2', 'scapy', 'pydantic', 'yaml', 'rich', 'netaddr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
