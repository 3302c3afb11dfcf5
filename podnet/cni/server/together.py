"""What calls do together: one wait for RCU is shared by all deletions that are in flight.

Deleting one veth takes 16.7 ms, during which the kernel holds the lock that every other deletion needs; eight one
after the other take eight times that. By link group, a further veth costs 0.35 ms. The same for elements of
nftables maps, whose deletion takes 4 to 16 ms whether it is of one element or of many. Adding elements waits for
nothing, but nft reads all tables, chains and maps first, which is most of its work: once for all that come meanwhile.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.kernel import nft, rtnl
from podnet.kernel.netlink import NetlinkSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Shared", "Together", "delete_links", "run_commands"]

_ENODEV = 19
_DOOMED = 0x50000000  # a link group; beside the labs' own and the one that a lab's deletion uses


class _Wish:
    """What a call wants done, and what came of it."""

    __slots__ = ("done", "error", "what")

    def __init__(self, what: str) -> None:
        self.what, self.done = what, False
        self.error: KernelError | None = None


class Shared:
    """Acts in the calling thread's network namespace; who comes while others are at it shares the next turn.

    ``act`` does all that it gets, and says of each why it could not be done; ``verb`` is what it does, for messages.
    """

    def __init__(self, verb: str, act: Callable[[Sequence[str]], list[KernelError | None]]) -> None:
        self._verb, self._act = verb, act
        self._lock = threading.Lock()
        self._turns: dict[int, threading.Lock] = {}
        self._waiting: dict[int, list[_Wish]] = {}

    def do(self, what: str) -> None:
        """Do it, alone or with others. Raises ``KernelError`` for this one only."""
        place = os.stat("/proc/thread-self/ns/net").st_ino
        wish = _Wish(what)
        with self._lock:
            turn = self._turns.setdefault(place, threading.Lock())
            self._waiting.setdefault(place, []).append(wish)
        with turn:
            if not wish.done:
                with self._lock:
                    together = self._waiting.pop(place)
                self._carry_out(together)
        with self._lock:
            if place not in self._waiting and not turn.locked():
                self._turns.pop(place, None)
        if wish.error is not None:
            raise wish.error

    def _carry_out(self, wishes: list[_Wish]) -> None:
        try:
            for wish, error in zip(wishes, self._act([wish.what for wish in wishes]), strict=True):
                wish.error = error
        except (KernelError, OSError) as error:
            for wish in wishes:
                wish.error = KernelError(f"cannot {self._verb} {wish.what}: {error}")
        finally:
            for wish in wishes:
                wish.done = True


def delete_links(names: Sequence[str]) -> list[KernelError | None]:
    """Delete links of this thread's namespace; for each, why it could not be, ``None`` where it is gone."""
    sock = NetlinkSocket("")
    try:
        if len(names) > 1:
            group = _DOOMED | int.from_bytes(os.urandom(3), "big")
            unmarked = {each.index for each in sock.execute([rtnl.set_link(name, group=group) for name in names])}
            if len(unmarked) < len(names) and not sock.execute([rtnl.delete_group(group)]):
                names = [name if index in unmarked else "" for index, name in enumerate(names)]
        return [_delete_link(sock, name) if name else None for name in names]
    finally:
        sock.close()


def _delete_link(sock: NetlinkSocket, name: str) -> KernelError | None:
    refused = sock.execute([rtnl.delete_link(name)])
    if not refused or refused[0].errno == _ENODEV:
        return None
    return KernelError(f"cannot delete link {name}: {refused[0]}", refused[0].errno)


def run_commands(commands: Sequence[str]) -> list[KernelError | None]:
    """Run nft commands, as one transaction where all of them can be; for each, why it could not be."""
    if len(commands) > 1:
        try:
            nft.run("", "".join(commands))
        except KernelError:  # one of them is to blame, and nothing has happened
            pass
        else:
            return [None] * len(commands)
    return [_run(each) for each in commands]


def _run(commands: str) -> KernelError | None:
    try:
        nft.run("", commands)
    except KernelError as error:
        return error
    return None


class Together:
    """All that a server's calls do together; and the bridges whose MAC they have fixed, by namespace and number."""

    def __init__(self) -> None:
        self.links = Shared("delete", delete_links)
        self.removals = Shared("run", run_commands)
        self.additions = Shared("run", run_commands)
        self.pinned: set[tuple[int, int, str]] = set()
