"""The real kernel: observes namespaces by dumps, applies operations in batches."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from itertools import groupby
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.kernel import dump, netns, nft, rtnl, sysctl
from podnet.kernel.netlink import NetlinkSocket, attr, attrs
from podnet.kernel.objects import (
    Address,
    Bridge,
    KernelObject,
    Loopback,
    Neighbour,
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
    ) -> State:
        """What is in these namespaces now; see ``podnet.kernel.interface.Kernel``."""
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
            found += dump.neighbours(sock, name, devices)
        there = set(alive)
        found += sysctl.read(pair for pair in sysctls if pair[0] in there)
        found += _tables([table for table in tables if table.netns in there])
        if self._supervisor is not None:
            found += [status.process for status in self._supervisor.observe() if _holds(status)]
        return {each.key: each for each in found}

    def _peers(self, rows: dict[str, dict[int, dump.LinkRow]]) -> dict[tuple[str, int], tuple[str, str]]:
        """For each veth end (namespace, index) its other end (namespace, name), as far as it is in ``rows``.

        Two ends belong together when each names the other's index. Indexes repeat from namespace to
        namespace, so where several fit, the kernel's own namespace ids decide.
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
                fits = [(other, end) for other, end in far if (other, end.index) != (name, index)]
                if len(fits) > 1:
                    fits = [(other, end) for other, end in fits if self._nsid(name, other) == row.peer_nsid]
                if len(fits) == 1:
                    found[name, index] = (fits[0][0], fits[0][1].name)
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
        for (group, name), each in groupby(ops, key=_batch):
            batch = list(each)
            if group in {"bridges", "links"}:
                self._apply_links(name, batch)
            elif group == "delete-links":
                self._delete_links(name, batch)
            elif group == "process":
                self._apply_processes(batch)
            else:
                for op in batch:
                    self._apply_one(op)
            done += len(batch)
            if progress is not None:
                progress(done)

    def _apply_one(self, op: Op) -> None:
        try:
            match op.object:
                case Netns(name=name) if op.verb == "add":
                    netns.create(name)
                case Netns(name=name):
                    self._forget(name)
                    netns.delete(name)
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
        """All that rtnetlink does in one namespace, in one batch."""
        with ExitStack() as stack:
            messages: list[_Message] = []
            owners: list[Op] = []
            veths: list[Op] = []
            for op in ops:
                for each in self._messages(op, stack):
                    messages.append(each)
                    owners.append(op)
                if op.peer is not None and op.verb == "add":
                    veths.append(op)
            refused = self._socket(name).execute(messages)
        for refusal in refused:
            op = owners[refusal.index]
            if op.verb == "delete" and refusal.errno in _GONE:
                continue
            raise _refused(op, str(refusal), refusal.errno) from refusal
        if veths:
            self._learn(name, veths)
            self._finish_peers(veths)

    def _learn(self, name: str, veths: list[Op]) -> None:
        """Note the indexes of new pairs, both ends, from one dump of the near side."""
        rows = {row.name: row for row in dump.links(self._socket(name)).values()}
        for op in veths:
            row = rows.get(op.object.name) if isinstance(op.object, Veth) else None
            if row is not None and op.peer is not None:
                self._index[name, row.name] = row.index
                self._index[op.peer.netns, op.peer.name] = row.peer_index

    def _finish_peers(self, veths: list[Op]) -> None:
        """Give far ends what the message that made them could not carry; pods' ends need nothing here."""
        for op in veths:
            far = op.peer
            if far is None or not (far.altname or far.master):
                continue
            messages = _altname(far)
            if far.master:
                messages.append(rtnl.set_link(far.name, master=self._device(far.netns, far.master)))
                messages.append(rtnl.set_link(far.name, hairpin=far.hairpin))
            for refusal in self._socket(far.netns).execute(messages):
                raise _refused(op, str(refusal), refusal.errno) from refusal

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

    def _messages(self, op: Op, stack: ExitStack) -> list[_Message]:
        match op.object:
            case Loopback(up=up):
                return [rtnl.set_link("lo", up=up)]
            case Bridge() as bridge if op.verb == "add":
                return [rtnl.add_bridge(bridge), *_altname(bridge)]
            case Veth() as near if op.verb == "add" and op.peer is not None:
                return self._new_pair(near, op.peer, stack)
            case Bridge() | Veth() as link if op.verb == "set":
                return self._changed_link(link, op.fields)
            case Bridge() | Veth() as link:
                return [rtnl.delete_link(link.name)]
            case Address() as address if op.verb == "add":
                return [rtnl.add_address(address, self._device(address.netns, address.dev))]
            case Address() as address:
                return self._unless_gone(address.netns, address.dev, rtnl.delete_address, address)
            case Route() as route if op.verb == "delete":
                index = self._find(route.netns, route.dev) if route.dev else 0
                return [] if route.dev and not index else [rtnl.delete_route(route, index)]
            case Route() as route:
                index = self._device(route.netns, route.dev) if route.dev else 0
                return [rtnl.add_route(route, index, replace=op.verb == "set")]
            case Neighbour() as neighbour if op.verb == "delete":
                return self._unless_gone(neighbour.netns, neighbour.dev, rtnl.delete_neighbour, neighbour)
            case Neighbour() as neighbour:
                return [rtnl.add_neighbour(neighbour, self._device(neighbour.netns, neighbour.dev))]
            case other:
                msg = f"cannot {op.verb} {other}: not a thing of rtnetlink"
                raise KernelError(msg)

    def _new_pair(self, near: Veth, far: Veth, stack: ExitStack) -> list[_Message]:
        try:
            fd = os.open(netns.path_of(far.netns), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            msg = f"cannot add {near}: no namespace {far.netns}"
            raise KernelError(msg, errno.ENOENT) from None
        stack.callback(os.close, fd)
        master = self._device(near.netns, near.master) if near.master else 0
        messages = [rtnl.add_veth(near, far, fd, master), *_altname(near)]
        if near.hairpin or not near.addrgen:
            messages.append(rtnl.set_link(near.name, hairpin=near.hairpin or None, addrgen=near.addrgen))
        return messages

    def _changed_link(self, link: Bridge | Veth, fields: tuple[str, ...]) -> list[_Message]:
        messages = []
        if "up" in fields and isinstance(link, Veth) and link.up and not link.addrgen:
            # Before the link is up: the kernel makes the link-local address when it comes up.
            messages.append(rtnl.set_link(link.name, addrgen=False))
        values = {name: getattr(link, name) for name in fields if name in {"up", "mac", "mtu", "group", "addrgen"}}
        if "master" in fields and isinstance(link, Veth):
            values["master"] = self._device(link.netns, link.master) if link.master else 0
        if values:
            messages.append(rtnl.set_link(link.name, **values))
        if isinstance(link, Veth) and link.master and {"hairpin", "master"} & set(fields):
            messages.append(rtnl.set_link(link.name, hairpin=link.hairpin))
        if "altname" in fields:
            messages += _altname(link)
        return messages

    def _unless_gone(
        self, name: str, dev: str, make: Callable[..., _Message], target: Address | Neighbour
    ) -> list[_Message]:
        index = self._find(name, dev)
        return [make(target, index)] if index else []

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
            rows = dump.links(self._socket(name)).values()
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


def _batch(op: Op) -> tuple[str, str]:
    """Operations that go out together have the same value."""
    match op.object:
        case Netns() | Sysctl() | NftTable():
            return "one", ""
        case Process():
            return "process", ""
        case Bridge() | Veth() if op.verb == "delete":
            return "delete-links", op.object.netns
        case Bridge() if op.verb == "add":
            return "bridges", op.object.netns  # before the links: a port needs the index of its bridge
        case _:
            return "links", op.object.netns


def _holds(status: ProcessStatus) -> bool:
    """Whether a container is as it should be: running, or finished with success."""
    return status.state == "running" or (status.state == "exited" and status.exit_code == 0)


def _refused(op: Op, why: str, number: int) -> KernelError:
    return KernelError(f"cannot {op}: {why}", number)


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
            if title != "podnet" and not title.startswith("podnet-"):
                continue
            listing = nft.list_ruleset(name, family, title)
            want = by_key.get(("nft", name, family, title))
            same = want is not None and nft.alike(family, listing, want.ruleset)
            found.append(want if want is not None and same else NftTable(name, family, title, listing))
    return found
