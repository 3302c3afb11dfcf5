"""What is known of the namespaces that are worked in: sockets, links' indexes, and which are still being made."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.kernel import dump
from podnet.kernel.netlink import NetlinkSocket
from podnet.kernel.objects import Bridge, Netns, Tunnel, Veth

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podnet.kernel.maker import Maker
    from podnet.kernel.schedule import Op

__all__ = ["Places"]

# Above what the kernel numbers by itself: lo, and in every namespace a link of each tunnel module (tunl0, sit0, ...).
_FIRST_INDEX = 100
_AHEAD = 4  # namespaces from which on it pays to make them in a process of their own (2 ms)
# Asking for one link takes 0.03 ms, for all of them 0.01 ms each.
_FEW_LINKS = 4


class Places:
    """Namespaces by name. One netlink socket per namespace is kept open; ``close`` gives them back."""

    def __init__(self) -> None:
        self._sockets: dict[str, NetlinkSocket] = {}
        self._index: dict[tuple[str, str], int] = {}
        self._ahead: Maker | None = None
        # The next index of a link in namespaces that were made here: nobody else makes links there yet.
        self._next: dict[str, int] = {}

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._index.clear()

    # -- namespaces ---------------------------------------------------------------------------------------

    def make(self, names: Sequence[str], ops: Sequence[Op]) -> bool:
        """Begin to make many namespaces, in the order in which ``ops`` need them; ``False`` where that does not pay."""
        self._next.update(dict.fromkeys(names, _FIRST_INDEX))
        if len(names) < _AHEAD or len(os.sched_getaffinity(0)) < 2:
            return False
        from podnet.kernel.maker import Maker

        ends = (end.netns for op in ops if op.peer is not None for end in (op.object, op.peer))
        fresh = set(names)
        self._ahead = Maker(list(dict.fromkeys([*(end for end in ends if end in fresh), *names])))
        return True

    def wait(self, name: str | None) -> None:
        """Until a namespace that is being made is there; ``None`` is all of them."""
        if self._ahead is None:
            return
        try:
            if name is None:
                self._ahead.wait_for_all()
            else:
                self._ahead.wait(name)
        except KernelError as error:
            msg = f"cannot add {Netns(self._ahead.failed())}: {error}"
            raise KernelError(msg, error.errno) from error

    def settle(self) -> None:
        """From now on, others may make links in the new namespaces, and nothing is being made any more."""
        self._next.clear()
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def socket(self, name: str) -> NetlinkSocket:
        """The socket in a namespace, which is waited for where it is being made."""
        sock = self._sockets.get(name)
        if sock is None:
            self.wait(name)
            sock = self._sockets[name] = NetlinkSocket(name)
        return sock

    def forget(self, name: str) -> None:
        """Drop what is known of a namespace: an open socket would keep it alive without its name."""
        sock = self._sockets.pop(name, None)
        if sock is not None:
            sock.close()
        for key in [key for key in self._index if key[0] == name]:
            del self._index[key]

    # -- links --------------------------------------------------------------------------------------------

    def note(self, name: str, link: str, index: int) -> None:
        """Note the index of a link."""
        self._index[name, link] = index

    def note_all(self, name: str, rows: Iterable[dump.LinkRow]) -> None:
        """Note the indexes of links that were seen."""
        self._index.update({(name, row.name): row.index for row in rows})

    def reserve(self, link: Bridge | Veth | Tunnel) -> int:
        """The index that a new link gets; 0 where the kernel is to choose it, and must be asked for it then."""
        index = self._next.get(link.netns, 0)
        if index:
            self._next[link.netns] = index + 1
            self._index[link.netns, link.name] = index
        return index

    def reserve_pair(self, near: Veth, far: Veth) -> tuple[int, int]:
        """The indexes of both ends, which differ: of a pair with one index the kernel tells late that it has a carrier.

        It takes such an end for a link that stands on nothing, and lets it wait for up to a second
        (linkwatch_urgent_event); until then a bridge does not forward to it.
        """
        here = self.reserve(near) or self._beyond(near)
        there = self.reserve(far) or self._beyond(far)
        if here and here == there:
            there = self.reserve(far) or self._beyond(far)
        # The kernel takes both, or chooses both itself.
        return (here, there) if here and there else (0, 0)

    def _beyond(self, link: Veth) -> int:
        """An index above all that were seen in a namespace of the lab that was there before; 0 where none was seen."""
        seen = [index for (name, _), index in self._index.items() if name == link.netns] if link.netns else []
        if not seen:
            return 0
        index = self._index[link.netns, link.name] = max(*seen, _FIRST_INDEX - 1) + 1
        return index

    def numbered(self, op: Op) -> bool:
        """Whether both ends of a new pair are in namespaces that were made here, so that their indexes are known."""
        return op.peer is not None and {op.object.netns, op.peer.netns} <= self._next.keys()

    def learn(self, name: str, veths: list[Op]) -> None:
        """Note the indexes of new pairs, both ends, from the near side."""
        sock = self.socket(name)
        if len(veths) <= _FEW_LINKS:
            asked = [dump.link(sock, op.object.name) for op in veths if isinstance(op.object, Veth)]
            rows = {row.name: row for row in asked if row is not None}
        else:
            rows = {row.name: row for row in dump.links(sock).values()}
        for op in veths:
            row = rows.get(op.object.name) if isinstance(op.object, Veth) else None
            if row is not None and op.peer is not None:
                self._index[name, row.name] = row.index
                self._index[op.peer.netns, op.peer.name] = row.peer_index

    def forget_link(self, op: Op) -> None:
        """A link is gone, or was never made."""
        link = op.object
        if isinstance(link, Veth):
            self._index.pop((link.peer_netns, link.peer), None)
        self._index.pop((link.netns, getattr(link, "name", "")), None)

    def device(self, name: str, dev: str) -> int:
        """The index of a link; raises ``KernelError`` (ENODEV) where there is none."""
        index = self.find(name, dev)
        if not index:
            msg = f"no link {dev} in {name or 'the machine'}"
            raise KernelError(msg, errno.ENODEV)
        return index

    def find(self, name: str, dev: str) -> int:
        """The index of a link; 0 where there is none."""
        index = self._index.get((name, dev), 0)
        if not index:
            # Mostly the first of many that are asked for, but in the machine's own namespace one among strangers.
            sock = self.socket(name)
            rows = dump.links(sock).values() if name else [row for row in [dump.link(sock, dev)] if row is not None]
            self.note_all(name, rows)
            index = self._index.get((name, dev), 0)
        return index
