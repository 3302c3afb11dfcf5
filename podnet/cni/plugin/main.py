"""The plugin's entry: one call, from environment and standard input to exit code and standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.cni.spec import request, versions
from podnet.cni.spec.document import encode
from podnet.cni.spec.errors import INTERNAL, NOT_AVAILABLE, TRY_AGAIN_LATER, CNIError, as_cni_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.machine import Machine
    from podnet.cni.spec.request import Request

__all__ = ["STATE", "main", "run"]

STATE = "/var/lib/cni/podnet"


def run(
    environ: Mapping[str, str],
    read: Callable[[], bytes],
    *,
    state: str = STATE,
    machine: Callable[[], Machine] | None = None,
) -> tuple[int, bytes]:
    """One call of the plugin; its exit code and its standard output.

    ``read`` gives standard input to its end; for VERSION it must give what is there already, and not wait. ``state``
    is the folder of what is written down, where ``ipam.dataDir`` names no other. Never raises: what goes wrong becomes
    an error object.
    """
    data = b""

    def reading() -> bytes:
        nonlocal data
        data = read()
        return data

    try:
        call = request.parse(environ, reading)
        if call.command == "VERSION":
            return 0, encode(versions.answer(_asked(read)))
        return 0, _answer(call, environ, state, machine)
    except Exception as error:  # noqa: BLE001 - a plugin must say everything as an error object on standard output
        return 1, encode(_known(error).to_json(request.version_of(data) if data else ""))


def main() -> int:
    """The plugin as an executable; returns its exit code."""
    import os

    from podnet.cni.spec.document import read

    command = os.environ.get("CNI_COMMAND", "")
    if not command:  # a human, who wants to know what this is
        os.write(2, versions.about("podnet CNI plugin").encode())
        return 0
    code, output = run(os.environ, lambda: read(patient=command != "VERSION"))
    while output:
        output = output[os.write(1, output) :]
    return code


def _asked(read: Callable[[], bytes]) -> str:
    """The version that the runtime sent with VERSION; empty where it sent none."""
    try:
        data = read()
    except CNIError:  # VERSION needs no standard input
        return ""
    return request.version_of(data) if data else ""


def _known(error: Exception) -> CNIError:
    from podnet.ipam.ledger import BusyError

    if isinstance(error, BusyError):
        return CNIError(TRY_AGAIN_LATER, str(error))
    return as_cni_error(error)


def _answer(parsed: Request, environ: Mapping[str, str], state: str, machine: Callable[[], Machine] | None) -> bytes:
    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.machine import Machine
    from podnet.cni.plugin.settings import CHAINED, Settings, parse

    config = parsed.config
    if config is None:
        raise CNIError(INTERNAL, f"{parsed.command} without a configuration")
    # DEL and GC clean by what is written down, whatever the configuration has become since.
    settings = Settings() if parsed.command in ("DEL", "GC") else parse(config)
    with (machine or Machine)() as here:
        call = Call(here, parsed.environment, environ, config, settings, state)
        mode = config.document.get("mode")
        if mode in CHAINED:
            return _chained(parsed.command, call, mode)
        if parsed.command == "ADD":
            from podnet.cni.plugin.add import add

            return encode(add(call))
        if parsed.command == "CHECK":
            from podnet.cni.plugin.check import check

            check(call)
        elif parsed.command == "STATUS":
            _status(call)
        else:
            from podnet.cni.plugin import clean

            (clean.delete if parsed.command == "DEL" else clean.collect)(call)
    return b""


def _chained(command: str, call: Call, mode: str) -> bytes:
    from podnet.cni.plugin import chained

    if command == "ADD":
        return encode(chained.add(call))
    if command == "CHECK":
        chained.check(call)
    elif command == "DEL":
        chained.delete(call, mode)
    elif command == "GC":
        chained.collect(call, mode)
    else:
        chained.status(call)
    return b""


def _status(call: Call) -> None:
    """Raise ``CNIError`` 50 where no address is left, or what the IPAM plugin says."""
    from podnet.cni.plugin import ipam, parts

    parts.wanted(call)
    if ipam.delegated(call.config):
        ipam.delegate(call.machine, call.config, call.environ, "STATUS")
    if not ipam.own(call.config):
        return
    from podnet.ipam.allocation import exhausted

    sets = ipam.ranges_of(call.config)
    with call.ledger() as ledger:
        why = exhausted(ledger, call.config.name, sets, call.stale)
    if why:
        raise CNIError(NOT_AVAILABLE, f"no address is left in network {call.config.name}", why)
