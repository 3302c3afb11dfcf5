"""One connection: a call received, carried out where its caller stands, answered."""

from __future__ import annotations

import os
import select
import socket
import sys
from typing import TYPE_CHECKING

from podnet.cni.plugin import main
from podnet.cni.plugin.machine import Machine
from podnet.cni.server import protocol
from podnet.cni.spec.document import read
from podnet.errors import PodnetError
from podnet.kernel.netns import stay

if TYPE_CHECKING:
    from podnet.cni.server.books import Books
    from podnet.cni.server.removal import Removals

__all__ = ["WarmMachine", "carry_out"]


class WarmMachine(Machine):
    """A machine whose links are deleted together with those of other calls; ``said`` gets what delegates say."""

    def __init__(self, removals: Removals, said: int, caller: socket.socket) -> None:
        super().__init__()
        self._removals, self._said, self._caller = removals, said, caller

    def abandoned(self) -> bool:
        poll = select.poll()
        poll.register(self._caller, select.POLLRDHUP)
        return bool(poll.poll(0))

    def delete_link(self, name: str) -> None:
        self._removals.links.delete(name)

    def nft_removal(self, commands: str) -> None:
        self._removals.elements.delete(commands)

    def delegate(self, executable: str, data: bytes, environ: dict[str, str]) -> bytes:
        from podnet.cni.runtime.invoke import run

        return run(executable, data, environ, stderr=lambda text: protocol.write_all(self._said, text))


def carry_out(connection: socket.socket, removals: Removals, books: Books, state: str) -> None:
    """Serve one connection, on a thread that ends with it. Never raises for what its caller did."""
    files: protocol.Files | None = None
    try:
        connection.settimeout(protocol.READY_PATIENCE)
        files = _received(connection)
        if files is None:
            return
        environ = protocol.environ_of(_content(files.environ, protocol.MAX_ENVIRON))
        stay(files.netns, files.root)
        connection.sendall(protocol.READY)
        if connection.recv(16) != protocol.GO:
            return
        given = files
        os.lseek(given.stdin, 0, os.SEEK_SET)
        code, output, said = main.answer(
            environ,
            lambda: read(given.stdin),
            state=state,
            machine=lambda: WarmMachine(removals, given.stderr, connection),
            books=books,
            warm=True,
        )
        protocol.write_all(files.stdout, output)
        protocol.write_all(files.stderr, said)
        connection.sendall(protocol.DONE + bytes([code]))
    except (OSError, PodnetError) as error:
        # The caller sees the connection end, and knows by what was said before whether anything has happened.
        sys.stderr.write(f"podnet: a call was given up: {error}\n")
    finally:
        for each in files or ():
            os.close(each)
        connection.close()


def _received(connection: socket.socket) -> protocol.Files | None:
    count = len(protocol.Files._fields)
    # Not inherited by delegates, which other threads may be starting right now.
    data, received, _, _ = socket.recv_fds(connection, 64, count, socket.MSG_CMSG_CLOEXEC)
    if data == protocol.HELLO and len(received) == count:
        return protocol.Files(*received)
    for each in received:
        os.close(each)
    return None


def _content(descriptor: int, limit: int) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > limit:
        msg = f"an environment of {size} bytes"
        raise OSError(msg)
    return os.pread(descriptor, size, 0)
