"""nftables through libnftables: whole tables, atomically, as text; ``nft`` where the library is missing.

One atomic ruleset takes 0.55 ms through the library and 12 ms through a spawned ``nft``. pyroute2's nftables has
no atomic ruleset.
"""

from __future__ import annotations

import ctypes
import json
import time
from _thread import allocate_lock
from functools import cache

from podnet.errors import CapabilityError, KernelError
from podnet.kernel.netns import entered

__all__ = [
    "Owned",
    "add",
    "alike",
    "canonical",
    "chains",
    "delete",
    "list_ruleset",
    "list_tables",
    "listed",
    "listing_with_handles",
    "load",
    "replace",
    "run",
]

# nftables/libnftables.h
_OUTPUT_STATELESS, _OUTPUT_HANDLE, _OUTPUT_JSON, _OUTPUT_TERSE = 1 << 2, 1 << 3, 1 << 4, 1 << 11

_INTERRUPTED = "Interrupted system call"  # EINTR, in nft's words
_PATIENCE = 10.0  # seconds

# The library promises nothing to threads, and the kernel takes one transaction of a namespace at a time anyway.
_alone = allocate_lock()


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError:
        return None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        function = getattr(library, name)
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


def load() -> bool:
    """Load the library now, where it can be found; whether there is one."""
    return _library() is not None


def run(netns: str, commands: str, *, as_json: bool = False, terse: bool = False, handles: bool = False) -> str:
    """Run nft commands in a namespace, as one transaction; return what they print.

    ``terse`` is without elements, with ``handles`` rules have theirs behind them.

    Raises ``KernelError`` with nft's own message, ``CapabilityError`` where neither library nor tool is there.
    """
    with entered(netns):
        return _run_here(commands, as_json=as_json, terse=terse, handles=handles)


def _run_here(commands: str, *, as_json: bool = False, terse: bool = False, handles: bool = False) -> str:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return _run_once(commands, as_json=as_json, terse=terse, handles=handles)
        except KernelError as error:
            # Another transaction came while the kernel listed (one in 180 looks beside eight writers). Some of nft's
            # looks try again by themselves, "get element" does not; nothing was changed.
            if _INTERRUPTED not in str(error) or time.monotonic() > until:
                raise


def _run_once(commands: str, *, as_json: bool, terse: bool, handles: bool) -> str:
    library = _library()
    if library is None:
        return _spawned(commands, as_json=as_json, terse=terse, handles=handles)
    wished = {_OUTPUT_JSON: as_json, _OUTPUT_TERSE: terse, _OUTPUT_HANDLE: handles}
    flags = _OUTPUT_STATELESS | sum(flag for flag, wish in wished.items() if wish)
    # A context holds a netlink socket of the namespace that it is made in: make one per call.
    with _alone:
        context = library.nft_ctx_new(0)
        try:
            return _through(library, context, commands, flags)
        finally:
            library.nft_ctx_free(context)


