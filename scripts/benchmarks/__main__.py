"""scripts/bench: what a lab costs, in one run, with medians.

lab      `podnet up` and `podnet down` as whole processes, for N pods on 10 nodes, and the kernel's floor for the
         same objects (scripts/bench-floor.c), taking turns; in the machine's own network, as a user would: only there
         can a lab raise the limits of the neighbour table. /run is a tmpfs, as on a machine with systemd. It fails if
         anything is left behind
mininet  Mininet with Linux bridges: 50 hosts on one switch, start and stop, without Python's own start
reach    `podnet test` of all ordered pairs of 100, 400 and 1,000 pods as a whole process, and serial ping, scapy's sr()
         and Mininet's pingAll() on sizes that they can finish
plugin   the CNI plugin, warm and cold, beside the reference bridge, host-local and portmap, taking turns: ADD and DEL
         as whole processes, 100 by 8 at once, and an ADD into a range with 60,000 reservations
fabrics  one TCP stream (iperf3) and echoes between pods of two nodes, for each fabric that the kernel has, taking turns
startup  `podnet --help` and `podnet status` beside `python -c 'import click, json, sqlite3'`, taking turns
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fabrics
import lab
import mininet_hosts
import plugin
import reach
import startup
import tables
from stopwatch import ROOT, machine, say

PARTS = ("lab", "mininet", "reach", "startup", "plugin", "fabrics")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # No choices= here: argparse would hold the empty list against them.
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--pods", type=sizes, default=(10, 100, 1000), metavar="N,N,...", help="default: 10,100,1000")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="of each figure, for its median; default: 5")
    parser.add_argument("--rounds", type=int, default=50, metavar="N", help="of each call of a plugin; default: 50")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures, of every run, as JSON")
    parser.add_argument("--markdown", action="store_true", help="print Markdown, as in docs/benchmarks.md")
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))} (parts: {', '.join(PARTS)})")
    if args.runs < 1 or args.rounds < 1:
        parser.error("--runs and --rounds must be at least 1")
    return args


def sizes(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"not numbers: {text}") from None
    if any(number < lab.NODES or number % lab.NODES or number > 250 * lab.NODES for number in numbers):
        raise argparse.ArgumentTypeError(f"multiples of {lab.NODES} up to {250 * lab.NODES}, not {text}")
    return numbers


SANDBOX = [str(ROOT / "scripts/sandbox")]
# The machine's own network, and a /run that is a tmpfs, as systemd makes it. Where /run is on a disk, ext4 takes as
# long for the file that names a namespace as the kernel for all else of a pod, and longer the more there are.
OWN_RUN = [
    *("unshare", "--mount", "--propagation", "private", "env", "PODNET_BENCH_OWN_RUN=1"),
    *("bash", "-euc", 'mount -n -t tmpfs -o mode=755 podnet-bench /run; exec "$@"', "bench"),
]


def elsewhere(where: list[str], parts: list[str], args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """The results of parts that run in surroundings of their own; ``where`` is the command that makes these."""
    found = folder / "elsewhere.json"
    here = [sys.executable, str(Path(__file__).parent)]
    counts = ["--runs", str(args.runs), "--rounds", str(args.rounds), "--pods", ",".join(map(str, args.pods))]
    command = [*where, *here, *parts, *counts, "--json", str(found)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit(f"bench: {', '.join(parts)} failed")
    results: dict[str, object] = json.loads(found.read_bytes())
    return {part: results[part] for part in parts}


def main() -> int:
    args = arguments()
    if os.geteuid():
        say("making namespaces needs root; run: sudo scripts/bench")
        return 3
    parts = args.parts or PARTS
    results: dict[str, object] = {"machine": machine(), "runs": args.runs}
    with tempfile.TemporaryDirectory(prefix="podnet-bench-") as folder:
        if os.environ.get("PODNET_TEST_SANDBOX") == "1":
            if "startup" in parts:
                results["startup"] = startup.measure()
            if "mininet" in parts:
                results["mininet"] = mininet_hosts.measure(args.runs)
            if "reach" in parts:
                results["reach"] = reach.measure(Path(folder), args.runs, large=args.pods == (10, 100, 1000))
            if "plugin" in parts:
                results["plugin"] = plugin.measure(Path(folder) / "bin", args.rounds, args.runs)
            if "fabrics" in parts:
                results["fabrics"] = fabrics.measure(Path(folder), args.runs)
        elif inside := [part for part in PARTS if part in parts and part != "lab"]:
            results |= elsewhere(SANDBOX, inside, args, Path(folder))
        if "lab" in parts and os.environ.get("PODNET_BENCH_OWN_RUN") == "1":
            results["lab"] = lab.measure(Path(folder), args.pods, args.runs)
        elif "lab" in parts:
            results |= elsewhere(OWN_RUN, ["lab"], args, Path(folder))
    print(tables.render(results, markdown=args.markdown))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
