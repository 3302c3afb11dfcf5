"""Find a plugin's executable, run it, and read its answer or its error.

Also for a plugin that delegates to another. Without ``subprocess``, whose import is a third of a cold call, and
with standard input in a memory file, so that a plugin which does not read cannot block us.
"""

from __future__ import annotations

import errno
import json
import os
import select
import time
from typing import TYPE_CHECKING

from podnet.cni.spec.document import MAX_BYTES, decode
from podnet.cni.spec.errors import INTERNAL, INVALID_CONFIG, TRY_AGAIN_LATER, CNIError, from_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["PluginNotFoundError", "find", "run", "to_stderr"]

_BUSY_TRIES, _BUSY_PAUSE = 6, 1.0  # an executable that is being written: libcni's numbers
_GRACE = 2.0  # seconds between SIGTERM and SIGKILL
_CHUNK = 1 << 16


class PluginNotFoundError(CNIError):
    """No executable of this name in CNI_PATH."""

    exit_code = 2


def find(name: str, paths: Sequence[str]) -> str:
    """The first regular file of this name in the folders of CNI_PATH. Raises ``PluginNotFoundError``."""
    if not name or "/" in name or "\0" in name:
        raise PluginNotFoundError(INVALID_CONFIG, f"invalid plugin name: {name!r}")
    for folder in paths:
        path = os.path.join(folder, name)
        if folder and os.path.isfile(path):
            return path
    raise PluginNotFoundError(INVALID_CONFIG, f'failed to find plugin "{name}" in path [{" ".join(paths)}]')


def to_stderr(data: bytes) -> None:
    """Pass on what a plugin said, to our own standard error."""
    while data:
        data = data[os.write(2, data) :]


def run(
    executable: str,
    data: bytes,
    environ: Mapping[str, str],
    *,
    timeout: float = 120.0,
    stderr: Callable[[bytes], None] = to_stderr,
    tied: bool = False,
) -> bytes:
    """Run a plugin with ``data`` on standard input; its standard output.

    The calling thread's namespaces are the plugin's. What it says on standard error goes to ``stderr`` when it has
    ended. After ``timeout`` seconds it is ended, with all its children; ``tied``, it is killed when the calling thread
    or process is. Raises ``CNIError``: the plugin's own, 11
    after the timeout, 999 where it failed without a word of its own.
    """
    name = os.path.basename(executable)
    start = _tied if tied else _posix_spawn
    code, output, said = _communicate(executable, name, data, environ, time.monotonic() + timeout, timeout, start)
    if code == 0:
        stderr(said)
        return output
    if output.strip():
        stderr(said)
    raise _failure(code, output, said)


def _communicate(
    executable: str,
    name: str,
    data: bytes,
    environ: Mapping[str, str],
    deadline: float,
    timeout: float,
    start: Callable[[str, Mapping[str, str], tuple[int, int, int]], int],
) -> tuple[int, bytes, bytes]:
    descriptors: list[int] = []
    pid = 0
    try:
        stdin = os.memfd_create("cni-stdin")
        descriptors.append(stdin)
        with open(stdin, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(stdin, 0, os.SEEK_SET)
        output, output_end = os.pipe()
        descriptors += [output, output_end]
        said, said_end = os.pipe()
        descriptors += [said, said_end]
        pid = _started(lambda: start(executable, environ, (stdin, output_end, said_end)), executable, deadline)
        for end in (output_end, said_end):
            os.close(end)
            descriptors.remove(end)
        ended = os.pidfd_open(pid)
        descriptors.append(ended)
        read = _read({output: bytearray(), said: bytearray()}, ended, deadline)
        if read is None:
            _end(pid, ended)
            message = f"plugin {name} gave no answer within {timeout:g} s and was ended"
            raise CNIError(TRY_AGAIN_LATER, message)
        _, status = os.waitpid(pid, 0)
        pid = 0
        return os.waitstatus_to_exitcode(status), bytes(read[output]), bytes(read[said])
    finally:
        if pid:
            _kill(pid, 9)
            os.waitpid(pid, 0)
        for descriptor in descriptors:
            os.close(descriptor)


def _posix_spawn(executable: str, environ: Mapping[str, str], streams: tuple[int, int, int]) -> int:
    from signal import SIGPIPE

    return os.posix_spawn(
        executable,
        [executable],
        dict(environ),
        file_actions=[(os.POSIX_SPAWN_DUP2, stream, target) for target, stream in enumerate(streams)],
        setpgroup=0,  # so that its children end with it
        setsigmask=[],
        setsigdef=[SIGPIPE],  # which Python ignores, and a child would go on ignoring
    )


def _tied(executable: str, environ: Mapping[str, str], streams: tuple[int, int, int]) -> int:
    from podnet.cni.runtime.tied import spawn

    return spawn(executable, environ, streams)


def _started(start: Callable[[], int], executable: str, deadline: float) -> int:
    name, tries = os.path.basename(executable), 0
    while True:
        tries += 1
        try:
            return start()
        except OSError as error:
            busy = error.errno == errno.ETXTBSY
            if not busy or tries == _BUSY_TRIES or time.monotonic() + _BUSY_PAUSE > deadline:
                text = f"plugin {name} cannot be started: {executable}: {error.strerror}"
                raise CNIError(TRY_AGAIN_LATER if busy else INTERNAL, text) from None
            time.sleep(_BUSY_PAUSE)
        except ValueError as error:  # a NUL in a variable
            raise CNIError(INTERNAL, f"plugin {name} cannot be started: {error}") from None


def _read(pipes: dict[int, bytearray], ended: int, deadline: float) -> dict[int, bytearray] | None:
    """What comes through the pipes until the process has ended; ``None`` when that takes too long."""
    poll = select.poll()
    for descriptor in (*pipes, ended):
        poll.register(descriptor, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        over = False
        for descriptor, _ in poll.poll(left * 1000 + 1):
            if descriptor == ended:
                over = True
            elif not _take(descriptor, pipes[descriptor]):
                poll.unregister(descriptor)
        if over:
            break
    # A child that the plugin left behind may hold the pipes open for ever: take what is there.
    for descriptor, taken in pipes.items():
        os.set_blocking(descriptor, False)
        try:
            while _take(descriptor, taken):
                pass
        except BlockingIOError:
            continue
    return pipes


def _take(descriptor: int, taken: bytearray) -> bool:
    chunk = os.read(descriptor, _CHUNK)
    if len(taken) + len(chunk) > MAX_BYTES:
        raise CNIError(INTERNAL, f"netplugin failed: more than {MAX_BYTES} bytes of output")
    taken += chunk
    return bool(chunk)


def _end(pid: int, ended: int) -> None:
    _kill(pid, 15)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.poll(_GRACE * 1000)


def _kill(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _failure(code: int, output: bytes, said: bytes) -> CNIError:
    how = f"exit status {code}" if code > 0 else f"signal {-code}"
    if not output.strip():
        if not said:
            return CNIError(INTERNAL, f"netplugin failed with no error message: {how}")
        return CNIError(INTERNAL, f"netplugin failed: {_quoted(said)}: {how}")
    try:
        found = from_json(decode(output, "error").raw)
        why = "it has no code and no msg"
    except CNIError as error:
        found, why = None, error.msg
    return found or CNIError(
        INTERNAL, f"netplugin failed but error parsing its diagnostic message {_quoted(output)}: {why}"
    )


def _quoted(data: bytes) -> str:
    return json.dumps(data[:4096].decode("utf-8", "replace"), ensure_ascii=False)
