"""Carries out many calls of the plugin at once, and kills some of them; a program, run on a machine of its own.

    python storm.py STATE PLUGIN SERVER

A line of JSON on standard input says what is to happen at once, a line on standard output what became of it. A call
goes to PLUGIN as an executable, or, with an empty PLUGIN, to a process that is forked with podnet loaded: the same as
a cold call from there on, at a tenth of its price. SERVER, where it is not empty, is the program whose ``serve`` is
podnet's warm server.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from podnet.cni.plugin.main import run
from podnet.cni.server.preload import preload

_SOCKET = "/run/podnet/cni.sock"


class _Call:
    """A call as it was asked for, and its process."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.environ: dict[str, str] = asked["environ"]
        self.kill_at = None if asked.get("kill") is None else time.monotonic() + asked["kill"]
        self.then = _Call(asked["then"]) if asked.get("then") else None
        self.pid = 0
        self.code = 0
        self.stdin, self.stdout = os.memfd_create("stdin"), os.memfd_create("stdout")
        os.write(self.stdin, json.dumps(asked["conf"]).encode())
        os.lseek(self.stdin, 0, os.SEEK_SET)

    def answer(self) -> list[Any]:
        """The command, exit code (negative: the signal) and output of the last call that was made."""
        if self.then is not None and self.then.pid:
            found = self.then.answer()
        else:
            found = [self.environ["CNI_COMMAND"], self.code, os.pread(self.stdout, 1 << 20, 0).decode()]
            if self.then is not None:
                self.then.answer()
        os.close(self.stdin)
        os.close(self.stdout)
        return found


class Storm:
    """The calls of one round, and the server."""

    def __init__(self, state: str, plugin: str, server: str) -> None:
        self._state, self._plugin, self._server = state, plugin, server
        self._serving: subprocess.Popen[bytes] | None = None

    def round(self, wish: dict[str, Any]) -> dict[str, Any]:
        """Start all calls, kill what is to be killed at its time, and wait for all."""
        begun = time.monotonic()
        if self._server:
            self._serve()
        self._commands(wish["before"])
        self._wait_for_end(wish["gone"])
        calls = [_Call(each) for each in wish["calls"]]
        for call in calls:
            call.pid = self._started(call)
        kills = [(call.kill_at, call.pid) for call in calls if call.kill_at is not None]
        if wish["kill_server"] is not None and self._serving:
            kills.append((time.monotonic() + wish["kill_server"], self._serving.pid))
        self._wait(calls, sorted(kills, reverse=True))
        return {"answers": [call.answer() for call in calls], "seconds": time.monotonic() - begun}

    def _started(self, call: _Call) -> int:
        if self._plugin:
            actions = [(os.POSIX_SPAWN_DUP2, call.stdin, 0), (os.POSIX_SPAWN_DUP2, call.stdout, 1)]
            environ = {"PATH": os.environ["PATH"], **call.environ}
            return os.posix_spawn(self._plugin, [self._plugin], environ, file_actions=actions, setsigmask=[])
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            _unblocked()
            with open(call.stdin, "rb", closefd=False) as file:
                data = file.read()
            code, output = run(call.environ, lambda: data, state=self._state)
            os.write(call.stdout, output)
        finally:
            os._exit(code)

    def _wait(self, calls: list[_Call], kills: list[tuple[float, int]]) -> None:
        """Wait for all calls, and for those that follow on killed ones; kill what is to be killed."""
        running = {call.pid: call for call in calls}
        while running:
            patience = kills[-1][0] - time.monotonic() if kills else 120.0
            if patience > 0 and signal.sigtimedwait([signal.SIGCHLD], patience) is None and not kills:
                sys.exit("a call has not ended within 120 s")
            while kills and kills[-1][0] <= time.monotonic():
                _, pid = kills.pop()
                if pid in running or (self._serving and pid == self._serving.pid):
                    os.kill(pid, signal.SIGKILL)
            for pid, call in list(running.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if not ended:
                    continue
                del running[pid]
                call.code = os.waitstatus_to_exitcode(status)
                if call.code < 0 and call.then is not None:
                    call.then.pid = self._started(call.then)
                    running[call.then.pid] = call.then

    def _commands(self, commands: list[str]) -> None:
        if commands:
            text = "\n".join(commands) + "\n"
            subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=True)

    def _wait_for_end(self, links: list[str]) -> None:
        """The kernel takes the links of a namespace that is gone away in the background.

        One worker does that for the whole machine, and others delete namespaces too: 60 s were not enough once.
        """
        deadline = time.monotonic() + 600
        while set(links) & {name for _, name in socket.if_nameindex()}:
            if time.monotonic() > deadline:
                sys.exit("the links of deleted namespaces are still there")
            time.sleep(0.01)

    def _serve(self) -> None:
        """Start the server, if there is none."""
        if self._serving is not None and self._serving.poll() is None:
            return
        before = os.stat(_SOCKET).st_ino if os.path.exists(_SOCKET) else 0
        self._serving = subprocess.Popen([self._server, "serve"], preexec_fn=_unblocked)  # noqa: PLW1509 - there are no threads here
        deadline = time.monotonic() + 60
        while not os.path.exists(_SOCKET) or os.stat(_SOCKET).st_ino == before:
            if time.monotonic() > deadline or self._serving.poll() is not None:
                sys.exit("the server does not listen")
            time.sleep(0.01)


def _unblocked() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def main() -> None:
    storm = Storm(*sys.argv[1:4])
    preload()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    for line in sys.stdin:
        print(json.dumps(storm.round(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
