"""The command line: one file per command, each found and imported only when it is called."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from typing import NoReturn

# A command lives for moments and makes hardly a cycle: collecting while modules load is a tenth of --help's time.
gc.disable()

import click  # noqa: E402

from podnet import __version__  # noqa: E402
from podnet.errors import PodnetError  # noqa: E402

__all__ = ["cli", "main", "program"]

# Name and short help of every command, so that --help imports none of them.
_COMMANDS = {
    "up": "Build a lab from a topology, or make a running one what the file says.",
    "down": "Take a lab down, with all that belongs to it.",
    "plan": "Show what 'up' would change, and why.",
    "status": "Show a lab's nodes and pods, and where the kernel differs from the topology.",
    "list": "List the running labs.",
    "test": "Send packets between all pods and nodes, and compare with what must be.",
    "watch": "Probe flows at a steady rate while something changes, and report what was lost.",
    "why": "Send one packet, and say why it was lost.",
    "fault": "Break a running lab on purpose, by name, and put it right again.",
    "trace": "Follow one packet from A to B and its answer back, device by device.",
    "diff": "Compare two saved runs of podnet test.",
    "exec": "Run a command in a pod, node, client or router.",
    "shell": "Open a shell in a pod, node, client or router.",
    "logs": "Show what the containers of a pod wrote.",
    "impair": "Make an interface lose, delay, disorder or limit what it sends.",
    "link": "Set an interface down, or up again.",
    "node": "Stop a node, or start it again.",
    "partition": "Let groups of nodes not reach each other.",
    "heal": "End a partition; with --all, undo every fault.",
    "rekey": "Give nodes of a wireguard lab new keys.",
    "validate": "Check a topology file without touching anything.",
    "schema": "Print the JSON schema of the topology file.",
    "cni": "Call CNI plugins as a container runtime does.",
    "conform": "Judge any CNI plugin against the specification, requirement by requirement.",
    "doctor": "Check what this machine can do: kernel, tools, privileges, limits.",
    "completion": "Print the shell completion script.",
    "version": "Print podnet's version.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"podnet.cli.{cmd_name}_command").command
        command.name = cmd_name
        assert isinstance(command, click.Command)  # noqa: S101 - each module defines one
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            close = get_close_matches(args[0], _COMMANDS, 1) if args else []
            if close:
                msg = f"{error.message} Did you mean '{close[0]}'?"
                raise click.UsageError(msg, ctx) from None
            raise

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader went away (a pager, head): click would exit with 1, but nothing has failed.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show Python tracebacks.")
@click.version_option(__version__, prog_name="podnet")
def cli(debug: bool) -> None:
    """Pod networks that you can build, break, see and prove on one Linux machine.

    \b
      podnet up topologies/two-nodes.yaml     build the lab
      podnet test                             prove it with packets
      podnet exec web -- ip route             look around
      podnet down                             leave nothing behind

    Exit codes: 0 done; 1 a check failed or a difference was found; 2 usage or topology error; 3 this machine
    lacks a capability, or a check could not be measured; 4 the kernel or a tool refused.
    """


def main() -> None:
    """Run the command line; errors become one message and an exit code."""
    debug = "--debug" in sys.argv[1:2]
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("podnet: stopped", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = 2
    except PodnetError as error:
        if debug:
            raise
        click.echo(f"podnet: {error}", err=True)
        code = error.exit_code
    except Exception as error:
        if debug:
            raise
        click.echo(
            f"podnet: unexpected {type(error).__name__}: {error} (run 'podnet --debug ...' for details)", err=True
        )
        code = 4
    sys.exit(0 if code is None else code)


def program() -> NoReturn:
    """The console script: ``main``, then an end at once.

    Taking apart what the process holds would take 30 ms after a topology was read, and change nothing.
    """
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass  # the reader went away, and nothing has failed
    except OSError as error:
        os.write(2, f"podnet: cannot write what was to be printed: {error.strerror}\n".encode())
        code = 4
    os._exit(code if isinstance(code, int) else 1)
