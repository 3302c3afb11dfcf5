"""podnet logs."""

from __future__ import annotations

import sys

import click

from podnet.cli.output import lab_kernel
from podnet.cli.target import lab_option, resolve
from podnet.errors import UsageError

__all__ = ["command"]


@click.command(short_help="Show what the containers of a pod wrote.")
@lab_option
@click.argument("pod")
@click.option("-c", "--container", help="One container; without it, all of them.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the container writes.")
@click.option("--tail", type=click.IntRange(min=0), help="Only the last N lines of each.")
def command(lab: str | None, pod: str, container: str | None, follow: bool, tail: int | None) -> None:
    """Show standard output and error of the containers of POD."""
    from podnet.kernel.log import follow_log, read_log

    entry, target = resolve(lab, pod)
    names = list(target.containers)
    if not names:
        msg = f"{target.kind} {target.name} has no containers"
        raise UsageError(msg)
    if container is not None and container not in names:
        msg = f"pod {target.name} has no container {container}: there are {', '.join(names)}"
        raise UsageError(msg)
    chosen = [container] if container else names
    if follow and len(chosen) > 1:
        msg = f"pod {target.name} has several containers: choose one with -c ({', '.join(names)})"
        raise UsageError(msg)
    out = sys.stdout.buffer
    with lab_kernel(entry.name) as (_, supervisor):
        paths = {name: supervisor.log_path(f"{target.name}/{name}") for name in chosen}
    for name, path in paths.items():
        if len(chosen) > 1:
            out.write(f"==> {name} <==\n".encode())
        for data in follow_log(path, tail) if follow else [read_log(path, tail)]:
            out.write(data)
            out.flush()
