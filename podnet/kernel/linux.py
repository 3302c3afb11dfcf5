"""The real kernel: observes namespaces by dumps, applies operations in batches."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from podnet.errors import KernelError
from podnet.kernel import dump, netns, nft, observation, rtnl, sysctl
from podnet.kernel.netlink import attr, attrs
from podnet.kernel.objects import (
    Attached,
    BirdConf,
    Bridge,
    KernelObject,
    Netns,
    NftTable,
    Peer,
    Process,
    Route,
    State,
    Sysctl,
    Tunnel,
    Veth,
)
from podnet.kernel.places import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from podnet.kernel.bird import Birds
    from podnet.kernel.interface import Attacher
    from podnet.kernel.netlink import NetlinkSocket
    from podnet.kernel.process import Supervisor
    from podnet.kernel.requests import Message
    from podnet.kernel.schedule import Op

__all__ = ["LinuxKernel"]

_NETNSA_NSID, _NETNSA_FD = 1, 3
_Result = TypeVar("_Result")


# What a delete finds gone already: a veth that went with its namespace, an address that went with its link.
_GONE = {errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL}


class LinuxKernel:
    """The kernel of this machine (see ``podnet.kernel.interface``).

    ``supervisor`` runs the containers' processes, ``attacher`` calls CNI plugins, ``birds`` configures routing daemons;
    without one, what is its business is neither seen nor made. ``keys`` is the folder of WireGuard's private keys. One
    netlink socket per namespace is kept open; ``close`` gives them back.
    """

    def __init__(
        self,
        supervisor: Supervisor | None = None,
        attacher: Attacher | None = None,
        keys: str = "",
        birds: Birds | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._birds = birds
        self._attacher = attacher
        self._keys = keys
        self._places = Places()
        self._later: dict[str, list[tuple[Op, Message]]] = {}
        self._new_peers: list[Peer] = []

    def close(self) -> None:
        """Close all sockets."""
        self._places.close()

    def socket(self, name: str) -> NetlinkSocket:
        """The netlink socket in a namespace that ``apply`` uses too: for what there is no object for."""
        return self._places.socket(name)

    def note(self, name: str, link: str, number: int) -> None:
        """Use what somebody has seen: the number of a link."""
        self._places.note(name, link, number)

    def device(self, name: str, link: str) -> int:
        """The number of a link. Raises ``KernelError`` where there is none."""
        return self._places.device(name, link)

    def namespaces(self) -> set[str]:
        """All names under ``/run/netns``, also of namespaces that a crash left half-made."""
        return netns.names()

    # -- observe ------------------------------------------------------------------------------------------

    def observe(
        self,
        names: Iterable[str],
        sysctls: Iterable[tuple[str, str]] = (),
        tables: Iterable[NftTable] = (),
        neighbours: Iterable[str] = (),
        qdiscs: Iterable[str] = (),
    ) -> State:
        """What is in these namespaces now; see ``podnet.kernel.interface.Kernel``."""
        with_neighbours, with_qdiscs = set(neighbours), set(qdiscs)
        alive = [name for name in names if not name or netns.exists(name)]
        found: list[KernelObject] = [Netns(name) for name in alive if name]
        rows = {name: dump.links(self._places.socket(name)) for name in alive}
        peers = observation.pairs(rows, self._nsid)
        for name in alive:
            devices = {row.index: row.name for row in rows[name].values()}
            found += observation.links(name, rows[name], devices, peers)
            self._places.note_all(name, rows[name].values())
            sock = self._places.socket(name)
            found += observation.tunnels(sock, name, rows[name])
            found += dump.addresses(sock, name, devices)
            found += dump.routes(sock, name, devices)
            if name in with_neighbours:
                found += dump.neighbours(sock, name, devices)
            if name in with_qdiscs:
                found += observation.qdiscs(sock, name, devices)
        there = {"", *alive}
        found += sysctl.read(pair for pair in sysctls if pair[0] in there)
        found += observation.tables([table for table in tables if table.netns in there])
        confs = self._birds.observe() if self._birds is not None else []
        if self._supervisor is not None:
            daemons = {each.netns for each in confs}
            found += [each.process for each in self._supervisor.observe() if observation.holds(each, daemons)]
        if self._attacher is not None:
            found += self._attacher.observe()
        found += confs
        return {each.key: each for each in found}

    def _nsid(self, name: str, other: str) -> int:
        """The id by which one namespace knows another (-1: none, or itself)."""
        if name == other:
            return -1
        with ExitStack() as stack:
            fd = os.open(netns.path_of(other), os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            request = b"\0\0\0\0" + attr(_NETNSA_FD, fd.to_bytes(4, "little"))
            answer = self._places.socket(name).get(rtnl.RTM_GETNSID, request)
        if answer is None:
            return -1
        data, start, end = answer
        for kind, begin, stop in attrs(data, start + 4, end):
            if kind == _NETNSA_NSID:
                return int.from_bytes(data[begin:stop], "little", signed=True)
        return -1

    # -- apply --------------------------------------------------------------------------------------------

    def apply(self, ops: Sequence[Op], progress: Callable[[int], None] | None = None) -> None:
        """Carry operations out in order; see ``podnet.kernel.interface.Kernel``."""
        done = 0
        try:
            for (group, name, _), each in groupby(ops, key=_batch):
                batch = list(each)
                if group == "new-namespaces":
                    self._make_namespaces(batch, ops)
                else:
                    self._apply_batch(group, name, batch)
                done += len(batch)
                if progress is not None:
                    progress(done)
            self._complete()
            self._places.wait(None)
            if self._new_peers:
                from podnet.kernel import wireguard

                wireguard.shake_hands(self._new_peers, self._keys)
        finally:
            self._later.clear()
            self._new_peers.clear()
            self._places.settle()

    def _apply_batch(self, group: str, name: str, batch: list[Op]) -> None:
        if group == "delete-namespaces":
            self._delete_namespaces([op.object.netns for op in batch])
        elif group == "new-links":
            self._make_links(name, batch)
        elif group == "links":
            self._apply_links(name, batch)
        elif group == "delete-links":
            self._delete_links(name, batch)
        elif group == "attachment":
            self._complete()
            self._apply_attachments(batch)
        elif group == "wireguard":
            self._apply_wireguard(name, batch)
        elif group == "process":
            self._complete()
            self._apply_processes(batch)
        elif group == "bird":
            self._apply_birds(batch)
        elif group == "learned":
            self._wait_for_routes([op.object for op in batch if isinstance(op.object, Route)])
        else:
            for op in batch:
                self._apply_one(op)

    def _complete(self) -> None:
        """Send what was kept for namespaces that nothing else was sent to."""
        for name in list(self._later):
            self._send(name, [], [])

    def _make_namespaces(self, batch: list[Op], ops: Sequence[Op]) -> None:
        """New namespaces: many are made in the order in which ``ops`` need them, while what follows goes on."""
        if not self._places.make([op.object.netns for op in batch], ops):
            for op in batch:
                self._named(op, netns.create, op.object.netns)

    def _delete_namespaces(self, names: list[str]) -> None:
        """Take the names of namespaces away, and let the kernel have them all at once at the end.

        It frees what it was given so far in one go, and works against whoever gives it more meanwhile: 1,000
        namespaces one by one take three times as long until they are gone.
        """
        with ExitStack() as held:
            for name in names:
                self._places.forget(name)
                try:
                    held.callback(os.close, os.open(netns.path_of(name), os.O_RDONLY | os.O_CLOEXEC))
                except OSError:
                    continue  # half-made, or gone: there is nothing to hold
            for name in names:
                netns.delete(name)

    def _apply_one(self, op: Op) -> None:
        self._places.wait(op.object.netns)
        try:
            match op.object:
                case Sysctl():
                    sysctl.write(op.object)
                case NftTable() as table if op.verb == "delete":
                    nft.delete(table.netns, table.family, table.name)
                case NftTable() as table if op.verb == "add":
                    nft.add(table.netns, table.family, table.name, table.ruleset)
                case NftTable() as table:
                    nft.replace(table.netns, table.family, table.name, table.ruleset)
        except KernelError as error:
            raise _refused(op, str(error), error.errno) from error

    def _apply_wireguard(self, name: str, ops: list[Op]) -> None:
        """Keys, ports and peers, which have a netlink family of their own."""
        from podnet.kernel import wireguard

        self._send(name, [], [])  # what was kept for the namespace comes first
        changes = [(op.verb, op.object) for op in ops if isinstance(op.object, Tunnel | Peer)]
        for index, error in self._named(ops[0], wireguard.apply, name, changes, self._keys):
            if not (ops[index].verb == "delete" and error.errno in _GONE):
                raise _refused(ops[index], str(error), error.errno) from error
        self._new_peers += [op.object for op in ops if op.verb == "add" and isinstance(op.object, Peer)]
        others = [
            op._replace(fields=tuple(field for field in op.fields if field != "options"))
            for op in ops
            if op.verb == "set" and isinstance(op.object, Tunnel) and len(op.fields) > 1
        ]
        if others:
            self._apply_links(name, others)

    def _apply_processes(self, ops: list[Op]) -> None:
        if self._supervisor is None:
            msg = f"cannot {ops[0]}: no supervisor"
            raise KernelError(msg)
        self._places.wait(None)
        stop = [op.object.name for op in ops if op.verb == "delete" and isinstance(op.object, Process)]
        if stop:
            self._supervisor.stop(stop)
        start = [op.object for op in ops if op.verb != "delete" and isinstance(op.object, Process)]
        if start:
            self._supervisor.start(start)

    def _apply_attachments(self, ops: list[Op]) -> None:
        if self._attacher is None:
            msg = f"cannot {ops[0]}: nobody here calls plugins"
            raise KernelError(msg)
        self._places.wait(None)
        for op in ops:
            if isinstance(op.object, Attached):
                self._named(op, self._attacher.delete if op.verb == "delete" else self._attacher.add, op.object)

    def _apply_birds(self, ops: list[Op]) -> None:
        if self._birds is None:
            msg = f"cannot {ops[0]}: nobody here configures daemons"
            raise KernelError(msg)
        for op in ops:
            if isinstance(op.object, BirdConf):
                self._named(op, self._birds.remove if op.verb == "delete" else self._birds.write, op.object)

    def _wait_for_routes(self, routes: list[Route]) -> None:
        if self._birds is None:
            msg = f"cannot wait for {routes[0]}: nobody here configures daemons"
            raise KernelError(msg)
        self._complete()
        self._places.wait(None)
        self._birds.wait(routes, self._routes_of)

    def _routes_of(self, name: str) -> list[KernelObject]:
        sock = self._places.socket(name)
        return dump.routes(sock, name, {row.index: row.name for row in dump.links(sock).values()})

    def _apply_links(self, name: str, ops: list[Op]) -> None:
        """All that rtnetlink changes in one namespace, in one batch."""
        from podnet.kernel import requests

        self._send(name, ops, [self._named(op, requests.messages, self._places, op) for op in ops])

    def _make_links(self, name: str, ops: list[Op]) -> None:
        """New links of one namespace: first they are made, then given what the making could not carry.

        In two sends, because the kernel goes on after a refusal: what follows must not reach a link that was
        there before, and is somebody else's.
        """
        from podnet.kernel import requests

        try:
            with ExitStack() as stack:
                self._send(name, ops, [[self._named(op, requests.maker, self._places, op, stack)] for op in ops])
        except KernelError:
            for op in ops:
                self._places.forget_link(op)
            raise
        self._send(
            name, ops, [requests.finish(op.object) for op in ops if isinstance(op.object, Bridge | Veth | Tunnel)]
        )
        tunnels = [op for op in ops if isinstance(op.object, Tunnel) and op.object.type == "wireguard"]
        if tunnels:
            self._apply_wireguard(name, tunnels)
        veths = [op for op in ops if op.peer is not None]
        unknown = [op for op in veths if not self._places.numbered(op)]
        if unknown:
            self._places.learn(name, unknown)
        for op in veths:
            if op.peer is not None:
                # It goes out with what else is done in that namespace: mostly, its link is set up next.
                messages = self._named(op, requests.finish_peer, self._places, op.peer)
                self._later.setdefault(op.peer.netns, []).extend((op, message) for message in messages)

    def _send(self, name: str, ops: Sequence[Op], messages: Sequence[Sequence[Message]]) -> None:
        """Send each operation's messages in one batch; raises ``KernelError`` for the first one refused."""
        kept = self._later.pop(name, [])
        owners = [op for op, _ in kept] + [op for op, each in zip(ops, messages, strict=True) for _ in each]
        flat = [message for _, message in kept] + [message for each in messages for message in each]
        if not flat:
            return
        for refusal in self._named(owners[0], self._places.socket, name).execute(flat):
            op = owners[refusal.index]
            if op.verb == "delete" and refusal.errno in _GONE:
                continue
            raise _refused(op, str(refusal), refusal.errno) from refusal

    @staticmethod
    def _named(op: Op, function: Callable[..., _Result], *arguments: object) -> _Result:
        """Call a function, and let what it raises say which operation it was about."""
        try:
            return function(*arguments)
        except KernelError as error:
            raise _refused(op, str(error), error.errno) from error

    def _delete_links(self, name: str, ops: list[Op]) -> None:
        """Delete links; several at once by a group of their own, which waits for RCU only once."""
        if len(ops) == 1:
            self._apply_links(name, ops)
        else:
            doomed = 0x60000000 | os.getpid()
            links = [op.object.name for op in ops if isinstance(op.object, Bridge | Veth | Tunnel)]
            self._places.socket(name).execute([rtnl.set_link(link, group=doomed) for link in links])
            refused = self._places.socket(name).execute([rtnl.delete_group(doomed)])
            if refused and refused[0].errno not in _GONE:
                raise _refused(ops[0], str(refused[0]), refused[0].errno) from refused[0]
        for op in ops:
            self._places.forget_link(op)


def _batch(op: Op) -> tuple[str, str, str]:
    """Operations that go out together have the same value."""
    match op.object:
        case Netns():
            return "delete-namespaces" if op.verb == "delete" else "new-namespaces", "", ""
        case Sysctl() | NftTable():
            return "one", "", ""
        case Process():
            return "process", "", ""
        case Attached():
            return "attachment", "", ""
        case BirdConf():
            return "bird", "", ""
        case Route(learned=True):
            return "learned", "", ""
        case Bridge() | Veth() | Tunnel() if op.verb == "delete":
            return "delete-links", op.object.netns, ""
        case Bridge() | Veth() | Tunnel() if op.verb == "add":
            # Bridges apart from veths: a port needs the index of its bridge.
            return "new-links", op.object.netns, op.object.kind
        case Peer(type="wireguard"):
            return "wireguard", op.object.netns, ""
        case Tunnel(type="wireguard") if "options" in op.fields:
            return "wireguard", op.object.netns, ""
        case _:
            return "links", op.object.netns, ""


def _refused(op: Op, why: str, number: int) -> KernelError:
    return KernelError(f"cannot {op}: {why}", number)
