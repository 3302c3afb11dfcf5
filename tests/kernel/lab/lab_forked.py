"""podnet in a child of the tests' own process: all that a command does but the start of Python and its imports."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pkgutil import walk_packages
from typing import NoReturn

__all__ = ["run_forked"]

_EMULATED = 5  # how much more time a command may take under software emulation


def run_forked(arguments: Sequence[str], env: Mapping[str, str], seconds: float) -> tuple[int, str, str]:
    """Run ``podnet ARGUMENTS``: its exit code, standard output and standard error; it is killed after ``seconds``."""
    _import_everything()
    limit = seconds * (_EMULATED if os.environ.get("PODNET_VM") == "1" else 1)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            _child(["podnet", *arguments], env, out.fileno(), err.fileno())
        late = not _ended_within(pid, limit)
        if late:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if late:
            raise subprocess.TimeoutExpired(list(arguments), limit)
        out.seek(0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode()


def _ended_within(pid: int, seconds: float) -> bool:
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(pidfd)


def _child(argv: list[str], env: Mapping[str, str], out: int, err: int) -> NoReturn:
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - it ends soon
        sys.argv = argv
        os.environ.update(env)
        from podnet.cli import main

        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@cache
def _import_everything() -> None:
    """What commands import when they need it, too; as they are: pytest would rewrite and compile all of podnet anew."""
    import podnet

    finders = sys.meta_path
    sys.meta_path = [finder for finder in finders if not type(finder).__module__.startswith("_pytest.")]
    try:
        for module in walk_packages(podnet.__path__, "podnet."):
            if not module.name.endswith("__main__"):
                import_module(module.name)
    finally:
        sys.meta_path = finders
    from podnet.topology.load import loads

    loads("name: warm\nnodes: [{name: n1}]\n", "warm.yaml")  # pydantic builds its validators now
