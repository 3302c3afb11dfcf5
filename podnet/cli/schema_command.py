"""podnet schema."""

from __future__ import annotations

import click

from podnet.cli.output import print_json

__all__ = ["command"]


@click.command(short_help="Print the JSON schema of the topology file.")
def command() -> None:
    """Print the JSON schema of the topology file, which editors use for completion and checks.

    With the YAML extension of an editor: podnet schema > podnet.schema.json, and as the file's first line
    '# yaml-language-server: $schema=podnet.schema.json'.
    """
    from podnet.topology.schema import json_schema

    print_json(json_schema())
