"""``kill -9`` at any moment of ``up`` and ``down``: the next one succeeds, and nothing is left at the end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from lab_cli import PODNET, Topology, clean, podnet, proved, succeeds, two_nodes, write
from lab_kernel import differences, namespaces, snapshot

pytestmark = [pytest.mark.kernel, pytest.mark.stress]

COUNT = int(os.environ.get("PODNET_STRESS_COUNT", "10"))


def _containers(name: str) -> Topology:
    topology = two_nodes(name, ipFamily="dual")
    for pod in topology["pods"]:
        pod["containers"] = [{"name": f"c{i}", "command": ["sleep", "1000"]} for i in range(2)]
    return topology


def _host_node(name: str) -> Topology:
    return {
        "name": name,
        "nodes": [{"name": "host", "host": True}, {"name": "node2"}],
        "pods": [
            {"name": "web", "node": "host", "containers": [{"name": "main", "command": ["sleep", "1000"]}]},
            {"name": "db", "node": "node2"},
        ],
        "clients": [{"name": "laptop", "subnet": "underlay"}],
    }


LABS = {"plain": two_nodes("lab"), "containers": _containers("lab"), "host node": _host_node("lab")}


def _seconds(*command: str) -> float:
    """How long that takes as ``_killed`` starts it."""
    started = time.monotonic()
    subprocess.run([*PODNET, *command], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return time.monotonic() - started


def _killed(command: list[str], after: float) -> bool:
    """Start podnet and kill it after some seconds; whether it had not ended by itself."""
    with subprocess.Popen([*PODNET, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:  # fmt: skip
        time.sleep(after)
        running = process.poll() is None
        if running:
            process.send_signal(signal.SIGKILL)
        process.wait(10)
    return running


@pytest.mark.parametrize("kind", LABS)
def test_a_killed_up_or_down_is_completed_by_the_next(kind: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("PODNET_STRESS_SEED") or random.randrange(2**32))  # noqa: S311
    print(f"PODNET_STRESS_SEED={seed}")  # shown when the test fails
    chance = random.Random(seed)  # noqa: S311
    path = write(tmp_path, LABS[kind])
    machine = snapshot("")
    whole = {"up": _seconds("up", str(path)), "down": _seconds("down", "lab")}
    commands = {"up": ["up", str(path)], "down": ["down", "lab"]}
    killed = 0
    for number in range(COUNT):
        doing = ("up", "down")[number % 2]
        if doing == "down" and number % 4 == 1:
            succeeds("up", path)  # half of the downs find a whole lab, half what a killed up left
        moment = chance.uniform(0, whole[doing])
        killed += _killed(commands[doing], moment)
        then = ("up", "down")[(number // 2) % 2]
        where = f"try {number}: '{doing}' was killed after {moment:.4f} s, then '{then}'"
        done = podnet(*commands[then])
        assert done.code == 0, f"{where}: {done.text}"
        if then == "up":
            check = podnet("status", "lab", "--check")
            assert check.code == 0, f"{where}: {check.text}"
        else:
            assert namespaces() == set(), where
            assert differences({"": machine}, {"": snapshot("")}) == [], where
    assert killed, "no moment fell into a run"
    succeeds("up", path)
    clean()
    proved()
    succeeds("down", "lab")
    assert differences({"": machine}, {"": snapshot("")}) == []


@pytest.mark.parametrize("first", ["up", "down"])
def test_killed_again_and_again_without_a_word_between(first: str, tmp_path: Path) -> None:
    """Five kills in a row, none of them followed by a repair, then one that may finish."""
    seed = int(os.environ.get("PODNET_STRESS_SEED") or random.randrange(2**32))  # noqa: S311
    print(f"PODNET_STRESS_SEED={seed}")
    chance = random.Random(seed)  # noqa: S311
    path = write(tmp_path, _containers("lab"))
    whole = _seconds("up", str(path))
    for number in range(5):
        command = ["up", str(path)] if (number % 2 == 0) == (first == "up") else ["down", "lab"]
        _killed(command, chance.uniform(0.3 * whole, whole))
    succeeds("up", path)
    clean()
    proved()


def test_a_killed_supervisor_takes_its_containers_along_and_up_starts_them_again(tmp_path: Path) -> None:
    path = write(tmp_path, _containers("lab"))
    succeeds("up", path)
    pids = [c["pid"] for pod in succeeds("status", "-o", "json").json["pods"] for c in pod["containers"]]
    parents = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids}
    assert len(parents) == 1
    os.kill(parents.pop(), signal.SIGKILL)
    assert podnet("status", "lab", "--check").code == 1
    succeeds("up", path)
    clean()
    again = [c["pid"] for pod in succeeds("status", "-o", "json").json["pods"] for c in pod["containers"]]
    assert len(again) == len(pids) == 6
    assert not set(again) & set(pids)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    proved()
