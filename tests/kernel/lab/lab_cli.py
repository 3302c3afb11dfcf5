"""The command line from outside, and topologies as data: what the tests of the lab share."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_forked import run_forked

PODNET = [sys.executable, "-m", "podnet"]
TOPOLOGIES = Path(__file__).parents[3] / "topologies"

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
    timeout: float = 120,
) -> Done:
    """Run podnet as a user does. Nobody ever sees a traceback, or an error that podnet did not foresee.

    In a child of this process, which has podnet's modules; what is given input or another folder, from the executable
    on: that must work as well, and hundreds of commands need not import the same for it.
    """
    if stdin is None and cwd is None:
        found = Done(*run_forked([str(each) for each in arguments], env or {}, timeout))
    else:
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
