"""podnet shell."""

from __future__ import annotations

import os
import sys

import click

from podnet.cli.target import lab_option, resolve

__all__ = ["command"]


@click.command(short_help="Open a shell in a pod, node, client or router.")
@lab_option
@click.argument("target")
def command(lab: str | None, target: str) -> None:
    """Open a shell in the namespace of TARGET; its prompt says where it is."""
    from podnet.kernel.execute import run_in
    from podnet.kernel.process import HOSTS
    from podnet.lab.record import directory

    entry, found = resolve(lab, target)
    name = f"{entry.name}/{found.name}"
    shell = os.environ.get("SHELL") or "/bin/sh"
    env = os.environ | {"PODNET_TARGET": name, "PS1": f"{name} \\w # " if shell.endswith("bash") else f"{name} # "}
    # A login file would set the prompt back.
    arguments = [shell, "--norc"] if shell.endswith("/bash") else [shell]
    sys.exit(run_in(found.netns, arguments, env, f"{directory(entry.name)}/{HOSTS}"))
