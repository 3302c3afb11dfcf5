"""Traffic between namespaces: a server that says whom it sees, and a client that asks it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from podnet.kernel.netns import entered, open_socket


@contextmanager
def serving(netns: str, port: int = 80) -> Iterator[None]:
    """A server in a container that tells each client the address that it is seen under."""
    with entered(f"/run/netns/{netns}"):
        server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    server.settimeout(0.1)
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            try:
                connection, address = server.accept()
            except TimeoutError:
                continue
            with connection, suppress(ConnectionError):  # the client may have given up
                connection.sendall(address[0].removeprefix("::ffff:").encode())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        server.close()


def ask(netns: str, address: str, port: int = 8080, patience: float = 5) -> str:
    """Under which address a server sees a client of a namespace; empty where it does not answer."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with open_socket(f"/run/netns/{netns}" if netns else "", family, socket.SOCK_STREAM) as sock:
        sock.settimeout(patience)
        try:
            sock.connect((address, port))
            return sock.recv(100).decode()
        except (ConnectionRefusedError, TimeoutError):
            return ""
