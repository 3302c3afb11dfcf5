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
    from podnet.cni.plugin.machine import LinkSeen
    from podnet.cni.server.books import Books
    from podnet.cni.server.together import Together

__all__ = ["WarmMachine", "carry_out"]


class WarmMachine(Machine):
    """A machine that does together with other calls what can be; ``said`` gets what delegates say."""

    def __init__(self, together: Together, said: int, caller: socket.socket) -> None:
        super().__init__()
        self._together, self._said, self._caller = together, said, caller

    def abandoned(self) -> bool:
        poll = select.poll()
        poll.register(self._caller, select.POLLRDHUP)
        return bool(poll.poll(0))

    def delete_link(self, name: str) -> None:
        self._together.links.do(name)

    def nft_addition(self, commands: str) -> None:
        self._together.additions.do(commands)

    def nft_removal(self, commands: str) -> None:
        self._together.removals.do(commands)

    def pin_mac(self, bridge: LinkSeen) -> None:
        """Once for a bridge: the kernel forgets all neighbours that the bridge has, and the route cache, each time."""
        key = (self.kernel.socket("").namespace(), bridge.number, bridge.mac)
        if key not in self._together.pinned:
            super().pin_mac(bridge)
            if key[0]:
                self._together.pinned.add(key)

    def delegate(self, executable: str, data: bytes, environ: dict[str, str]) -> bytes:
        from podnet.cni.runtime.invoke import run

        return run(executable, data, environ, stderr=lambda text: protocol.write_all(self._said, text), tied=True)


def carry_out(connection: socket.socket, together: Together, books: Books, state: str) -> None:
    """Serve one connection, on a thread that ends with it. Never raises for what its caller did."""
    files: protocol.Files | None = None
    try:
        protocol.limit(connection, protocol.READY_PATIENCE)
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
            machine=lambda: WarmMachine(together, given.stderr, connection),
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
