"""All pairs proved by packets: `podnet test` as a whole process, and peers on sizes that they can finish."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import mininet_hosts
from stopwatch import PODNET, ROOT, say, timed

NODES = {100: 4, 400: 4, 1000: 10}
NAME = "reach"
PINGED, SCAPY_SENDERS = 100, 3
MININET_HOSTS = 20


def topology(folder: Path, pods: int, *, halved: bool = False) -> str:
    """A lab; ``halved``: pods of the first two nodes and of the others are expected not to reach each other."""
    nodes = NODES[pods]
    lines = [f"name: {NAME}", "nodes:", *(f"  - name: node{node}" for node in range(nodes)), "pods:"]
    for node in range(nodes):
        side = "left" if node < nodes // 2 else "right"
        lines.append(
            f"  - {{name: pod{node}, node: node{node}, replicas: {pods // nodes}, labels: {{side: {side}}}}}"
        )  # fmt: skip
    if halved:
        lines.append("expect:")
        for one, other in (("left", "right"), ("right", "left")):
            lines.append(
                f"  - {{from: {{labels: {{side: {one}}}}}, to: {{labels: {{side: {other}}}}}, icmp: true,"
                " verdict: drop}"
            )  # fmt: skip
    path = folder / f"reach-{pods}{'-halved' if halved else ''}.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def measured(*command: str, code: int = 0) -> tuple[float, float, float]:
    """Seconds of a process from start to end, those of all processors, and the most memory that it had in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        sys.exit(f"bench: {' '.join(command)} exited with {process.returncode}, not {code}:\n{output[-2000:]}")
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def block() -> None:
    """Let no pod of the first two nodes reach one of the others, nor the other way round."""
    left, right = "10.244.0.0/23", "10.244.2.0/23"
    for node in range(NODES[100]):
        rules = (
            "table ip bench { chain forward { type filter hook forward priority 0;\n"
            f"ip saddr {left} ip daddr {right} drop\nip saddr {right} ip daddr {left} drop\n}}\n}}\n"
        )
        subprocess.run(
            ["ip", "netns", "exec", f"{NAME}.node{node}", "nft", "-f", "-"], input=rules, text=True, check=True
        )


def pods_of(pods: int) -> list[tuple[str, str]]:
    """Namespace and address of every pod."""
    nodes = NODES[pods]
    return [
        (f"{NAME}.pod{node}-{number}", f"10.244.{node}.{number + 2}")
        for node in range(nodes)
        for number in range(pods // nodes)
    ]


def ping_serially() -> float:
    """Seconds a pair of a shell's loop over `ping`, between pods of different nodes and of one."""
    pods = pods_of(100)
    pairs = [(pods[at % 100][0], pods[(at * 37 + 1) % 100][1]) for at in range(PINGED)]
    return (
        sum(timed("ip", "netns", "exec", netns, "ping", "-c", "1", "-W", "1", "-q", to) for netns, to in pairs) / PINGED
    )


def scapy_per_pod() -> float:
    """Seconds a pair of scapy's sr() from a pod to all others at once, without scapy's import."""
    code = (
        "import sys, time\n"
        "from scapy.all import IP, ICMP, conf, sr\n"
        "conf.verb = 0\n"
        "targets = sys.argv[1].split(',')\n"
        "packets = [IP(dst=to) / ICMP(id=7, seq=at) for at, to in enumerate(targets)]\n"
        "begun = time.perf_counter()\n"
        "answered, silent = sr(packets, timeout=2)\n"
        "print(time.perf_counter() - begun, len(silent))\n"
    )
    pods = pods_of(100)
    times = []
    for netns, own in pods[:SCAPY_SENDERS]:
        others = ",".join(to for _, to in pods if to != own)
        done = subprocess.run(
            ["ip", "netns", "exec", netns, sys.executable, "-c", code, others],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        times.append(float(done.stdout.split()[0]) / 99)
    return median(times)


def measure(folder: Path, runs: int, *, large: bool) -> dict[str, object]:
    """Seconds of every run by size and kind; of peers, seconds for a pair."""
    times: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    peers: dict[str, list[float]] = {}
    all_pairs = ("--from", "pods", "--to", "pods")

    def test(name: str, *options: str, code: int = 0) -> None:
        took, worked, most = measured(PODNET, "test", NAME, *options, code=code)
        times.setdefault(name, []).append(took)
        processor.setdefault(name, []).append(worked)
        memory[name] = max(memory.get(name, 0), most)

    timed(PODNET, "up", topology(folder, 100))
    for run in range(runs + 1):  # the first is not counted: it loads programs
        say(f"reach: 100 pods, run {run} of {runs}")
        for protocol in ("icmp", "tcp", "udp", "connect"):
            test(f"100 pods, {protocol}", *all_pairs, "--protocol", protocol)
        test("100 pods, icmp with all paths", *all_pairs, "--protocol", "icmp", "--paths")
        times.setdefault("trace of one pair", []).append(timed(PODNET, "trace", "pod0-0", "pod3-0"))
        peers.setdefault("ping, one by one", []).append(ping_serially())
        peers.setdefault("scapy sr(), pod by pod", []).append(scapy_per_pod())
        if not run:
            for each in (times, processor, peers):
                each.clear()
    timed(PODNET, "down", NAME)
    timed(PODNET, "up", topology(folder, 100, halved=True))
    block()
    for _ in range(runs):
        test("100 pods, icmp, half of them blocked as expected", *all_pairs, "--protocol", "icmp")
    timed(PODNET, "down", NAME)
    timed(PODNET, "up", topology(folder, 100))
    block()
    for _ in range(runs):
        test("100 pods, icmp, half of them blocked unexpectedly", *all_pairs, "--protocol", "icmp", code=1)
    timed(PODNET, "down", NAME)
    for pods in (400, 1000) if large else ():
        say(f"reach: {pods} pods")
        timed(PODNET, "up", topology(folder, pods))
        for _ in range(runs if pods < 1000 else min(runs, 3)):
            test(f"{pods} pods, icmp", *all_pairs, "--protocol", "icmp")
        timed(PODNET, "down", NAME)
    peers["Mininet pingall"] = [mininet_hosts.pingall(MININET_HOSTS)]
    return {
        "runs": times,
        "seconds": {name: median(values) for name, values in times.items()},
        "processor": {name: median(values) for name, values in processor.items()},
        "memory": memory,
        "peers": {name: median(values) for name, values in peers.items()},
    }
