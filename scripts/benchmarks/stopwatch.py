"""Times of whole processes, and the machine that they are of."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PODNET = str(BIN / "podnet")


def say(text: str) -> None:
    """Progress, for people."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def timed(*command: str) -> float:
    """Seconds that a process takes from start to end; its words are shown only where it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    took = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"bench: {' '.join(command)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return took


def rest() -> None:
    """Wait until the processors are idle, for 10 s at most: the kernel goes on freeing what deleted namespaces had."""
    deadline = time.monotonic() + 10
    before = _processors()
    while time.monotonic() < deadline:
        time.sleep(0.1)
        now = _processors()
        idle, all_of_it = now[0] - before[0], now[1] - before[1]
        if idle >= 0.95 * all_of_it:
            return
        before = now


def _processors() -> tuple[int, int]:
    """Ticks in which processors were idle, and all ticks (/proc/stat, proc(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(each) for each in file.readline().split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def machine() -> dict[str, object]:
    """What the figures depend on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }
