"""The kernel's time stamps of packets: whether they are of the arrival, or of the reading."""

from __future__ import annotations

import fcntl
import socket
import struct
import time

from podnet.kernel.netns import anonymous

__all__ = ["await_stamps"]

_SO_TIMESTAMPNS = 64
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_MOST = 1.0  # seconds
_PAUSE = 0.0005


def await_stamps() -> bool:
    """Wait until packets are stamped when they arrive; whether they are within a second.

    The first socket that asks for stamps has the kernel switch them on by a work queue, some time later
    (``net_enable_timestamp``). Until then a packet gets the time when it is read, and an order by time is none. The
    caller holds such a socket, so that they stay on.
    """
    until = time.monotonic() + _MOST
    with (
        anonymous(),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as receiver,
    ):
        fcntl.ioctl(sender, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(_MOST)
        receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        while time.monotonic() < until:
            sender.sendto(b"", receiver.getsockname())
            sent = time.time_ns()
            time.sleep(_PAUSE)
            _, ancillary, _, _ = receiver.recvmsg(1, 64)
            seconds, nanoseconds = struct.unpack("@qq", ancillary[0][2][:16])
            if seconds * 1_000_000_000 + nanoseconds < sent + _PAUSE * 5e8:
                return True
    return False
