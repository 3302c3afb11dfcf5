"""Throughput and latency between pods of two nodes, for every fabric that this kernel has; taking turns."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from stopwatch import PODNET, say, timed

FABRICS = ("host-gw", "vxlan", "wireguard", "ipip")
_SECONDS = 3
_ECHOES = 500
_DEADLINE = 10.0


def _topology(folder: Path, fabric: str) -> tuple[str, str]:
    name = f"bench-{fabric}"
    path = folder / f"{name}.yaml"
    pods = "[{name: web, node: node1}, {name: db, node: node2}]"
    nodes = "[{name: node1}, {name: node2}]"
    path.write_text(f"name: {name}\nnetworking: {{fabric: {fabric}}}\nnodes: {nodes}\npods: {pods}\n", encoding="utf-8")
    return name, str(path)


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Bits a second of one TCP stream, and milliseconds of an echo there and back, of every run."""
    labs: dict[str, str] = {}
    lacking = []
    try:
        for fabric in FABRICS:
            name, path = _topology(folder, fabric)
            done = subprocess.run([PODNET, "up", path], capture_output=True, text=True, check=False)
            if done.returncode == 3:
                lacking.append(fabric)
                continue
            if done.returncode:
                raise SystemExit(f"bench: {done.stderr}")
            labs[fabric] = name
        found: dict[str, dict[str, list[float]]] = {fabric: {"bits": [], "ms": []} for fabric in labs}
        for run in range(runs + 1):  # the first is not counted: it loads programs and shakes hands
            for fabric, name in labs.items():
                say(f"fabrics: {fabric}, run {run} of {runs}" if run else f"fabrics: {fabric}, to warm up")
                bits, ms = _one(name)
                if run:
                    found[fabric]["bits"].append(bits)
                    found[fabric]["ms"].append(ms)
    finally:
        for name in labs.values():
            timed(PODNET, "down", name)
    return {"lacking": lacking, "runs": found}


def _inside(name: str, target: str, *argv: str) -> list[str]:
    return ["ip", "netns", "exec", f"{name}.{target}", *argv]


def _one(name: str) -> tuple[float, float]:
    rows = json.loads(subprocess.check_output(_inside(name, "db", "ip", "-j", "-4", "address", "show", "dev", "eth0")))
    address = rows[0]["addr_info"][0]["local"]
    with _server(name):
        said = subprocess.check_output(_inside(name, "web", "iperf3", "-J", "-t", str(_SECONDS), "-c", address))
    bits = float(json.loads(said)["end"]["sum_received"]["bits_per_second"])
    said = subprocess.check_output(_inside(name, "web", "ping", "-q", "-f", "-c", str(_ECHOES), address))
    average = re.search(rb"= [\d.]+/([\d.]+)/", said)
    if average is None:
        raise SystemExit(f"bench: ping said {said!r}")
    return bits, float(average[1])


@contextmanager
def _server(name: str) -> Iterator[None]:
    """An iperf3 that serves one client, ready when the block begins."""
    with subprocess.Popen(_inside(name, "db", "iperf3", "-s", "-1"), stdout=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + _DEADLINE
        while not subprocess.check_output(_inside(name, "db", "ss", "-Htln", "sport = :5201")):
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: iperf3 did not listen within {_DEADLINE} s")
            time.sleep(0.01)
        try:
            yield
        finally:
            server.kill()


def rows(results: dict[str, Any]) -> list[list[str]]:
    """Each fabric's medians, and their ratios to host-gw: medians of the ratios run by run."""
    base = results["runs"]["host-gw"]
    return [
        [
            fabric,
            f"{median(each['bits']) / 1e9:.2f}",
            f"{median(_ratios(each['bits'], base['bits'])):.2f}",
            f"{median(each['ms']):.3f}",
            f"{median(_ratios(each['ms'], base['ms'])):.2f}",
        ]
        for fabric, each in results["runs"].items()
    ]


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]
