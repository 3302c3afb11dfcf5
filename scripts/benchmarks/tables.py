"""The figures as tables, for a terminal or for Markdown."""

from __future__ import annotations

from typing import Any

import fabrics
import plugin


def render(results: dict[str, Any], *, markdown: bool) -> str:
    place = results["machine"]
    line = f"{place['cores']} cores ({place['processor']}), Linux {place['kernel']}, Python {place['python']}"
    blocks = [f"{line}; medians of {results['runs']} runs; load {place['load']} at the start"]
    if "lab" in results:
        blocks += lab_blocks(results["lab"], markdown=markdown)
    if "mininet" in results:
        blocks += mininet_blocks(results["mininet"], results.get("lab"), markdown=markdown)
    if "reach" in results:
        blocks += reach_blocks(results["reach"], markdown=markdown)
    if "startup" in results:
        blocks += startup_blocks(results["startup"], markdown=markdown)
    if "plugin" in results:
        blocks += plugin_blocks(results["plugin"], markdown=markdown)
    if "fabrics" in results:
        blocks += fabric_blocks(results["fabrics"], markdown=markdown)
    return "\n\n".join(blocks)


def fabric_blocks(results: dict[str, Any], *, markdown: bool) -> list[str]:
    head = ["fabric", "Gbit/s", "of host-gw", "echo ms", "of host-gw"]
    blocks = [
        heading("fabrics: one TCP stream, and an echo there and back", markdown=markdown),
        grid(head, fabrics.rows(results), markdown=markdown),
    ]
    if results["lacking"]:
        blocks.append(f"This kernel lacks {' and '.join(results['lacking'])}.")
    return blocks


def plugin_blocks(results: dict[str, Any], *, markdown: bool) -> list[str]:
    head = ["", "podnet ms", "reference ms", "ratio", "aim", "reached"]
    title = f"CNI plugin (medians of {results['rounds']}, of the crowds of {results['runs']})"
    return [heading(title, markdown=markdown), grid(head, plugin.rows(results), markdown=markdown)]


def lab_blocks(lab: dict[str, Any], *, markdown: bool) -> list[str]:
    sizes = {size["pods"]: size["seconds"] for size in lab["sizes"]}
    none = sizes[0]
    blocks = []
    for step, title in (
        ("up", "up"),
        ("down", "down: until the command ends"),
        ("freed", "down: until the kernel has freed all of it"),
    ):
        rows = []
        before = 0
        for pods, seconds in sizes.items():
            podnet, floor = seconds[f"podnet_{step}"], seconds[f"floor_{step}"]
            row = [str(pods), ms(podnet), ms(floor), f"{podnet / floor:.2f}"]
            for who in ("podnet", "floor"):
                here = seconds[f"{who}_{step}"]
                row.append(ms((here - none[f"{who}_{step}"]) / pods, 3) if pods else "")
                row.append(ms((here - sizes[before][f"{who}_{step}"]) / (pods - before), 3) if pods else "")
            rows.append(row)
            before = pods
        head = [
            "pods",
            "podnet ms",
            "floor ms",
            "ratio",
            "a pod ms",
            "a further pod ms",
            "floor: a pod ms",
            "a further pod ms",
        ]
        blocks += [
            heading(f"Lab of {lab['nodes']} nodes, {title}", markdown=markdown),
            grid(head, rows, markdown=markdown),
        ]
    note = (
        "a pod: (time of N pods - time of none) / N; a further pod: the same against the size above. "
        "Whole processes, Python's start included."
    )
    return [*blocks, note]


def mininet_blocks(mininet: dict[str, Any], lab: dict[str, Any] | None, *, markdown: bool) -> list[str]:
    hosts, seconds = mininet["hosts"], mininet["seconds"]
    each = seconds["up"] / hosts
    rows = [[f"Mininet, {hosts} hosts", ms(seconds["up"]), ms(each, 3), "", "", "", ms(seconds["down"])]]
    sizes = {size["pods"]: size["seconds"] for size in lab["sizes"]} if lab else {}
    for pods, here in sizes.items():
        if pods:
            # Mininet without Python's start; podnet once with all of its time, and once with what a pod adds.
            whole, added = here["podnet_up"] / pods, (here["podnet_up"] - sizes[0]["podnet_up"]) / pods
            row = [f"podnet, {pods} pods", ms(here["podnet_up"]), ms(whole, 3), f"{each / whole:.1f}"]
            rows.append([*row, ms(added, 3), f"{each / added:.1f}" if added > 0 else "", ms(here["podnet_down"])])
    head = ["", "up ms", "up / hosts", "times faster", "a pod ms", "times faster", "down ms"]
    return [heading("Mininet with Linux bridges", markdown=markdown), grid(head, rows, markdown=markdown)]


def reach_blocks(reach: dict[str, Any], *, markdown: bool) -> list[str]:
    rows = []
    for name, took in reach["seconds"].items():
        memory, worked = reach["memory"].get(name), reach["processor"].get(name)
        pods = int(name.split()[0]) if name[0].isdigit() else 0
        pair = f"{took / pods**2 * 1e6:.1f}" if pods else ""
        rows.append(
            [name, f"{took:.2f}", f"{worked:.2f}" if worked else "", pair, f"{memory:.0f}" if memory else ""]
        )  # fmt: skip
    head = ["all ordered pairs, a pod to itself included", "seconds", "of processors", "us a pair", "MiB"]
    peers = [[name, f"{took * 1000:.2f}", f"{took * 9900:.0f}"] for name, took in reach["peers"].items()]
    return [
        heading("Reachability: podnet test as a whole process", markdown=markdown),
        grid(head, rows, markdown=markdown),
        grid(["peer", "ms a pair", "9,900 pairs would take s"], peers, markdown=markdown),
    ]


def startup_blocks(startup: dict[str, Any], *, markdown: bool) -> list[str]:
    least = startup["seconds"]["least"]
    names = {"least": "python -c 'import click, json, sqlite3'", "help": "podnet --help", "status": "podnet status"}
    rows = [[names[name], ms(took), f"{took / least:.2f}"] for name, took in startup["seconds"].items()]
    title = f"Start (medians of {startup['rounds']})"
    return [heading(title, markdown=markdown), grid(["command", "ms", "ratio"], rows, markdown=markdown)]


def ms(seconds: float, digits: int = 1) -> str:
    return f"{seconds * 1000:.{digits}f}"


def heading(text: str, *, markdown: bool) -> str:
    return f"## {text}" if markdown else text


def grid(head: list[str], rows: list[list[str]], *, markdown: bool) -> str:
    if markdown:
        line = "| --- |" + " ---: |" * (len(head) - 1)
        return "\n".join([bar(head), line, *(bar(row) for row in rows)])
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for first, *others in [head, *rows]:
        numbers = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append([first.ljust(widths[0]), *numbers])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def bar(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
