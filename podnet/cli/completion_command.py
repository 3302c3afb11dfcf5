"""podnet completion."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(short_help="Print the shell completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a SHELL: eval "$(podnet completion bash)"."""
    from click.shell_completion import get_completion_class

    from podnet.cli import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(cli, {}, "podnet", "_PODNET_COMPLETE").source())
