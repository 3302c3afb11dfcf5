"""One namespace while it lives: the sockets to send, to answer and to hear; opened anew when it comes back.

An open socket keeps a namespace alive after its name is gone. So whether the name still stands for the namespace of the
sockets is looked at many times a second, and the sockets are closed as soon as it does not.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.kernel.netns import path_of
from podnet.probe.addressing import primary
from podnet.probe.template import Aim
from podnet.probe.vantage import Vantage
from podnet.probe.watch.answerer import Answerer, TcpAnswerer, UdpAnswerer

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from podnet.model.lab import Lab
    from podnet.probe.capture import Capture
    from podnet.probe.stamp import Run
    from podnet.probe.watch.flow import Flow

__all__ = ["Origin", "Station"]


class Origin:
    """Where a flow's probes leave: the raw socket, the sender's packed address and port."""

    __slots__ = ("packed", "port", "raw")

    def __init__(self, raw: socket.socket, packed: bytes, port: int) -> None:
        self.raw, self.packed, self.port = raw, packed, port


class Station:
    """The sockets of a watch in one namespace. ``names`` are the lab's targets there.

    ``ports`` remembers the port of each listener by protocol and IP version, so that a namespace that comes back
    listens where it did.
    """

    def __init__(self, netns: str, run: Run) -> None:
        self.netns, self._run = netns, run
        self.ports: dict[tuple[str, str, int], int] = {}
        self.origins: dict[Flow, Origin] = {}
        self.captures: list[Capture] = []
        self.answerers: list[Answerer] = []
        self.why = ""  # it is not open
        self._vantage: Vantage | None = None
        self._inode = (0, 0)

    @property
    def open(self) -> bool:
        """Whether there are sockets."""
        return self._vantage is not None

    def changed(self) -> bool:
        """Whether the namespace has gone, or come (back): ``close`` or ``start`` is to be called."""
        return _inode(self.netns) != self._inode

    def start(self, lab: Lab, sending: Iterable[Flow], receiving: Iterable[Flow]) -> bool:
        """Open all sockets, for the flows that begin and that end here; false with ``why`` where that fails."""
        inode = _inode(self.netns)
        if not inode[0]:
            self.why = f"there is no namespace {self.netns}"
            return False
        sending, receiving = list(sending), list(receiving)
        versions = tuple(sorted({flow.version for flow in (*sending, *receiving)}))
        try:
            vantage = Vantage(self.netns, versions)
        except (OSError, KernelError) as error:
            if error.errno in (errno.EPERM, errno.EACCES, errno.EMFILE, errno.ENFILE):
                msg = f"cannot open the sockets of a watch: {os.strerror(error.errno)}; it needs root and enough files"
                raise KernelError(msg, error.errno) from error
            self.why = str(error)
            return False
        try:
            self._listen(lab, vantage, receiving)
            self._leave(lab, vantage, sending)
            for version in versions:
                here = {target.name for target in lab.targets if target.netns == self.netns}
                own = {a.ip.packed for t in lab.targets if t.name in here for a in t.addresses(version)}
                own |= {origin.packed for flow, origin in self.origins.items() if flow.version == version}
                self.captures.append(vantage.watch(version, self._run, frozenset(own)))
        except (OSError, KernelError) as error:
            self.why = str(error)
            self._vantage = vantage
            self.close()
            return False
        self._vantage, self._inode, self.why = vantage, inode, ""
        return True

    def _listen(self, lab: Lab, vantage: Vantage, flows: Iterable[Flow]) -> None:
        for name, protocol, version in dict.fromkeys((flow.target, flow.protocol, flow.version) for flow in flows):
            address = _address(lab, name, version)
            if protocol == "icmp" or address is None:
                continue
            kind: type[Answerer] = TcpAnswerer if protocol == "tcp" else UdpAnswerer
            key = (name, protocol, version)
            try:
                answerer = kind(vantage, version, address, self.ports.get(key, 0), self._run)
            except OSError:
                if key not in self.ports:
                    raise
                answerer = kind(vantage, version, address, 0, self._run)  # somebody has taken the port meanwhile
            self.ports[key] = answerer.port
            self.answerers.append(answerer)

    def _leave(self, lab: Lab, vantage: Vantage, flows: Iterable[Flow]) -> None:
        for flow in flows:
            aim, own = _address(lab, flow.target, flow.version), _address(lab, flow.source, flow.version)
            origin = vantage.only(flow.version)
            if origin is None and aim is not None:
                chosen = vantage.sources(flow.version, [aim], 0)[aim]
                origin = own if isinstance(chosen, int) else chosen  # without a route now, there may be one later
            origin = origin or own
            if origin is not None:
                port = vantage.reserve(flow.protocol, flow.version, origin)
                self.origins[flow] = Origin(vantage.raw[flow.version], Aim.at(origin).packed, port)

    def close(self, closers: list[threading.Thread] | None = None) -> None:
        """Close all. Each capture waits 10 to 20 ms for the kernel (RCU): in a thread, where there are ``closers``."""
        vantage, captures = self._vantage, self.captures
        self._vantage, self._inode, self.captures, self.answerers, self.origins = None, (0, 0), [], [], {}
        if vantage is None:
            return
        vantage.captures.clear()

        def work() -> None:
            vantage.close()
            for capture in captures:
                capture.close()

        if closers is None:
            work()
            return
        closers.append(threading.Thread(target=work))
        closers[-1].start()


def _address(lab: Lab, name: str, version: int) -> str | None:
    target = lab.target(name)
    return None if target is None else primary(lab, target, version)


def _inode(netns: str) -> tuple[int, int]:
    """Which namespace a name stands for now; zeros for none."""
    try:
        found = os.stat(path_of(netns))
        empty = not netns.startswith("/") and netns and found.st_dev == os.stat(os.path.dirname(path_of(netns))).st_dev
    except OSError:
        return (0, 0)
    return (0, 0) if empty else (found.st_dev, found.st_ino)
