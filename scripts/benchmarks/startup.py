"""The start of commands that people type all the time, beside the least that they could cost."""

from __future__ import annotations

import sys
from statistics import median

from stopwatch import PODNET, ROOT, say, timed

ROUNDS = 20
LAB = "two-nodes"

COMMANDS = {
    "least": (sys.executable, "-c", "import click, json, sqlite3"),
    "help": (PODNET, "--help"),
    "status": (PODNET, "status", LAB),
}


def measure() -> dict[str, object]:
    """Seconds of every round; the commands take turns, so that all see the same machine."""
    say(f"startup: {ROUNDS} rounds")
    timed(PODNET, "up", str(ROOT / f"topologies/{LAB}.yaml"))
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for run in range(ROUNDS + 1):
        for name, command in COMMANDS.items():
            took = timed(*command)
            if run:
                times[name].append(took)
    timed(PODNET, "down", LAB)
    return {
        "rounds": ROUNDS,
        "commands": {name: " ".join(command[1:]) for name, command in COMMANDS.items()},
        "runs": times,
        "seconds": {name: median(values) for name, values in times.items()},
    }
