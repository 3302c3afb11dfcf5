"""Plugins that do nothing but record how they were called, and answer what the test says."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from podnet.cni.runtime.chain import Runtime

_PLUGIN = """\
#!{python} -IS
import json, os, signal, sys, time
folder, name = os.path.split(os.path.abspath(sys.argv[0]))
environ = {{key: value for key, value in os.environ.items() if key.startswith("CNI_")}}
call = {{"plugin": name, "command": environ["CNI_COMMAND"], "environ": environ, "stdin": sys.stdin.read()}}
with open(os.path.join(folder, "calls.jsonl"), "a") as file:
    file.write(json.dumps(call) + "\\n")
with open(os.path.join(folder, name + ".answers.json")) as file:
    answer = json.load(file).get(environ["CNI_COMMAND"], {{}})
sys.stderr.write(answer.get("stderr", ""))
sys.stdout.write(answer.get("stdout", ""))
sys.stdout.flush()
time.sleep(answer.get("sleep", 0))
if answer.get("signal"):
    os.kill(os.getpid(), answer["signal"])
sys.exit(answer.get("code", 0))
"""


@dataclass(frozen=True)
class FakePlugins:
    """A folder of such plugins, and the record of their calls."""

    folder: Path

    def make(self, name: str, **answers: Any) -> Path:
        """A plugin; ``ADD={"stdout": ..., "stderr": ..., "code": ...}`` and so on say how it answers."""
        path = self.folder / name
        (self.folder / f"{name}.answers.json").write_text(json.dumps(answers), encoding="utf-8")
        path.write_text(_PLUGIN.format(python=sys.executable), encoding="utf-8")
        path.chmod(0o755)
        return path

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Every call so far, with its configuration as JSON."""
        path = self.folder / "calls.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [call | {"config": json.loads(call["stdin"] or "null")} for call in map(json.loads, lines)]

    @property
    def order(self) -> list[str]:
        """Who was called with what: ``["ADD bridge", "ADD portmap"]``."""
        return [f"{call['command']} {call['plugin']}" for call in self.calls]


@pytest.fixture
def plugins(tmp_path: Path) -> FakePlugins:
    folder = tmp_path / "bin"
    folder.mkdir()
    return FakePlugins(folder)


@pytest.fixture
def said() -> list[bytes]:
    """What plugins said on standard error."""
    return []


@pytest.fixture
def runtime(plugins: FakePlugins, tmp_path: Path, said: list[bytes]) -> Runtime:
    return Runtime((str(plugins.folder),), str(tmp_path / "cache"), 30.0, said.append)
