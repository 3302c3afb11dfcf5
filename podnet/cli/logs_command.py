"""podnet logs."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from podnet.cli.output import lab_kernel
from podnet.cli.target import lab_option, resolve
from podnet.errors import UsageError

if TYPE_CHECKING:
    from podnet.kernel.process import Supervisor

__all__ = ["command"]


@click.command(short_help="Show what the containers of a pod wrote.")
@lab_option
@click.argument("pod")
@click.option("-c", "--container", help="One container; without it, all of them.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the container writes, until it ends.")
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
        for name in chosen:
            path = supervisor.log_path(f"{target.name}/{name}")
            if len(chosen) > 1:
                out.write(f"==> {name} <==\n".encode())
            ended = partial(_ended, supervisor, f"{target.name}/{name}")
            for data in follow_log(path, tail, ended) if follow else [read_log(path, tail)]:
                out.write(data)
                out.flush()


def _ended(supervisor: Supervisor, name: str) -> bool:
    """Whether a container runs no more. By then its supervisor has written all that it said."""
    return not any(one.process.name == name and one.state == "running" for one in supervisor.observe())
