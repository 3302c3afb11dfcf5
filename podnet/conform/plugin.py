"""Executing a plugin as a container runtime does: environment, standard input, standard output, exit code."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from podnet.conform.model import Exchange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["SEARCH_PATH", "execute"]

# What a plugin finds its tools by (iptables, nft); a runtime passes its own.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def execute(
    path: str,
    env: Mapping[str, str],
    stdin: bytes | Sequence[bytes],
    *,
    timeout: float,
    title: str = "",
    keep_open: bool = False,
) -> Exchange:
    """Run the plugin once, in the caller's namespaces.

    A sequence is written piece by piece with a pause of 50 ms between. ``keep_open`` leaves standard input open
    until the plugin ends. A plugin that runs longer than ``timeout`` seconds is killed, its ``code`` is ``None``.
    """
    pieces = [stdin] if isinstance(stdin, bytes) else list(stdin)
    started = time.monotonic()
    process = subprocess.Popen(
        [path],
        env={"PATH": SEARCH_PATH, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        start_new_session=True,
    )
    if not (process.stdin and process.stdout and process.stderr):
        msg = "the pipes that were asked for are missing"
        raise RuntimeError(msg)
    outputs = {"stdout": bytearray(), "stderr": bytearray()}

    def drain(name: str, descriptor: int) -> None:
        while chunk := os.read(descriptor, 65536):
            outputs[name] += chunk

    readers = [
        threading.Thread(target=drain, args=("stdout", process.stdout.fileno()), daemon=True),
        threading.Thread(target=drain, args=("stderr", process.stderr.fileno()), daemon=True),
    ]
    for reader in readers:
        reader.start()
    for number, piece in enumerate(pieces):
        if number:
            time.sleep(0.05)
        with contextlib.suppress(BrokenPipeError):  # it may answer without having read everything
            process.stdin.write(piece)
            process.stdin.flush()
    if not keep_open:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    code: int | None
    try:
        code = process.wait(max(0.0, started + timeout - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = None
    # What the plugin left running in the background may hold the pipes: a runtime waits for them, we do for 1 s.
    for reader in readers:
        reader.join(1.0)
    taken = time.monotonic() - started
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    if not any(reader.is_alive() for reader in readers):
        process.stdout.close()
        process.stderr.close()
    return Exchange(
        title=title,
        env=dict(env),
        stdin=b"".join(pieces).decode(errors="replace"),
        code=code,
        stdout=outputs["stdout"].decode(errors="replace"),
        stderr=outputs["stderr"].decode(errors="replace"),
        seconds=taken,
    )
