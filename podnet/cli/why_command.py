"""podnet why."""

from __future__ import annotations

import sys

import click

from podnet.cli.output import output_option, print_json
from podnet.cli.target import lab_option, resolve

__all__ = ["command"]


@click.command(short_help="Send one packet, and say why it was lost.")
@lab_option
@click.argument("source")
@click.argument("target")
@click.option("--protocol", type=click.Choice(["icmp", "tcp", "udp"]), default="icmp", show_default=True)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="The port of a program; without one, podnet listens itself."
)
@click.option("--family", type=click.Choice(["ipv4", "ipv6"]), help="The IP version; without it, the lab's first.")
@click.option("--size", type=click.IntRange(28, 65535), help="Bytes of the whole packet, which is never fragmented.")
@output_option
def command(
    lab: str | None, source: str, target: str, protocol: str, port: int | None, family: str | None, size: int | None,
    output: str,
) -> None:  # fmt: skip
    """Send a packet from SOURCE to TARGET, watch it on every device, and say where and why it was lost.

    Exits with 1 where it was lost, or came with another sender's address than its own.
    """
    from podnet.diagnose.why import diagnose, subject_of
    from podnet.errors import UsageError

    entry, near = resolve(lab, source)
    _, far = resolve(entry.name, target.removeprefix(f"{entry.name}/"))
    version = int(family[-1]) if family else entry.lab.versions[0]
    if version not in entry.lab.versions:
        msg = f"lab {entry.name} has no IPv{version}"
        raise UsageError(msg)
    if port and protocol == "icmp":
        msg = "ICMP has no ports: give --protocol tcp or udp"
        raise UsageError(msg)
    subject = subject_of(entry.lab, near.name, far.name, protocol, version, port or 0)._replace(size=size or 0)
    (found,) = diagnose(entry.lab, entry.wanted, [subject])
    if output == "json":
        from podnet.report.diagnosis import document

        print_json(document([found])[0] | {"came_through": found.passed})
    elif found.passed:
        click.echo(f"{near.name} -> {far.name} {protocol} ipv{version}: it came through, and so did the answer")
    else:
        from podnet.report.diagnosis import paragraphs

        click.echo(paragraphs([found]))
    if not found.passed:
        sys.exit(1)
