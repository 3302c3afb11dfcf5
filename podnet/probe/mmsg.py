"""Many packets by one system call: sendmmsg(2) and recvmmsg(2) over buffers that are made once.

Python's socket module has neither. What they spare is not only calls: while the kernel carries a hundred probes to
their ends and their answers back (2 to 3 ms), the interpreter's lock is free, and a second thread reads and
builds.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

__all__ = ["Inbox", "Outbox"]

# struct mmsghdr (bits/socket.h, 64 bit): name, namelen, iov, iovlen, control, controllen, flags, len. Padded by "4x".
_HEADER = struct.Struct("@PI4xPNPNi4xI4x")
_IOVEC = struct.Struct("@PN")
_MSG_DONTWAIT = 0x40

_libc = ctypes.CDLL(None, use_errno=True)
_sendmmsg, _recvmmsg = _libc.sendmmsg, _libc.recvmmsg
_sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
_recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]


class _Buffer:
    """Bytes at a fixed address, as a view that Python can fill and read."""

    def __init__(self, size: int) -> None:
        self._kept = ctypes.create_string_buffer(size)
        self.address = ctypes.addressof(self._kept)
        self.view = memoryview(self._kept).cast("B")


class Outbox:
    """Room for ``count`` packets of ``size`` bytes, each with its destination (a packed sockaddr of ``name`` bytes)."""

    def __init__(self, count: int, size: int, name: int, *, shared: tuple[_Buffer, _Buffer] | None = None) -> None:
        self._packets, self._names = shared or (_Buffer(count * size), _Buffer(count * name))
        stride = len(self._packets.view) // count
        name_stride = len(self._names.view) // count
        self.packets, self.names = self._packets.view, self._names.view
        self._vectors, self._headers = _Buffer(count * _IOVEC.size), _Buffer(count * _HEADER.size)
        for at in range(count):
            _IOVEC.pack_into(self._vectors.view, at * _IOVEC.size, self._packets.address + at * stride, size)
            vector = self._vectors.address + at * _IOVEC.size
            where = self._names.address + at * name_stride
            _HEADER.pack_into(self._headers.view, at * _HEADER.size, where, name, vector, 1, 0, 0, 0, 0)

    def send(self, fd: int, count: int) -> dict[int, int]:
        """Send the first ``count`` packets, in order; the errno of each that the kernel refused, by its place."""
        refused: dict[int, int] = {}
        at = 0
        while at < count:
            done = _sendmmsg(fd, self._headers.address + at * _HEADER.size, count - at, _MSG_DONTWAIT)
            if done > 0:
                at += done
                continue
            number = ctypes.get_errno()
            if number == errno.EINTR:
                continue
            refused[at] = number
            at += 1
        return refused


class Inbox:
    """Room for ``count`` packets of at most ``size`` bytes, each with its sender and the time of its arrival."""

    CONTROL = 32  # bytes: a cmsghdr and a struct timespec

    def __init__(self, count: int, size: int, name: int = 0) -> None:
        self.count, self.size = count, size
        self._packets, self._names = _Buffer(count * size), _Buffer(max(1, count * name))
        self._control, self._vectors = _Buffer(count * self.CONTROL), _Buffer(count * _IOVEC.size)
        self._headers = _Buffer(count * _HEADER.size)
        self.packets, self.names, self.control = self._packets.view, self._names.view, self._control.view
        for at in range(count):
            _IOVEC.pack_into(self._vectors.view, at * _IOVEC.size, self._packets.address + at * size, size)
            _HEADER.pack_into(
                self._headers.view, at * _HEADER.size, self._names.address + at * name if name else 0, name,
                self._vectors.address + at * _IOVEC.size, 1, self._control.address + at * self.CONTROL, self.CONTROL,
                0, 0,
            )  # fmt: skip
        # The kernel writes lengths into the headers; the next call needs the first ones again.
        self._fresh = bytes(self._headers.view)

    def receive(self, fd: int) -> int:
        """Take what waits, without waiting; how many packets that is, ``count`` where there may be more.

        Raises ``OSError`` for what a socket reports instead of a packet.
        """
        self._headers.view[:] = self._fresh
        while True:
            done: int = _recvmmsg(fd, self._headers.address, self.count, _MSG_DONTWAIT, None)
            if done >= 0:
                return done
            number = ctypes.get_errno()
            if number == errno.EAGAIN:
                return 0
            if number != errno.EINTR:
                raise OSError(number, os.strerror(number))

    def length(self, at: int) -> int:
        """Bytes of one packet as far as there was room."""
        return min(int(_HEADER.unpack_from(self._headers.view, at * _HEADER.size)[-1]), self.size)

    def answers(self, size: int, name: int) -> Outbox:
        """An outbox over the same packets and names: what was received goes back, ``size`` bytes of it."""
        return Outbox(self.count, size, name, shared=(self._packets, self._names))
