"""podnet trace."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from podnet.cli.output import output_option, print_json
from podnet.cli.target import lab_option, resolve

if TYPE_CHECKING:
    from podnet.model.lab import Lab, Target

__all__ = ["command"]


@click.command(short_help="Follow one packet from A to B and its answer back, device by device.")
@click.argument("source", metavar="A")
@click.argument("target", metavar="B")
@lab_option
@click.option("--protocol", type=click.Choice(["icmp", "tcp", "udp", "sctp"]), help="Default: icmp, with --port tcp.")
@click.option("--port", type=click.IntRange(1, 65535), help="A port of B's own programs, instead of one of podnet's.")
@click.option("-4", "version", flag_value=4, type=int, help="By IPv4.")
@click.option("-6", "version", flag_value=6, type=int, help="By IPv6.")
@output_option
def command(
    source: str, target: str, lab: str | None, protocol: str | None, port: int | None, version: int | None, output: str
) -> None:
    """Send a probe from A to B (pods, nodes or clients) and show where it was seen.

    Each line is a device of a namespace, with what changed since the line before: addresses by NAT with the rule
    and the conntrack entry, TTL, link-layer addresses, encapsulation. The way that the topology predicts stands
    beside the one seen. Exits with 1 where the packet did not get there and back, or took another way.
    """
    from podnet.errors import UsageError
    from podnet.model.probe import Check
    from podnet.probe.trace import trace

    record, sender = resolve(lab, source)
    _, receiver = resolve(record.name, target.removeprefix(f"{record.name}/"))
    protocol = protocol or ("tcp" if port else "icmp")
    if port and protocol == "icmp":
        msg = "icmp has no ports: leave out --port, or write --protocol tcp"
        raise UsageError(msg)
    family = version or _family(record.lab, sender, receiver)
    check = Check(
        sender.name, receiver.name, protocol, family, port or 0, seen="any", listen=port is None, origin="command line"
    )
    found = trace(record.lab, check, sorted({*record.namespaces, *(t.netns for t in record.lab.targets)}))
    if output == "json":
        from podnet.report.story import trace_document

        print_json(trace_document(found))
    else:
        from podnet.report.story import story

        click.echo(story(found))
    if found.result.observed == "unproven":
        sys.exit(3)
    differs = found.predicted is not None and found.seen != found.predicted
    sys.exit(1 if found.result.observed != "reach" or differs else 0)


def _family(subject: Lab, sender: Target, receiver: Target) -> int:
    """The first IP version of the lab that both have addresses of."""
    for version in subject.versions:
        if sender.addresses(version) and receiver.addresses(version):
            return version
    return subject.versions[0]
