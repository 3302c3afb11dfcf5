"""``podnet cni log``: what the calls of the plugin did, and how long each part of them took."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from podnet.cli.output import output_option, print_json, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["log"]

_PAUSE = 0.2  # seconds between two looks with -f


@click.command(short_help="Show what calls of the plugin did.")
@click.option("-n", "--lines", metavar="N", type=click.IntRange(min=0), default=20, show_default=True,
              help="How many of the last calls.")  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@click.option("--network", metavar="NAME", default="", help="Those of this network only.")
@click.option("--container", metavar="ID", default="", help="Those of this container; the beginning of its ID will do.")
@click.option("--verb", metavar="VERB", default="", help="ADD, DEL, CHECK, GC or STATUS only.")
@click.option("--state", metavar="DIR", default="/var/lib/cni/podnet", show_default=True,
              help="The plugin's folder.")  # fmt: skip
@output_option
def log(lines: int, follow: bool, network: str, container: str, verb: str, state: str, output: str) -> None:
    """Show the last calls of the podnet plugin: what each attached or detached, what came of it, and how long it took.

    "warm" calls were carried out by the server. VERSION leaves nothing. The log keeps the last 1 to 2 MiB.
    With -f and -o json, every call is a line.
    """
    from podnet.cni.journal import records

    def wanted(entry: dict[str, Any]) -> bool:
        return (
            (not network or entry.get("network") == network)
            and str(entry.get("container", "")).startswith(container)
            and (not verb or entry["verb"] == verb.upper())
        )

    _readable(state)
    if follow:
        _follow(state, lines, wanted, output)
        return
    found = [entry for entry in records(state) if wanted(entry)]
    found = found[-lines:] if lines else []
    if output == "json":
        print_json({"calls": found})
    elif found:
        click.echo(
            table(
                ["TIME", "VERB", "NETWORK", "CONTAINER", "MS", "HOW", "PHASES", "RESULT"],
                [_row(each) for each in found],
            )
        )


def _readable(state: str) -> None:
    from podnet.cni.journal import FILE_NAME
    from podnet.errors import UsageError

    path = os.path.join(state, FILE_NAME)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        if not os.path.isdir(state):
            msg = f"there is no {state}: the plugin was never called here, or --state is another"
            raise UsageError(msg) from None
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UsageError(msg) from None


def _row(entry: dict[str, Any]) -> list[str]:
    when = time.strftime("%m-%d %H:%M:%S", time.localtime(entry["time"]))
    container = "/".join(filter(None, [entry.get("container", "")[:24], entry.get("ifname", "")]))
    phases = " ".join(f"{name} {took:.1f}" for name, took in entry["phases"].items())
    how = "warm" if entry["warm"] else "cold"
    row = [when, entry["verb"], entry.get("network", "-"), container or "-", f"{entry['ms']:.1f}", how,
           phases, _result(entry)]  # fmt: skip
    # An error may quote anything, and a terminal obeys control characters.
    return ["".join(c if c.isprintable() else "?" for c in cell) for cell in row]


def _result(entry: dict[str, Any]) -> str:
    error = entry.get("error")
    if error:
        text = f"error {error['code']}: {error['msg']}"
        return f"{text}; {error['details']}" if error.get("details") else text
    return " ".join(entry.get("addresses", [])) or "ok"


def _follow(state: str, lines: int, wanted: Callable[[dict[str, Any]], bool], output: str) -> None:
    import json

    waiting = []
    for entry in _coming(state):
        if entry is not None:
            if wanted(entry):
                waiting.append(entry)
            continue
        for each in waiting[-lines:] if lines else []:
            click.echo(json.dumps(each) if output == "json" else "  ".join(_row(each)))
        waiting = []
        lines = 1 << 30  # all that come after the first look
        time.sleep(_PAUSE)


def _coming(state: str) -> Iterator[dict[str, Any] | None]:
    """All records, those that come too; ``None`` whenever there is none for now."""
    from podnet.cni.journal import FILE_NAME, parsed

    path = os.path.join(state, FILE_NAME)
    descriptor, rest = -1, b""
    while True:
        try:
            if descriptor < 0:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            turned = os.stat(path).st_ino != os.fstat(descriptor).st_ino
        except FileNotFoundError:
            turned = False
        while descriptor >= 0 and (data := os.read(descriptor, 1 << 16)):
            *whole, rest = (rest + data).split(b"\n")
            yield from filter(None, map(parsed, whole))
        if turned:  # and read to its end
            os.close(descriptor)
            descriptor = -1
            continue
        yield None
