"""What the commands that break a lab on purpose share: TARGET[:IFACE], and telling what is broken now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podnet.cli.output import lab_kernel
from podnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.lab.record import Record
    from podnet.model.fault import Fault

__all__ = ["apply", "split", "target_options"]

_KINDS = ("pod", "node", "client", "router")


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument TARGET[:IFACE] and the option --lab."""
    command = click.option("--lab", help="The lab, where several run (or write LAB/TARGET).")(command)
    return click.argument("target", metavar="TARGET[:IFACE]")(command)


def split(entry: Record, text: str) -> tuple[str, str]:
    """Target and interface that a text names. Raises ``UsageError`` saying what there is."""
    from podnet.kernel.objects import Bridge, Tunnel, Veth
    from podnet.lab.faults import named

    name, _, interface = text.rpartition("/")[2].partition(":")
    target = named(entry, name, _KINDS)
    first = str(target["interfaces"][0]["name"])
    links = [each for each in entry.wanted.values() if isinstance(each, Bridge | Veth | Tunnel)]
    there = sorted(each.name for each in links if each.netns == target["netns"])
    if interface == "eth0" and not target["netns"]:
        interface = first  # a host node's uplink has another name, so as not to collide with the machine's
    if interface and interface not in there:
        msg = f"{name} has no interface {interface}: there are {', '.join(there)}"
        raise UsageError(msg)
    return name, interface or first


def apply(
    lab: str | None,
    target: str,
    edit: Callable[[list[Fault], Record], list[Fault]],
    shown: Callable[[Fault], str],
) -> None:
    """Change the faults of the lab that is meant, and print those that there are now."""
    from podnet.lab import record
    from podnet.lab.faults import change

    if lab is None and "/" in target:
        lab = target.partition("/")[0]
    name = record.find(lab).name
    with lab_kernel(name) as (kernel, _):
        faults = change(name, kernel, edit)
    click.echo(f"lab {name}: " + ("; ".join(shown(fault) for fault in faults) if faults else "no faults"))
