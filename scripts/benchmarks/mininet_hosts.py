"""Mininet with Linux bridges, by its own Python interface.

Debian's package is for Debian's python3, so this file runs itself there. Counted is what Mininet does, not Python's
start nor its imports.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from statistics import median

HOSTS = 50
DEBIAN_PYTHON = "/usr/bin/python3"


def measure(runs: int) -> dict[str, object]:
    from stopwatch import say

    found = []
    for run in range(1, runs + 1):
        say(f"mininet: {HOSTS} hosts, run {run} of {runs}")
        done = subprocess.run([DEBIAN_PYTHON, __file__], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"bench: Mininet failed:\n{done.stdout}{done.stderr}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    times = {name: [run[name] for run in found] for name in ("up", "down")}
    return {"hosts": HOSTS, "runs": times, "seconds": {name: median(values) for name, values in times.items()}}


def pingall(hosts: int) -> float:
    """Seconds a pair of Mininet's pingAll() between so many hosts on one switch."""
    done = subprocess.run(
        [DEBIAN_PYTHON, __file__, "pingall", str(hosts)], capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"bench: Mininet failed:\n{done.stdout}{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1])["pair"])


def ping_inside(hosts: int) -> None:
    """One pingAll; prints seconds for a pair."""
    from mininet.net import Mininet
    from mininet.nodelib import LinuxBridge
    from mininet.topo import SingleSwitchTopo

    Mininet.inited = True
    net = Mininet(topo=SingleSwitchTopo(hosts), switch=LinuxBridge, controller=None)
    net.start()
    started = time.perf_counter()
    lost = net.pingAll(timeout="1")
    took = time.perf_counter() - started
    net.stop()
    if lost:
        sys.exit(f"{lost} % lost")
    print(json.dumps({"pair": took / (hosts * (hosts - 1))}))


def inside() -> None:
    """One start and stop; prints seconds."""
    from mininet.net import Mininet
    from mininet.nodelib import LinuxBridge
    from mininet.topo import SingleSwitchTopo

    # Mininet would raise limits of the whole machine (kernel.pty.max among them) the first time. It would take no
    # time worth counting, and it is not for a benchmark to change.
    Mininet.inited = True
    started = time.perf_counter()
    net = Mininet(topo=SingleSwitchTopo(HOSTS), switch=LinuxBridge, controller=None)
    net.start()
    up = time.perf_counter()
    net.stop()
    down = time.perf_counter()
    print(json.dumps({"up": up - started, "down": down - up}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["pingall"]:
        ping_inside(int(sys.argv[2]))
    else:
        inside()