def _through(library: ctypes.CDLL, context: int, commands: str, flags: int) -> str:
    library.nft_ctx_buffer_output(context)
    library.nft_ctx_buffer_error(context)
    library.nft_ctx_output_set_flags(context, flags)
    failed = library.nft_run_cmd_from_buffer(context, commands.encode())
    output = library.nft_ctx_get_output_buffer(context) or b""
    if failed:
        raise KernelError((library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace").strip())
    return bytes(output).decode()


class Owned:
    """Tables that live as long as this object and this process: the kernel deletes them with their owner's socket.

    The tables must have ``flags owner``. Raises ``KernelError`` where the kernel (before 5.12) does not know that, or
    there is no libnftables.
    """

    def __init__(self, netns: str, commands: str) -> None:
        library = _library()
        if library is None:
            msg = "libnftables.so.1 is not here: a table can have no owner"
            raise KernelError(msg)
        self._library = library
        with entered(netns), _alone:
            self._context = library.nft_ctx_new(0)
            try:
                _through(library, self._context, commands, _OUTPUT_STATELESS)
            except BaseException:
                library.nft_ctx_free(self._context)
                raise

    def close(self) -> None:
        """Let the kernel delete the tables; once."""
        with _alone:
            self._library.nft_ctx_free(self._context)


def _spawned(commands: str, *, as_json: bool, terse: bool, handles: bool) -> str:
    import subprocess

    wished = {"-j": as_json, "-t": terse, "-a": handles}
    options = ["-s", *(option for option, wish in wished.items() if wish)]
    try:
        done = subprocess.run(["nft", *options, "-f", "-"], input=commands, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        msg = "neither libnftables.so.1 nor nft is here: apt-get install libnftables1 (or nftables)"
        raise CapabilityError(msg) from None
    if done.returncode:
        raise KernelError(done.stderr.strip())
    return done.stdout


def list_tables(netns: str) -> list[tuple[str, str]]:
    """(family, name) of every table in a namespace, whoever made it."""
    listed = json.loads(run(netns, "list tables", as_json=True))
    return [(row["table"]["family"], row["table"]["name"]) for row in listed["nftables"] if "table" in row]


def list_ruleset(netns: str, family: str, name: str) -> str:
    """The text between the braces of one table, without counters and handles, lines stripped."""
    return _body(run(netns, f"list table {family} {name}"))


def listing_with_handles(netns: str, family: str, name: str) -> str:
    """One table as nft lists it, each rule with ``# handle N`` behind it."""
    return run(netns, f"list table {family} {name}", handles=True)


def _body(listing: str) -> str:
    lines = [line.strip() for line in listing.splitlines()]
    return "\n".join(line for line in lines[1:] if line).removesuffix("}").rstrip()


def add(netns: str, family: str, name: str, ruleset: str) -> None:
    """Make a table that is not there yet (0.25 ms; deleting one first makes it 12 ms, an RCU wait).

    Raises ``KernelError`` where there is one of that name.
    """
    run(netns, f"create table {family} {name}\ntable {family} {name} {{\n{ruleset}\n}}\n")


def replace(netns: str, family: str, name: str, ruleset: str) -> None:
    """Put a table in the place of whatever has its name, in one transaction."""
    # "add" before "delete" makes the delete valid where there is no such table yet.
    run(netns, f"add table {family} {name}\ndelete table {family} {name}\ntable {family} {name} {{\n{ruleset}\n}}\n")


def delete(netns: str, family: str, name: str) -> None:
    """Delete a table; no error if there is none."""
    run(netns, f"add table {family} {name}\ndelete table {family} {name}\n")


def alike(family: str, listing: str, ruleset: str) -> bool:
    """Whether a listed ruleset is what a written one becomes.

    White space apart, podnet writes rules as nft lists them, so the throw-away namespace of ``canonical`` is
    the exception: after a damage, or with an nft of other habits.
    """
    return "".join(listing.split()) == "".join(ruleset.split()) or listing == canonical(family, ruleset)


@cache
def canonical(family: str, ruleset: str) -> str:
    """How this machine's nft lists a ruleset, found out in a throw-away namespace.

    nft's versions print one rule in different words; comparing a listing with another listing of the same
    version is the only comparison that holds.
    """
    from podnet.kernel.netns import anonymous

    with anonymous():
        _run_here(f"table {family} podnet {{\n{ruleset}\n}}\n")
        return _body(_run_here(f"list table {family} podnet"))


@cache
def listed(commands: str) -> str:
    """What this machine's nft lists, elements apart, after commands in a throw-away namespace."""
    from podnet.kernel.netns import anonymous

    with anonymous():
        _run_here(commands)
        return _run_here("list ruleset\n", terse=True)


def chains(listing: str) -> dict[str, str]:
    """The chains of a listing: their rules, stripped, under ``family table chain``."""
    found: dict[str, str] = {}
    table = chain = ""
    for line in map(str.strip, listing.splitlines()):
        words = line.split()
        if line.startswith("table ") and line.endswith("{"):
            table = f"{words[1]} {words[2]}"
        elif line.startswith("chain ") and line.endswith("{"):
            chain = f"{table} {words[1]}"
            found[chain] = ""
        elif line == "}":
            chain = ""
        elif chain:
            found[chain] += line + "\n"
    return found
