"""podnet status."""

from __future__ import annotations

import sys
from typing import Any

import click

from podnet.cli.output import changes_text, lab_kernel, output_option, print_json, table

__all__ = ["command"]


@click.command(short_help="Show a lab's nodes and pods, and where the kernel differs from the topology.")
@click.argument("lab", required=False)
@click.option("--check", is_flag=True, help="Exit with 1 if anything differs.")
@output_option
def command(lab: str | None, check: bool, output: str) -> None:
    """Show LAB as the kernel has it now (a name or a topology file; without one, the only lab that runs)."""
    from podnet.kernel.bird import Birds
    from podnet.lab import record
    from podnet.lab.drift import drift
    from podnet.lab.status import document

    entry = record.find(lab)
    with lab_kernel(entry.name) as (kernel, supervisor):
        processes = supervisor.observe()
        changes, found = drift(entry, kernel, processes, Birds(record.daemons_directory(entry.name)).sessions)
        shown = document(entry, found, changes, processes)
    if output == "json":
        print_json(shown)
    else:
        click.echo(_text(shown))
        if shown["faults"]:
            click.echo("\nbroken on purpose:")
            for fault in shown["faults"]:
                click.echo(f"  {fault['what']}" + (" (by the topology)" if fault["by"] == "topology" else ""))
        if changes:
            many, them = ("difference", "it") if len(changes) == 1 else ("differences", "them")
            click.echo(f"\n{len(changes)} {many} from the topology ('podnet up' repairs {them}):")
            click.echo(changes_text(changes))
    if check and (changes or not entry.settled):
        sys.exit(1)


def _text(shown: dict[str, Any]) -> str:
    rows = []
    for kind in ("nodes", "pods", "clients", "routers"):
        for target in shown[kind]:
            addresses = ",".join(a for i in target["interfaces"] for a in i["addresses"])
            mtus = ",".join(str(i["mtu"]) for i in target["interfaces"])
            containers = ", ".join(f"{c['name']}: {_container(c)}" for c in target.get("containers", []))
            netns = target["netns"] or "(the machine)"
            rows.append([kind[:-1], target["name"], target.get("node", ""), netns, addresses, mtus, containers])
    head = ["KIND", "NAME", "NODE", "NETNS", "ADDRESSES", "MTU", "CONTAINERS"]
    used = [i for i in range(len(head)) if any(row[i] for row in rows)]
    state = {
        "up": "up",
        "drifted": "up, but not what the topology says",
        "unfinished": "half-built: 'podnet up' completes it, 'podnet down' removes it",
    }
    body = table([head[i] for i in used], [[row[i] for i in used] for row in rows])
    return f"lab {shown['name']} ({shown['topology'] or 'from standard input'}): {state[shown['state']]}\n\n{body}"


def _container(container: dict[str, Any]) -> str:
    if container["state"] == "exited":
        how = f"signal {container['signal']}" if container["signal"] else f"code {container['exit_code']}"
        return f"exited with {how}"
    return str(container["state"])
