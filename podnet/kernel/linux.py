"""The real kernel: observes namespaces by dumps, applies operations in batches."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from podnet.errors import KernelError
from podnet.kernel import dump, netns, nft, rtnl, sysctl
from podnet.kernel.netlink import NetlinkSocket, attr, attrs
from podnet.kernel.objects import (
    Address,
    Bridge,
    KernelObject,
    Loopback,
    Neighbours,
    Netns,
    NftTable,
    Process,
    Route,
    State,
    Sysctl,
    Veth,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from podnet.kernel.process import ProcessStatus, Supervisor
    from podnet.kernel.schedule import Op

__all__ = ["LinuxKernel"]

_NETNSA_NSID, _NETNSA_FD = 1, 3
_Message = tuple[int, int, bytes]
_Result = TypeVar("_Result")

# Asking for one link takes 0.03 ms, for all of them 0.01 ms each.
_FEW_LINKS = 4

# What a delete finds gone already: a veth that went with its namespace, an address that went with its link.
_GONE = {errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL}


class LinuxKernel:
    """The kernel of this machine (see ``podnet.kernel.interface``).

    ``supervisor`` runs the containers' processes; without one, processes are neither seen nor started. One
    netlink socket per namespace is kept open; ``close`` gives them back.
    """

    def __init__(self, supervisor: Supervisor | None = None) -> None:
        self._supervisor = supervisor
        self._sockets: dict[str, NetlinkSocket] = {}
        self._index: dict[tuple[str, str], int] = {}
        self._later: dict[str, list[tuple[Op, _Message]]] = {}

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._index.clear()

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
    ) -> State:
        """What is in these namespaces now; see ``podnet.kernel.interface.Kernel``."""
        with_neighbours = set(neighbours)
        alive = [name for name in names if not name or netns.exists(name)]
        found: list[KernelObject] = [Netns(name) for name in alive if name]
        rows = {name: dump.links(self._socket(name)) for name in alive}
        peers = self._peers(rows)
        for name in alive:
            devices = {row.index: row.name for row in rows[name].values()}
            found += _links(name, rows[name], devices, peers)
            self._index.update({(name, row.name): row.index for row in rows[name].values()})
            sock = self._socket(name)
            found += dump.addresses(sock, name, devices)
            found += dump.routes(sock, name, devices)
            if name in with_neighbours:
                found += dump.neighbours(sock, name, devices)
        there = set(alive)
        found += sysctl.read(pair for pair in sysctls if pair[0] in there)
        found += _tables([table for table in tables if table.netns in there])
        if self._supervisor is not None:
            found += [status.process for status in self._supervisor.observe() if _holds(status)]
        return {each.key: each for each in found}

    def _peers(self, rows: dict[str, dict[int, dump.LinkRow]]) -> dict[tuple[str, int], tuple[str, str]]:
        """For each veth end (namespace, index) its other end (namespace, name), as far as it is in ``rows``.

        Two ends belong together when each names the other's index, and the kernel's id of the namespace is
        that of the other end's: indexes repeat from namespace to namespace.
        """
        ends: dict[tuple[int, int], list[tuple[str, dump.LinkRow]]] = {}
        for name, links in rows.items():
            for row in links.values():
                if row.kind == "veth":
                    ends.setdefault((row.index, row.peer_index), []).append((name, row))
        found = {}
        for (index, peer_index), near in ends.items():
            far = ends.get((peer_index, index), [])
            for name, row in near:
                for other, end in far:
                    if (other, end.index) != (name, index) and self._nsid(name, other) == row.peer_nsid:
                        found[name, index] = (other, end.name)
                        break
        return found

    def _nsid(self, name: str, other: str) -> int:
        """The id by which one namespace knows another (-1: none, or itself)."""
        if name == other:
            return -1
        with ExitStack() as stack:
            fd = os.open(netns.path_of(other), os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            request = b"\0\0\0\0" + attr(_NETNSA_FD, fd.to_bytes(4, "little"))
            answer = self._socket(name).get(rtnl.RTM_GETNSID, request)
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
                self._apply_batch(group, name, batch)
                done += len(batch)
                if progress is not None:
                    progress(done)
            self._complete()
        finally:
            self._later.clear()

    def _apply_batch(self, group: str, name: str, batch: list[Op]) -> None:
        if group == "delete-namespaces":
            self._delete_namespaces([op.object.netns for op in batch])
        elif group == "new-links":
            self._make_links(name, batch)
        elif group == "links":
            self._apply_links(name, batch)
        elif group == "delete-links":
            self._delete_links(name, batch)
        elif group == "process":
            self._complete()
            self._apply_processes(batch)
        else:
            for op in batch:
                self._apply_one(op)

    def _complete(self) -> None:
        """Send what was kept for namespaces that nothing else was sent to."""
        for name in list(self._later):
            self._send(name, [], [])

    def _delete_namespaces(self, names: list[str]) -> None:
        """Take the names of namespaces away, and let the kernel have them all at once at the end.

        It frees what it was given so far in one go, and works against whoever gives it more meanwhile: 1,000
        namespaces one by one take three times as long until they are gone.
        """
        with ExitStack() as held:
            for name in names:
                self._forget(name)
                try:
                    held.callback(os.close, os.open(netns.path_of(name), os.O_RDONLY | os.O_CLOEXEC))
                except OSError:
                    continue  # half-made, or gone: there is nothing to hold
            for name in names:
                netns.delete(name)

    def _apply_one(self, op: Op) -> None:
        try:
            match op.object:
                case Netns(name=name):
                    netns.create(name)
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

    def _apply_processes(self, ops: list[Op]) -> None:
        if self._supervisor is None:
            msg = f"cannot {ops[0]}: no supervisor"
            raise KernelError(msg)
        stop = [op.object.name for op in ops if op.verb == "delete" and isinstance(op.object, Process)]
        if stop:
            self._supervisor.stop(stop)
        start = [op.object for op in ops if op.verb != "delete" and isinstance(op.object, Process)]
        if start:
            self._supervisor.start(start)

    def _apply_links(self, name: str, ops: list[Op]) -> None:
        """All that rtnetlink changes in one namespace, in one batch."""
        self._send(name, ops, [self._named(op, self._messages, op) for op in ops])

    def _make_links(self, name: str, ops: list[Op]) -> None:
        """New links of one namespace: first they are made, then given what the making could not carry.

        In two sends, because the kernel goes on after a refusal: what follows must not reach a link that was
        there before, and is somebody else's.
        """
        with ExitStack() as stack:
            self._send(name, ops, [[self._named(op, self._maker, op, stack)] for op in ops])
        self._send(name, ops, [_finish(op.object) for op in ops if isinstance(op.object, Bridge | Veth)])
        veths = [op for op in ops if op.peer is not None]
        if veths:
            self._learn(name, veths)
        for op in veths:
            if op.peer is not None:
                # It goes out with what else is done in that namespace: mostly, its link is set up next.
                messages = self._named(op, self._finish_peer, op.peer)
                self._later.setdefault(op.peer.netns, []).extend((op, message) for message in messages)

    def _send(self, name: str, ops: Sequence[Op], messages: Sequence[Sequence[_Message]]) -> None:
        """Send each operation's messages in one batch; raises ``KernelError`` for the first one refused."""
        kept = self._later.pop(name, [])
        owners = [op for op, _ in kept] + [op for op, each in zip(ops, messages, strict=True) for _ in each]
        flat = [message for _, message in kept] + [message for each in messages for message in each]
        if not flat:
            return
        for refusal in self._named(owners[0], self._socket, name).execute(flat):
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

    def _learn(self, name: str, veths: list[Op]) -> None:
        """Note the indexes of new pairs, both ends, from the near side."""
        sock = self._socket(name)
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

    def _finish_peer(self, far: Veth) -> list[_Message]:
        master = [rtnl.set_link(far.name, master=self._device(far.netns, far.master))] if far.master else []
        return master + _finish(far)

    def _delete_links(self, name: str, ops: list[Op]) -> None:
        """Delete links; several at once by a group of their own, which waits for RCU only once."""
        if len(ops) == 1:
            self._apply_links(name, ops)
        else:
            doomed = 0x60000000 | os.getpid()
            links = [op.object.name for op in ops if isinstance(op.object, Bridge | Veth)]
            self._socket(name).execute([rtnl.set_link(link, group=doomed) for link in links])
            refused = self._socket(name).execute([rtnl.delete_group(doomed)])
            if refused and refused[0].errno not in _GONE:
                raise _refused(ops[0], str(refused[0]), refused[0].errno) from refused[0]
        for op in ops:
            link = op.object
            if isinstance(link, Veth):
                self._index.pop((link.peer_netns, link.peer), None)
            self._index.pop((name, getattr(link, "name", "")), None)

    def _messages(self, op: Op) -> list[_Message]:
        match op.object:
            case Loopback(up=up) if op.verb == "set":
                return [rtnl.set_link("lo", up=up)]
            case Bridge() | Veth() as link if op.verb == "set":
                return self._changed_link(link, op.fields)
            case Bridge() | Veth() as link:
                return [rtnl.delete_link(link.name)]
            case Address() as address if op.verb == "add":
                return [rtnl.add_address(address, self._device(address.netns, address.dev))]
            case Address() as address:
                index = self._find(address.netns, address.dev)
                return [rtnl.delete_address(address, index)] if index else []
            case Route() as route if op.verb == "delete":
                index = self._find(route.netns, route.dev) if route.dev else 0
                return [] if route.dev and not index else [rtnl.delete_route(route, index)]
            case Route() as route:
                index = self._device(route.netns, route.dev) if route.dev else 0
                return [rtnl.add_route(route, index, replace=op.verb == "set")]
            case Neighbours() as neighbours if op.verb == "delete":
                index = self._find(neighbours.netns, neighbours.dev)
                return rtnl.delete_neighbours(neighbours.entries, index) if index else []
            case Neighbours() as neighbours:
                return self._neighbours(neighbours, replace=op.verb == "set")
            case other:
                msg = f"cannot {op.verb} {other}: not a thing of rtnetlink"
                raise KernelError(msg)

    def _maker(self, op: Op, stack: ExitStack) -> _Message:
        if isinstance(op.object, Bridge):
            return rtnl.add_bridge(op.object)
        near, far = op.object, op.peer
        if not isinstance(near, Veth) or far is None:
            msg = "a veth is made with its other end"
            raise KernelError(msg, errno.EINVAL)
        try:
            fd = os.open(netns.path_of(far.netns), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            msg = f"no namespace {far.netns} under {netns.NETNS_DIR}"
            raise KernelError(msg, errno.ENOENT) from None
        stack.callback(os.close, fd)
        return rtnl.add_veth(near, far, fd, self._device(near.netns, near.master) if near.master else 0)

    def _changed_link(self, link: Bridge | Veth, fields: tuple[str, ...]) -> list[_Message]:
        messages = []
        values = {name: getattr(link, name) for name in fields if name in {"up", "mac", "mtu", "group", "addrgen"}}
        if "master" in fields and isinstance(link, Veth):
            values["master"] = self._device(link.netns, link.master) if link.master else 0
        if values:
            messages.append(rtnl.set_link(link.name, **values))
        if isinstance(link, Veth) and link.master and {"hairpin", "master"} & set(fields):
            messages.append(rtnl.set_link(link.name, hairpin=link.hairpin))
        if "altname" in fields:
            rows = dump.links(self._socket(link.netns)).values()
            stale = next((row.altname for row in rows if row.name == link.name), "")
            messages += [rtnl.delete_altname(link.name, stale)] if stale else []
            messages += _altname(link)
        return messages

    def _neighbours(self, wanted: Neighbours, *, replace: bool) -> list[_Message]:
        index = self._device(wanted.netns, wanted.dev)
        stale: list[_Message] = []
        if replace:
            names = {index: wanted.dev}
            for was in dump.neighbours(self._socket(wanted.netns), wanted.netns, names):
                if isinstance(was, Neighbours) and was.key == wanted.key:
                    kept = {address for address, _ in wanted.entries}
                    stale = rtnl.delete_neighbours([e for e in was.entries if e[0] not in kept], index)
        return [*stale, (0, 0, rtnl.add_neighbours(wanted.entries, index))]

    def _device(self, name: str, dev: str) -> int:
        """The index of a link; raises ``KernelError`` (ENODEV) where there is none."""
        index = self._find(name, dev)
        if not index:
            msg = f"no link {dev} in {name or 'the machine'}"
            raise KernelError(msg, errno.ENODEV)
        return index

    def _find(self, name: str, dev: str) -> int:
        index = self._index.get((name, dev), 0)
        if not index:
            # Mostly the first of many that are asked for, but in the machine's own namespace one among strangers.
            sock = self._socket(name)
            rows = dump.links(sock).values() if name else [row for row in [dump.link(sock, dev)] if row is not None]
            self._index.update({(name, row.name): row.index for row in rows})
            index = self._index.get((name, dev), 0)
        return index

    def _socket(self, name: str) -> NetlinkSocket:
        sock = self._sockets.get(name)
        if sock is None:
            sock = self._sockets[name] = NetlinkSocket(name)
        return sock

    def _forget(self, name: str) -> None:
        """Drop what is known of a namespace: an open socket would keep it alive without its name."""
        sock = self._sockets.pop(name, None)
        if sock is not None:
            sock.close()
        for key in [key for key in self._index if key[0] == name]:
            del self._index[key]


def _batch(op: Op) -> tuple[str, str, str]:
    """Operations that go out together have the same value."""
    match op.object:
        case Netns() if op.verb == "delete":
            return "delete-namespaces", "", ""
        case Netns() | Sysctl() | NftTable():
            return "one", "", ""
        case Process():
            return "process", "", ""
        case Bridge() | Veth() if op.verb == "delete":
            return "delete-links", op.object.netns, ""
        case Bridge() | Veth() if op.verb == "add":
            # Bridges apart from veths: a port needs the index of its bridge.
            return "new-links", op.object.netns, op.object.kind
        case _:
            return "links", op.object.netns, ""


def _holds(status: ProcessStatus) -> bool:
    """Whether a container is as it should be: running, or finished with success."""
    return status.state == "running" or (status.state == "exited" and status.exit_code == 0)


def _refused(op: Op, why: str, number: int) -> KernelError:
    return KernelError(f"cannot {op}: {why}", number)


def _finish(link: Bridge | Veth) -> list[_Message]:
    """What the message that makes a link does not carry, while the link is still down."""
    messages = _altname(link)
    if isinstance(link, Bridge):
        return [*messages, rtnl.set_link(link.name, mtu=link.mtu)]
    hairpin = link.hairpin if link.master and link.hairpin else None
    # Before the link is up: the kernel makes the link-local address when it comes up.
    addrgen = None if link.addrgen else False
    if hairpin is not None or addrgen is not None:
        messages.append(rtnl.set_link(link.name, hairpin=hairpin, addrgen=addrgen))
    return messages


def _altname(link: Bridge | Veth) -> list[_Message]:
    return [rtnl.add_altname(link.name, link.altname)] if link.altname else []


def _links(
    name: str,
    rows: dict[int, dump.LinkRow],
    devices: dict[int, str],
    peers: dict[tuple[str, int], tuple[str, str]],
) -> list[KernelObject]:
    found: list[KernelObject] = []
    for row in rows.values():
        if row.name == "lo":
            found.append(row.loopback(name))
        elif row.kind == "bridge":
            found.append(row.bridge(name))
        elif row.kind == "veth":
            found.append(row.veth(name, devices.get(row.master, ""), *peers.get((name, row.index), ("?", "?"))))
    return found


def _tables(wanted: list[NftTable]) -> list[KernelObject]:
    """podnet's tables in the namespaces of ``wanted``, each as it is wanted where nft lists both alike."""
    by_key = {table.key: table for table in wanted}
    found: list[KernelObject] = []
    for name in dict.fromkeys(table.netns for table in wanted):
        for family, title in nft.list_tables(name):
            mine = title == "podnet" or title.startswith("podnet-")
            if not (mine if name else ("nft", name, family, title) in by_key):
                continue  # in the machine's own namespace, podnet's other tables are other labs'
            listing = nft.list_ruleset(name, family, title)
            want = by_key.get(("nft", name, family, title))
            same = want is not None and nft.alike(family, listing, want.ruleset)
            found.append(want if want is not None and same else NftTable(name, family, title, listing))
    return found
