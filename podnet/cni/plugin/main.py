"""The plugin's entry: one call, from environment and standard input to exit code and standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.cni.journal import Stopwatch, append, record
from podnet.cni.spec import request, versions
from podnet.cni.spec.document import encode
from podnet.cni.spec.errors import INTERNAL, NOT_AVAILABLE, TRY_AGAIN_LATER, CNIError, as_cni_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.machine import Machine
    from podnet.cni.spec.request import Request
    from podnet.ipam.book import Book

__all__ = ["STATE", "answer", "main", "run"]

STATE = "/var/lib/cni/podnet"


def run(
    environ: Mapping[str, str],
    read: Callable[[], bytes],
    *,
    state: str = STATE,
    machine: Callable[[], Machine] | None = None,
    books: Callable[[str], Book] | None = None,
    warm: bool = False,
) -> tuple[int, bytes]:
    """One call of the plugin; its exit code and its standard output.

    ``read`` gives standard input to its end; for VERSION it must not wait long for it. ``state``
    is the folder of what is written down, where ``ipam.dataDir`` names no other; ``machine`` makes, and ``books``
    opens, what the call works with; ``warm``, whether a server calls, is written down. Never raises: what goes wrong
    becomes an error object.
    """
    data = b""
    call: Request | None = None
    watch = Stopwatch()

    def reading() -> bytes:
        nonlocal data
        data = read()
        return data

    try:
        call = request.parse(environ, reading)
        watch("read")
        if call.command == "VERSION":
            return 0, encode(versions.answer(_asked(read)))
        code, found = 0, _answer(call, environ, state, machine, books, watch)
    except Exception as error:  # noqa: BLE001 - a plugin must say everything as an error object on standard output
        code, found = 1, _known(error).to_json(request.version_of(data) if data else "")
    output = encode(found) if found else b""
    watch("answer")
    _write_down(watch, environ, call, found, state, warm=warm)
    return code, output


def answer(
    environ: Mapping[str, str],
    read: Callable[[], bytes],
    *,
    state: str = STATE,
    machine: Callable[[], Machine] | None = None,
    books: Callable[[str], Book] | None = None,
    warm: bool = False,
) -> tuple[int, bytes, bytes]:
    """As ``run``, for an executable: exit code, standard output, and what goes to standard error."""
    if not environ.get("CNI_COMMAND"):  # a human, who wants to know what this is
        return 0, b"", versions.about("podnet CNI plugin").encode()
    return (*run(environ, read, state=state, machine=machine, books=books, warm=warm), b"")


def main(stdin: bytes | None = None) -> int:
    """The plugin as an executable that does its work itself; returns its exit code.

    ``stdin`` is what somebody has read from standard input already.
    """
    import os

    from podnet.cni.spec.document import read

    patient = os.environ.get("CNI_COMMAND") != "VERSION"
    code, *outputs = answer(os.environ, lambda: read(patient=patient) if stdin is None else stdin)
    for descriptor, output in enumerate(outputs, 1):
        _write(descriptor, output)
    return code


def _write(descriptor: int, data: bytes) -> None:
    import os

    while data:
        data = data[os.write(descriptor, data) :]


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


def _write_down(
    watch: Stopwatch,
    environ: Mapping[str, str],
    call: Request | None,
    answer: dict[str, Any],
    state: str,
    *,
    warm: bool,
) -> None:
    """Leave a record, also of a call that could not be read. Where that fails, the call counts all the same."""
    network = call.config.name if call and call.config else ""
    verb, container, ifname = (environ.get(f"CNI_{each}", "") for each in ("COMMAND", "CONTAINERID", "IFNAME"))
    try:
        append(state, record(watch, verb[:16], (network, container, ifname), answer, warm=warm))
    except OSError:
        return


def _answer(
    parsed: Request,
    environ: Mapping[str, str],
    state: str,
    machine: Callable[[], Machine] | None,
    books: Callable[[str], Book] | None,
    watch: Stopwatch,
) -> dict[str, Any]:
    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.machine import Machine
    from podnet.cni.plugin.settings import Settings, parse
    from podnet.ipam.book import Book

    config = parsed.config
    if config is None:
        raise CNIError(INTERNAL, f"{parsed.command} without a configuration")
    # DEL and GC clean by what is written down, whatever the configuration has become since.
    settings = Settings() if parsed.command in ("DEL", "GC") else parse(config)
    with (machine or Machine)() as here:
        call = Call(here, parsed.environment, environ, config, settings, state, watch, books or Book)
        return _verb(parsed.command, call)


def _verb(command: str, call: Call) -> dict[str, Any]:
    from podnet.cni.plugin.settings import CHAINED

    mode = call.config.document.get("mode")
    if mode in CHAINED:
        return _chained(command, call, mode)
    if command == "ADD":
        from podnet.cni.plugin.add import add

        call.passed("load")
        return add(call)
    if command == "CHECK":
        from podnet.cni.plugin.check import check

        call.passed("load")
        check(call)
    elif command == "STATUS":
        _status(call)
    else:
        from podnet.cni.plugin import clean

        call.passed("load")
        (clean.delete if command == "DEL" else clean.collect)(call)
    return {}


def _chained(command: str, call: Call, mode: str) -> dict[str, Any]:
    from podnet.cni.plugin import chained

    if command == "ADD":
        return chained.add(call)
    if command == "CHECK":
        chained.check(call)
    elif command == "DEL":
        chained.delete(call, mode)
    elif command == "GC":
        chained.collect(call, mode)
    else:
        chained.status(call)
    return {}


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
