"""The CNI plugin beside the reference plugins: whole processes, the same work, taking turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from stopwatch import BIN, say

if TYPE_CHECKING:
    from collections.abc import Iterator

REFERENCE = "/usr/lib/cni"
SOCKET = "/run/podnet/cni.sock"
CROWD, AT_ONCE = 100, 8
RESERVATIONS = 60_000
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

TITLES = {"ipMasq": "ipMasq", "plain": "without ipMasq", "port": "ipMasq and one port mapping"}
# Ours / reference at most.
AIMS = {
    ("ipMasq", "warm", "add"): 0.25,
    ("ipMasq", "warm", "del"): 0.35,
    ("ipMasq", "cold", "add"): 2.0,
    ("plain", "warm", "add"): 0.6,
    ("plain", "warm", "del"): 0.9,
    ("port", "warm", "add"): 0.15,
}
CROWD_AIM = 1 / 3


class Call(NamedTuple):
    """One execution of a plugin."""

    executable: str
    conf: dict[str, Any]
    container: str


def conf(kind: str, name: str, subnet: str, **more: object) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": name,
        "type": kind,
        "bridge": f"br-{name}"[:15],
        "isDefaultGateway": True,
        "ipam": {"type": "host-local", "subnet": subnet, "dataDir": f"/var/lib/cni/{kind}"},
        **more,
    }


def run(command: str, call: Call, previous: bytes = b"", *, cold: bool = False) -> tuple[float, bytes]:
    """Seconds from the start of a plugin to its end, and what it printed."""
    given = {**call.conf, "prevResult": json.loads(previous)} if previous else call.conf
    stdin, stdout = os.memfd_create("stdin"), os.memfd_create("stdout")
    try:
        os.write(stdin, json.dumps(given).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        environ = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": call.container,
            "CNI_NETNS": f"/run/netns/{call.container}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": REFERENCE,
            "PATH": _PATH,
            **({"PODNET_CNI_SOCKET": ""} if cold else {}),
        }
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
        started = time.perf_counter()
        pid = os.posix_spawn(call.executable, [call.executable], environ, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        took = time.perf_counter() - started
        output = os.pread(stdout, 1 << 20, 0)
    finally:
        os.close(stdin)
        os.close(stdout)
    if status:
        sys.exit(f"bench: {call.executable} {command} of {call.conf['name']} failed: {output.decode()}")
    return took, output


def attach(calls: list[Call], *, cold: bool = False) -> tuple[float, bytes]:
    """A chain's ADD: what the processes take, and the last result."""
    total, result = 0.0, b""
    for call in calls:
        took, result = run("ADD", call, result, cold=cold)
        total += took
    return total, result


def detach(calls: list[Call], result: bytes, *, cold: bool = False) -> float:
    """A chain's DEL."""
    return sum(run("DEL", call, result, cold=cold)[0] for call in reversed(calls))


def chains(folder: str, case: str, container: str, index: int) -> dict[str, list[Call]]:
    """The same work for each contender."""
    masquerade = {"ipMasq": True} if case != "plain" else {}
    found = {}
    for who, subnet in (("warm", "10.90.0.0/16"), ("cold", "10.91.0.0/16"), ("reference", "10.92.0.0/16")):
        kind = "bridge" if who == "reference" else "podnet"
        given = conf(kind, f"{who}-{case}".lower(), subnet, **masquerade)
        executable = f"{REFERENCE}/bridge" if who == "reference" else f"{folder}/podnet"
        mapping = {"portMappings": [{"hostPort": 20000 + index, "containerPort": 80, "protocol": "tcp"}]}
        if case == "port" and who != "reference":
            given |= {"capabilities": {"portMappings": True}, "runtimeConfig": mapping}
        found[who] = [Call(executable, given, container)]
        if case == "port" and who == "reference":
            portmap = {"cniVersion": "1.0.0", "name": given["name"], "type": "portmap", "runtimeConfig": mapping}
            found[who].append(Call(f"{REFERENCE}/portmap", portmap, container))
    return found


