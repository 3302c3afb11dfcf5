"""Two namespaces joined by a wire that takes its time: packets of one direction are handed over late.

The kernel at hand has no netem: the wire is two TUN devices, and a thread between them.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import struct
import threading
import time
from ipaddress import ip_interface
from uuid import uuid4

from probe_cluster import batch, ip

from podnet.kernel.netns import entered
from podnet.model.lab import Interface, Lab, Target

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000


class DelayedWire:
    """``near`` is 10.9.0.1, ``far`` 10.9.0.2; near to far takes ``delay`` seconds. Use it by ``with``."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        tag = uuid4().hex[:6]
        self.netns = [f"{tag}-near", f"{tag}-far"]
        self._made: list[str] = []
        self._files: list[int] = []
        self._stop = os.pipe()
        self._thread = threading.Thread(target=self._carry)

    def __enter__(self) -> DelayedWire:
        try:
            for number, netns in enumerate(self.netns, 1):
                ip("netns", "add", netns)
                self._made.append(netns)
                with entered(netns):
                    file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
                    self._files.append(file)
                    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _IFF_TUN | _IFF_NO_PI))
                batch(["link set lo up", f"addr add 10.9.0.{number}/24 dev eth0", "link set eth0 up"], netns)
            self._thread.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._stop[1])
        self._thread.join()
        os.close(self._stop[0])
        self._remove()

    def _remove(self) -> None:
        for file in self._files:
            os.close(file)
        for netns in self._made:
            ip("netns", "del", netns)

    def _carry(self) -> None:
        near, far = self._files
        waiting: list[tuple[float, bytes]] = []
        while True:
            left = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
            ready, _, _ = select.select([near, far, self._stop[0]], [], [], left)
            if self._stop[0] in ready:
                return
            if near in ready:
                heapq.heappush(waiting, (time.monotonic() + self._delay, os.read(near, 2048)))
            if far in ready:
                os.write(near, os.read(far, 2048))
            while waiting and waiting[0][0] <= time.monotonic():
                os.write(far, heapq.heappop(waiting)[1])

    def lab(self) -> Lab:
        """The two as pods."""
        targets = [
            Target(name, "pod", netns, (Interface("eth0", "", 1500, (ip_interface(f"10.9.0.{number}/24"),)),))
            for number, (name, netns) in enumerate(zip(("near", "far"), self.netns, strict=True), 1)
        ]
        return Lab("wire", (4,), tuple(targets))
