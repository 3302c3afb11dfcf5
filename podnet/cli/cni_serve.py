"""``podnet cni serve``: the warm server."""

from __future__ import annotations

import os
import sys

import click

from podnet.cni.server.protocol import SOCKET

__all__ = ["serve"]


@click.command(short_help="Run the warm server, which makes the plugin fast.")
@click.option("--socket", "path", metavar="PATH", default=SOCKET, show_default=True, help="Where it listens.")
@click.option("--idle", metavar="MINUTES", type=click.FloatRange(min=0), default=0.0,
              help="End after so long without a call. [default: never]")  # fmt: skip
@click.option("--detach", is_flag=True, help="Return when it listens, and let it run in the background.")
def serve(path: str, idle: float, detach: bool) -> None:
    """Run the server that the plugin's executable hands its calls to, until SIGTERM or Ctrl-C.

    The plugin works without it as well, at the price of Python's start for every call. It may be ended at any time,
    even by kill -9: all state is in the kernel and on disk. Root only.
    """
    from podnet.cni.server.serve import serve as run

    if not detach:
        run(path, idle=idle * 60)
        return
    said, tell = os.pipe()
    if os.fork() == 0:
        os.close(said)
        _background(path, idle * 60, tell)
    os.close(tell)
    with os.fdopen(said, encoding="utf-8", errors="replace") as answer:
        word = answer.read()
    if word.startswith("pid "):
        click.echo(f"the server listens at {path}, process {word[4:]}")
        return
    click.echo(f"podnet: {word or 'the server ended before it listened'}", err=True)
    sys.exit(2)


def _background(path: str, idle: float, tell: int) -> None:
    """The child: it becomes the server, and never returns into the caller's code."""
    from podnet.cni.server.serve import serve as run
    from podnet.errors import PodnetError

    code = 1

    def ready() -> None:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        os.close(nothing)
        os.write(tell, f"pid {os.getpid()}".encode())
        os.close(tell)

    try:
        os.setsid()
        run(path, idle=idle, ready=ready)
        code = 0
    except PodnetError as error:
        os.write(tell, str(error).encode())
        code = error.exit_code
    finally:
        os._exit(code)