def single(folder: str, case: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of ADD and DEL, contender by contender in turns."""
    say(f"plugin: {case}, {rounds} rounds")
    times: dict[str, dict[str, list[float]]] = {}
    for index in range(rounds + 2):
        for who, calls in chains(folder, case, "bench0", index).items():
            cold = who == "cold"
            took, result = attach(calls, cold=cold)
            gone = detach(calls, result, cold=cold)
            if index >= 2:  # the first make the bridge and the tables
                times.setdefault(who, {"add": [], "del": []})
                times[who]["add"].append(took)
                times[who]["del"].append(gone)
    return times


def crowd(folder: str, runs: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of 100 ADDs, and of 100 DELs, by 8 at once."""
    times: dict[str, dict[str, list[float]]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for turn in range(runs):
            say(f"plugin: {CROWD} at once by {AT_ONCE}, run {turn + 1} of {runs}")
            for who in ("warm", "reference"):
                each = [chains(folder, "ipMasq", f"bench{i}", i)[who] for i in range(CROWD)]
                started = time.perf_counter()
                results = list(pool.map(attach, each))
                added = time.perf_counter()
                list(pool.map(lambda pair: detach(pair[0], pair[1][1]), zip(each, results, strict=True)))
                ended = time.perf_counter()
                times.setdefault(who, {"add": [], "del": []})
                times[who]["add"].append(added - started)
                times[who]["del"].append(ended - added)
    return times


def full(folder: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of an ADD into a /16 with 60,000 reservations, and into one with none."""
    say(f"plugin: a /16 with {RESERVATIONS} reservations, {rounds} rounds")
    times: dict[str, list[float]] = {"none": [], "many": []}
    given = {
        who: conf("podnet", f"full-{who}", subnet)
        for who, subnet in (("none", "10.93.0.0/16"), ("many", "10.94.0.0/16"))
    }
    fill(given["many"])
    for index in range(rounds + 2):
        for who, each in given.items():
            call = [Call(f"{folder}/podnet", each, "bench0")]
            took, result = attach(call)
            detach(call, result)
            if index >= 2:
                times[who].append(took)
    return times


def fill(network: dict[str, Any]) -> None:
    from podnet.ipam.ledger import Holder, Ledger, Owner, boot_id

    first = int.from_bytes(bytes([10, 94, 0, 2]), "big")
    with Ledger(network["ipam"]["dataDir"]) as ledger, ledger.transaction():
        for number in range(RESERVATIONS):
            owner = Owner(network["name"], f"full{number}", "eth0")
            ledger.record(Holder(owner, "", 0, boot_id()))
            ledger.take(owner, 4, first + number)
        ledger.note_latest(network["name"], 0, 4, first + RESERVATIONS // 2)


@contextmanager
def server(folder: str) -> Iterator[None]:
    """The warm server of the installation."""
    process = subprocess.Popen([f"{folder}/podnet-python", "serve"], stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while not os.path.exists(SOCKET):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit("bench: the server did not start")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()


def measure(folder: Path, rounds: int, runs: int) -> dict[str, object]:
    """All figures of the plugin, installed in a folder; in the sandbox, whose /var/lib/cni becomes its own."""
    for name in ("bridge", "host-local", "portmap"):
        if not os.access(f"{REFERENCE}/{name}", os.X_OK):
            sys.exit(f"bench: {REFERENCE}/{name} is missing: scripts/setup --bench brings it")
    options = ["--bin-dir", folder, "--no-conflist", "--systemd-dir", ""]
    subprocess.run([BIN / "podnet", "cni", "install", *options], check=True, stdout=subprocess.DEVNULL)
    if not (folder / "podnet").read_bytes().startswith(b"\x7fELF"):
        sys.exit("bench: the small executable could not be compiled")
    Path("/var/lib/cni").mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "podnet-bench", "/var/lib/cni"], check=True)
    names = [f"bench{i}" for i in range(CROWD)]
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with server(str(folder)):
            return {
                "rounds": rounds,
                "runs": runs,
                "single": {case: single(str(folder), case, rounds) for case in TITLES},
                "crowd": crowd(str(folder), runs),
                "full": full(str(folder), rounds),
            }
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)
        subprocess.run(["umount", "-l", "/var/lib/cni"], check=False)


def rows(results: dict[str, Any]) -> list[list[str]]:
    """What was measured, as a table: both medians in ms, their ratio, the aim, whether it was met."""
    found = []
    for case, times in results["single"].items():
        for verb in ("add", "del"):
            for who in ("warm", "cold"):
                title = f"{verb.upper()} {TITLES[case]}, {who}"
                found.append(_row(title, times[who][verb], times["reference"][verb], AIMS.get((case, who, verb))))
    for verb in ("add", "del"):
        title = f"{CROWD} {verb.upper()}s by {AT_ONCE} at once, ipMasq, warm"
        found.append(_row(title, results["crowd"]["warm"][verb], results["crowd"]["reference"][verb], CROWD_AIM))
    title = f"ADD, warm: /16 with {RESERVATIONS} reservations against none"
    # No slower, as far as the noise lets tell: the two do the same but for one look into a table.
    found.append(_row(title, results["full"]["many"], results["full"]["none"], 1.0, noise=0.05))
    return found


def _row(title: str, ours: list[float], reference: list[float], aim: float | None, noise: float = 0) -> list[str]:
    one, other = median(ours) * 1000, median(reference) * 1000
    verdict = "" if aim is None else "yes" if round(one / other, 2) <= round(aim + noise, 2) else "NO"
    return [title, f"{one:.1f}", f"{other:.1f}", f"{one / other:.2f}", "" if aim is None else f"{aim:.2f}", verdict]
