"""Labs of 10 nodes: podnet and the kernel's floor, taking turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from stopwatch import PODNET, ROOT, say, timed

NODES = 10
NAME = "bench"


def topology(folder: Path, pods: int) -> str:
    lines = [f"name: {NAME}", "nodes:", *(f"  - name: node{node}" for node in range(NODES))]
    if pods:
        lines.append("pods:")
        lines += [f"  - {{name: pod{node}, node: node{node}, replicas: {pods // NODES}}}" for node in range(NODES)]
    path = folder / f"{pods}.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def compiled(folder: Path) -> str:
    binary = str(folder / "bench-floor")
    timed("gcc", "-O2", "-Wall", "-Werror", "-o", binary, str(ROOT / "scripts/bench-floor.c"))
    return binary


def objects() -> dict[str, int]:
    """How many objects there are in all named namespaces, as `ip` counts them."""
    names = sorted(os.listdir("/run/netns"))
    found = {"namespaces": len(names), "links": 0, "addresses": 0, "routes": 0, "neighbours": 0}
    for name in names:
        links = ip(name, "address")
        found["links"] += len(links)
        # Link-local addresses are the kernel's own.
        found["addresses"] += sum(a["scope"] != "link" for link in links for a in link["addr_info"])
        found["routes"] += len(ip(name, "route"))
        found["neighbours"] += len(ip(name, "neighbour", "show", "nud", "permanent"))
    return found


def ip(netns: str, *what: str) -> list[dict[str, list[dict[str, str]]]]:
    done = subprocess.run(["ip", "-n", netns, "-j", *what], capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


def measure(folder: Path, sizes: tuple[int, ...], runs: int) -> dict[str, object]:
    """Seconds of every run; ``freed`` is ``down`` and the wait until the kernel has freed all namespaces."""
    floor = compiled(folder)
    counts = {}
    times: dict[int, dict[str, list[float]]] = {size: {} for size in (0, *sizes)}
    files = {size: topology(folder, size) for size in times}
    # The first run is not counted: it loads programs, and compares what both have made.
    for run in range(runs + 1):
        for size in times if run else (0, *sizes[:2]):
            say(f"lab: {size} pods, run {run} of {runs}" if run else f"lab: {size} pods, to warm up")
            counted = times[size] if run else {}
            for who, up, down in (
                ("floor", (floor, "up", str(NODES), str(size)), (floor, "down", str(NODES), str(size))),
                ("podnet", (PODNET, "up", files[size]), (PODNET, "down", NAME)),
            ):
                counted.setdefault(f"{who}_up", []).append(timed(*up))
                if not run:
                    counts[who] = objects()
                took = timed(*down)
                counted.setdefault(f"{who}_down", []).append(took)
                counted.setdefault(f"{who}_freed", []).append(took + timed(floor, "settle"))
            if not run and counts["floor"] != counts["podnet"]:
                sys.exit(f"bench: the floor makes {counts['floor']}, podnet {counts['podnet']}: no comparison")
    return {
        "nodes": NODES,
        "sizes": [
            {"pods": size, "runs": each, "seconds": {name: median(values) for name, values in each.items()}}
            for size, each in times.items()
        ],
    }
