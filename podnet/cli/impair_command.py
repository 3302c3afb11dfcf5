"""podnet impair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podnet.cli.faulty import split, target_options
from podnet.errors import UsageError

if TYPE_CHECKING:
    from podnet.lab.record import Record
    from podnet.model.fault import Fault

__all__ = ["command"]

_SETTINGS = {
    "delay": "How long each packet is held back, as in 20ms.",
    "jitter": "By how much the delay varies, as in 5ms.",
    "loss": "How many packets are lost, as in 1%.",
    "duplicate": "How many packets are sent twice, as in 1%.",
    "reorder": "How many packets are sent at once, before those that are held back, as in 25%.",
    "corrupt": "How many packets have a bit flipped, as in 0.1%.",
    "rate": "How much is sent at most, in bits per second, as in 10mbit.",
}


def _settings(command: click.Command) -> click.Command:
    for name, text in _SETTINGS.items():
        command.params.append(click.Option([f"--{name}"], metavar="VALUE", help=text))
    return command


@_settings
@click.command(short_help="Make an interface lose, delay, disorder or limit what it sends.")
@target_options
@click.option("--clear", is_flag=True, help="Undo what this command did to the interface.")
def command(target: str, lab: str | None, clear: bool, **given: str | None) -> None:
    """Impair what TARGET (a pod, node, client or router) sends by its interface, its first one without IFACE.

    Replaces what the command had set there before. A rate alone needs a token bucket, all else the kernel's netem.
    """
    from podnet.cli.faulty import apply
    from podnet.kernel.capabilities import require
    from podnet.kernel.impairment import kind_of, lacking, parse, settings_of
    from podnet.lab.faults import shown
    from podnet.model.fault import Fault

    texts = {name: text for name, text in given.items() if text is not None}
    if clear == bool(texts):
        msg = "say what the interface shall do to packets (--delay, --loss, ...), or --clear"
        raise UsageError(msg)
    try:
        settings = settings_of(**{name: parse(name, text) for name, text in texts.items()})
    except ValueError as error:
        what, hint = error.args
        msg = f"{what}: {hint}"
        raise UsageError(msg) from None
    if lacking(texts):
        raise UsageError(lacking(texts))
    if settings:
        require({f"tc {kind_of(settings)}"})

    def edit(faults: list[Fault], entry: Record) -> list[Fault]:
        name, interface = split(entry, target)
        others = [each for each in faults if (each.kind, each.target, each.interface) != ("impair", name, interface)]
        if clear and len(others) == len(faults):
            msg = f"{name}:{interface} has no impairment that 'podnet impair' made"
            raise UsageError(msg)
        return others if clear else [*others, Fault("impair", name, interface, settings)]

    apply(lab, target, edit, shown)
