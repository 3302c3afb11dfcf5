"""Labs of 10 nodes: podnet and the kernel's floor, taking turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from stopwatch import PODNET, ROOT, rest, say, timed

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
    """How many objects there are in all namespaces of this benchmark, as `ip` counts them."""
    names = namespaces()
    found = {"namespaces": len(names), "links": 0, "addresses": 0, "routes": 0, "neighbours": 0}
    for name in names:
        links = ip(name, "address")
        found["links"] += len(links)
        # Link-local addresses are the kernel's own.
        found["addresses"] += sum(a["scope"] != "link" for link in links for a in link["addr_info"])
        found["routes"] += len(ip(name, "route"))
        found["neighbours"] += len(ip(name, "neighbour", "show", "nud", "permanent"))
    return found


def namespaces() -> list[str]:
    return [name for name in names_in("/run/netns") if name.startswith((f"{NAME}.", "floor-"))]


def names_in(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def state() -> dict[str, object]:
    """What of the machine a lab changes, and must put back."""
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout)
    limits = [
        path for family in ("ipv4", "ipv6") for path in Path(f"/proc/sys/net/{family}/neigh/default").glob("gc_*")
    ]
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    return {
        "links": sorted(link["ifname"] for link in links),
        "namespaces": names_in("/run/netns"),
        "labs": names_in("/run/podnet/labs"),
        "sysctls": {str(path): path.read_text(encoding="ascii").strip() for path in sorted(limits)},
        "mounts": sum(" /run/netns " in line for line in mounts.splitlines()),
        "tables": subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout,
    }


@contextmanager
def nothing_left(floor: str) -> Iterator[None]:
    """Fail where the machine is not as it was before; take down what a failure in between has left."""
    before = state()
    made = not os.path.isdir("/run/netns")
    os.makedirs("/run/netns", exist_ok=True)  # the floor does not, and podnet takes it as it is
    try:
        yield
    except BaseException:
        subprocess.run([PODNET, "down", NAME], capture_output=True, check=False)
        for name in namespaces():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        raise
    finally:
        timed(floor, "settle")
        if made:
            with suppress(OSError):
                os.rmdir("/run/netns")
    after = state()
    different = [f"{name} were {was}, are {after[name]}" for name, was in before.items() if was != after[name]]
    if different:
        sys.exit("bench: something is left on the machine: " + "; ".join(different))


def ip(netns: str, *what: str) -> list[dict[str, list[dict[str, str]]]]:
    done = subprocess.run(["ip", "-n", netns, "-j", *what], capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


def weight(size: int) -> int:
    """How often a size is measured in each round: what few pods add is small beside the rest of a run."""
    return max(1, min(6, 300 // (size + 1)))


def measure(folder: Path, sizes: tuple[int, ...], runs: int) -> dict[str, object]:
    """Seconds of every run; ``freed`` is ``down`` and the wait until the kernel has freed all namespaces."""
    floor = compiled(folder)
    times: dict[int, dict[str, list[float]]] = {size: {} for size in (0, *sizes)}
    files = {size: topology(folder, size) for size in times}
    with nothing_left(floor):
        # Not counted: it loads programs, and compares what both make.
        for size in (0, *sizes[:2]):
            say(f"lab: {size} pods, to warm up")
            made = turn(floor, files[size], size, {}, count=True)
            if made["floor"] != made["podnet"]:
                sys.exit(f"bench: the floor makes {made['floor']}, podnet {made['podnet']}: no comparison")
        for run in range(1, runs + 1):
            for again in range(6):
                for size, counted in times.items():
                    if again < weight(size):
                        say(f"lab: {size} pods, round {run} of {runs}, {again + 1} of {weight(size)}")
                        turn(floor, files[size], size, counted)
    return {
        "nodes": NODES,
        "sizes": [
            {"pods": size, "runs": each, "seconds": {name: median(values) for name, values in each.items()}}
            for size, each in times.items()
        ],
    }


def turn(
    floor: str, file: str, size: int, times: dict[str, list[float]], *, count: bool = False
) -> dict[str, dict[str, int]]:
    """Both make and delete a lab once; the objects that each made, where they are to be counted."""
    made = {}
    for who, up, down in (
        ("floor", (floor, "up", str(NODES), str(size)), (floor, "down", str(NODES), str(size))),
        ("podnet", (PODNET, "up", file), (PODNET, "down", NAME)),
    ):
        rest()
        times.setdefault(f"{who}_up", []).append(timed(*up))
        if count:
            made[who] = objects()
        took = timed(*down)
        times.setdefault(f"{who}_down", []).append(took)
        times.setdefault(f"{who}_freed", []).append(took + timed(floor, "settle"))
    return made
