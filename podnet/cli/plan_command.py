"""podnet plan."""

from __future__ import annotations

import sys

import click

from podnet.cli.output import changes_text, lab_kernel, output_option, print_json

__all__ = ["command"]


@click.command(short_help="Show what 'up' would change, and why.")
@click.argument("topology", default="topology.yaml", metavar="[TOPOLOGY]")
@click.option("--check", is_flag=True, help="Exit with 1 if anything would change.")
@output_option
def command(topology: str, check: bool, output: str) -> None:
    """Show what 'podnet up TOPOLOGY' would change, with the reason of each change; touch nothing."""
    from podnet.kernel.capabilities import require
    from podnet.lab.converge import plan
    from podnet.lab.status import change_json
    from podnet.topology.load import load

    wanted = load(topology)
    require()
    with lab_kernel(wanted.name) as (kernel, _):
        changes = plan(wanted, kernel).changes
    if output == "json":
        print_json({"name": wanted.name, "changes": [change_json(change) for change in changes]})
    elif changes:
        click.echo(changes_text(changes))
        counts = {
            action: sum(c.action == action for c in changes) for action in ("create", "update", "recreate", "delete")
        }
        click.echo(", ".join(f"{number} to {action}" for action, number in counts.items() if number))
    else:
        click.echo(f"lab {wanted.name} is what {topology} says: nothing to change")
    if check and changes:
        sys.exit(1)
