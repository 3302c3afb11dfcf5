"""The command line from outside, and topologies as data: what the tests of the lab share."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

PODNET = [sys.executable, "-m", "podnet"]
TOPOLOGIES = Path(__file__).parents[3] / "topologies"

_EMULATED = 5  # how much more time a command may take under software emulation

# Labs that need what not every kernel has: tests/vm brings them up.
SECOND_TIER = ("ipip", "wireguard")

Topology = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left behind; ``text`` is all that a user saw of it."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def text(self) -> str:
        return self.out + self.err


def podnet(
    *arguments: str | Path,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
) -> Done:
    """Run podnet as a user does. Nobody ever sees a traceback, or an error that podnet did not foresee."""
    if os.environ.get("PODNET_VM") == "1" and stdin is None and cwd is None:
        found = _forked([str(each) for each in arguments], env or {}, timeout * _EMULATED)
        assert "Traceback" not in found.text, found.text
        assert "unexpected " not in found.err, found.err
        return found
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done = subprocess.run(
        [*PODNET, *map(str, arguments)],
        capture_output=True,
        env=os.environ | (env or {}),
        cwd=cwd,
        timeout=timeout,
        check=False,
        **given,
    )
    found = Done(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in found.text, found.text
    assert "unexpected " not in found.err, found.err
    return found


def _forked(arguments: list[str], env: Mapping[str, str], seconds: float) -> Done:
    """The same in a child that has all modules already: under software emulation, importing takes most of the time."""
    _import_everything()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            _child(["podnet", *arguments], env, out.fileno(), err.fileno())
        deadline = time.monotonic() + seconds
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise subprocess.TimeoutExpired(arguments, seconds)
            time.sleep(0.02)
        out.seek(0)
        err.seek(0)
        return Done(os.waitstatus_to_exitcode(ended[1]), out.read().decode(), err.read().decode())


def _child(argv: list[str], env: Mapping[str, str], out: int, err: int) -> NoReturn:
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - it ends soon
        sys.argv = argv
        os.environ.update(env)
        from podnet.cli import main

        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@cache
def _import_everything() -> None:
    from podnet.topology.load import loads

    loads("name: warm\nnodes: [{name: n1}]\n", "warm.yaml")  # pydantic builds its validators now
    for module in ("up", "status", "test", "plan", "down", "impair", "watch"):
        import_module(f"podnet.cli.{module}_command")


def succeeds(*arguments: str | Path, **options: Any) -> Done:
    done = podnet(*arguments, **options)
    assert done.code == 0, done.text
    return done


def write(folder: Path, topology: Topology) -> Path:
    """A topology as a file (JSON is YAML); the lab's name is the file's."""
    path = folder / f"{topology['name']}.yaml"
    path.write_text(json.dumps(topology), encoding="utf-8")
    return path


def two_nodes(name: str = "lab", **networking: Any) -> Topology:
    """Two nodes, three pods: web and api on node1, db on node2."""
    return {
        "name": name,
        "networking": networking,
        "nodes": [{"name": "node1"}, {"name": "node2"}],
        "pods": [
            {"name": "web", "node": "node1"},
            {"name": "api", "node": "node1"},
            {"name": "db", "node": "node2"},
        ],
    }


def changed(topology: Topology, edit: Callable[[Topology], Any]) -> Topology:
    """A copy of a topology, edited."""
    edited = copy.deepcopy(topology)
    edit(edited)
    return edited


def named(topology: Topology, kind: str, name: str) -> dict[str, Any]:
    """One entry of a topology's list."""
    found: dict[str, Any] = next(each for each in topology[kind] if each["name"] == name)
    return found


def told(changes: list[dict[str, Any]]) -> set[str]:
    """Changes as ``ACTION OBJECT``; the eight hex digits of made-up interface names stand as a star."""
    lines = [re.sub(r"\b(veth|port|podnet|br)[0-9a-f]{8}\b", r"\1*", f"{c['action']} {c['object']}") for c in changes]
    lines = [line.replace("(podnet.", "(") for line in lines]  # altnames are podnet.LAB.TARGET.INTERFACE
    assert len(lines) == len(set(lines)), f"one object is named twice: {lines}"
    return set(lines)


def drift(lab: str = "lab") -> set[str]:
    return told(podnet("status", lab, "-o", "json").json["drift"])


def planned(path: Path) -> set[str]:
    return told(succeeds("plan", path, "-o", "json").json["changes"])


def clean(lab: str = "lab") -> None:
    """``status`` finds nothing to say."""
    done = podnet("status", lab, "--check", "-o", "json")
    assert done.code == 0, done.json["drift"]
    assert done.json["state"] == "up"


def proved(lab: str = "lab") -> None:
    """Packets say that all is as it must be."""
    done = podnet("test", lab, "-o", "json")
    assert done.code == 0, done.text
    assert done.json["summary"]["failed"] == 0
    assert done.json["summary"]["expected"] == done.json["summary"]["passed"] > 0


def target(lab: str, name: str) -> dict[str, Any]:
    """A pod, node, client or router as ``status`` shows it."""
    shown = succeeds("status", lab, "-o", "json").json
    everything = [each for kind in ("nodes", "pods", "clients", "routers") for each in shown[kind]]
    found: dict[str, Any] = next(each for each in everything if each["name"] == name)
    return found
