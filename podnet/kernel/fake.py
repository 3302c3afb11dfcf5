"""A kernel in memory, of the same shape as the real one: for plans, orders and failures, without root.

It keeps to what Linux does where podnet depends on it: what is refused and with which errno, and what goes away
together with what. The contract tests run against both kernels. It does not forward packets.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from podnet.errors import KernelError
from podnet.kernel.objects import (
    Address,
    Attached,
    BirdConf,
    Bridge,
    KernelObject,
    Key,
    Loopback,
    Neighbours,
    Netns,
    NftTable,
    Peer,
    Process,
    Qdisc,
    Route,
    State,
    Sysctl,
    Tunnel,
    Veth,
    replace,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from podnet.kernel.schedule import Op

__all__ = ["FakeKernel"]

_NAME_BYTES = 15  # IFNAMSIZ without the final zero, linux/if.h
_BRIDGE_PORTS = 1023  # BR_MAX_PORTS - 1, net/bridge/br_private.h
_IPV6_MTU = 1280  # IPV6_MIN_MTU: below it the kernel takes IPv6 off the link
_SYSCTL_DEFAULT = "0"


class FakeKernel:
    """The machine's own namespace ``""`` with ``lo``, and what operations make of it.

    ``state`` is what is there at the start, whoever made it. ``fail_at`` is the number (from 0) of the operation
    ever applied that fails with EIO and is not done. ``log`` holds the operations that were done, ``idle`` those
    of them that deleted what was gone already.
    """

    def __init__(self, fail_at: int | None = None, state: State | None = None) -> None:
        self.fail_at = fail_at
        self.state: State = {}
        self.log: list[Op] = []
        self.idle: list[Op] = []
        self._tried = 0
        self._generation = 0
        self._made: dict[str, int] = {"": 0}  # which of all namespaces ever made has the name now
        self._runs_in: dict[Key, int | None] = {}
        given = state or {}
        for each in (Loopback("", up=True), *given.values()):
            if isinstance(each, Netns):
                self._new_netns(each)
        self.state.setdefault(("link", "", "lo"), Loopback("", up=True))
        for key, each in given.items():
            self.state[key] = each
            if isinstance(each, Process):
                self._runs_in[key] = self._made.get(each.netns)

    @property
    def ops_done(self) -> int:
        """How many operations were done since the kernel was made."""
        return len(self.log)

    # -- the interface ------------------------------------------------------------------------------------

    def namespaces(self) -> set[str]:
        """The names of all namespaces but the machine's own."""
        return {each.name for each in self.state.values() if isinstance(each, Netns)}

    def observe(
        self,
        names: Iterable[str],
        sysctls: Iterable[tuple[str, str]] = (),
        tables: Iterable[NftTable] = (),
        neighbours: Iterable[str] = (),
        qdiscs: Iterable[str] = (),
    ) -> State:
        """What is in these namespaces; see ``podnet.kernel.interface.Kernel``.

        A process is reported as long as it runs, also when its namespace has lost its name.
        """
        shown = set(names)
        with_tables = {table.netns for table in tables}
        with_neighbours, with_qdiscs = set(neighbours), set(qdiscs)
        found: State = {}
        for key, each in self.state.items():
            match each:
                case Sysctl():
                    continue
                case NftTable():
                    if each.netns in with_tables and (each.name == "podnet" or each.name.startswith("podnet-")):
                        found[key] = each
                case Neighbours() if each.netns not in with_neighbours:
                    continue
                case Qdisc() if each.netns not in with_qdiscs:
                    continue
                case _ if each.netns in shown:
                    found[key] = each
        for name, sysctl in sysctls:
            if name in self._made and self._sysctl_exists(name, sysctl):
                unset = Sysctl(name, sysctl, _SYSCTL_DEFAULT)
                found[unset.key] = self.state.get(unset.key, unset)
        return found

    def apply(self, ops: Sequence[Op], progress: Callable[[int], None] | None = None) -> None:
        """Carry the operations out one by one; those after a refused one are not done."""
        for done, op in enumerate(ops, start=1):
            number = self._tried
            self._tried += 1
            if number == self.fail_at:
                _refuse(op, errno.EIO, f"operation {number} was made to fail")
            self._apply_one(op)
            self.log.append(op)
            if progress is not None:
                progress(done)

    def adrift(self) -> list[Process]:
        """The processes whose namespace has lost its name, or whose name another namespace has now."""
        return [
            each
            for key, each in self.state.items()
            if isinstance(each, Process) and self._runs_in[key] != self._made.get(each.netns)
        ]

    # -- operations, a function a kind --------------------------------------------------------------------

    def _apply_one(self, op: Op) -> None:
        target = op.object
        if not (
            isinstance(target, Netns) or (isinstance(target, Process | BirdConf | Attached) and op.verb == "delete")
        ):
            self._require_netns(op, target.netns)
        if op.verb == "delete":
            self._delete(op)
            return
        match target:
            case Netns():
                self._add_netns(op, target)
            case Bridge() | Veth() | Tunnel() if op.verb == "add":
                self._add_links(op, target)
            case Loopback() | Bridge() | Veth() | Tunnel():
                self._set_link(op, target)
            case Address():
                self._add_address(op, target)
            case Route(learned=True):
                self.state[target.key] = target  # daemons do here what is expected of them
            case Route():
                self._put_route(op, target)
            case Process():
                self._start(op, target)
            case _:
                self._put(op, target)

    def _put(self, op: Op, target: Neighbours | Peer | Sysctl | Qdisc | NftTable | BirdConf | Attached) -> None:
        """What is written over whatever is there; only a table, discipline or attachment must be new to be added."""
        if isinstance(target, Qdisc):
            self._require_link(op, target.netns, target.dev)
            if target.key in self.state:
                _refuse(op, errno.EEXIST)
        if isinstance(target, Neighbours | Peer):
            link = self._require_link(op, target.netns, target.dev)
            if isinstance(target, Peer) and link.kind != target.type:
                _refuse(op, errno.EOPNOTSUPP)
        if isinstance(target, Sysctl) and not self._sysctl_exists(target.netns, target.name):
            _refuse(op, errno.ENOENT)
        if isinstance(target, NftTable | Attached) and op.verb == "add" and target.key in self.state:
            _refuse(op, errno.EEXIST)
        self.state[target.key] = target

    def _start(self, op: Op, process: Process) -> None:
        if process.key in self.state:
            _refuse(op, errno.EEXIST, "it runs already")
        self.state[process.key] = process
        self._runs_in[process.key] = self._made[process.netns]

    def _delete(self, op: Op) -> None:
        target = op.object
        if isinstance(target, Loopback):
            _refuse(op, errno.EOPNOTSUPP)
        found = self.state.get(target.key)
        match found:
            case None:
                self.idle.append(op)  # it went with something else: no error
            case Route() if isinstance(target, Route) and (found.via, found.dev) != (target.via, target.dev):
                self.idle.append(op)  # another route to the same prefix
            case Netns():
                self._drop_netns(found)
            case Bridge() | Veth() | Tunnel():
                self._drop_link(found)
            case Address():
                self._drop_address(found)
            case _:
                del self.state[target.key]

    def _new_netns(self, netns: Netns) -> None:
        self._generation += 1
        self._made[netns.name] = self._generation
        lo = Loopback(netns.name, up=False)
        self.state[netns.key] = netns
        self.state[lo.key] = lo

    def _add_netns(self, op: Op, netns: Netns) -> None:
        if netns.name in self._made:
            _refuse(op, errno.EEXIST)
        self._new_netns(netns)

    def _drop_netns(self, netns: Netns) -> None:
        """All goes, with the far ends of its veths, but not its processes: they only lose the name."""
        for link in [each for each in self.state.values() if isinstance(each, Bridge | Veth | Tunnel)]:
            if link.netns == netns.name and link.key in self.state:
                self._drop_link(link)
        self._drop(lambda each: each.netns == netns.name and not isinstance(each, Process | BirdConf | Attached))
        del self._made[netns.name]

    def _add_links(self, op: Op, link: Bridge | Veth | Tunnel) -> None:
        ends: list[Bridge | Veth | Tunnel] = [link]
        if isinstance(link, Veth):
            if op.peer is None or op.peer.key == link.key:
                _refuse(op, errno.EEXIST, "a veth needs another end")
            self._require_netns(op, op.peer.netns)
            ends.append(op.peer)
        for end in ends:
            if len(end.name.encode()) > _NAME_BYTES:
                _refuse(op, errno.ERANGE, f"Attribute failed policy validation: {end.name} is longer than 15 bytes")
            if end.key in self.state:
                _refuse(op, errno.EEXIST)
            if isinstance(end, Veth) and end.master:
                self._require_free_port(op, end)
            if isinstance(end, Tunnel) and end.type in {"vxlan", "ipip"}:
                self._require_another(op, end)
        for end in ends:
            self.state[end.key] = replace(end, up=False)

    def _require_another(self, op: Op, tunnel: Tunnel) -> None:
        """Two tunnels of one namespace must be told apart by what comes in."""
        tells = {"vxlan": ("id", "port"), "ipip": ("local",)}[tunnel.type]
        for each in self.state.values():
            if not isinstance(each, Tunnel) or (each.netns, each.type) != (tunnel.netns, tunnel.type):
                continue
            if all(each.option(name) == tunnel.option(name) for name in tells):
                _refuse(op, errno.EEXIST)

    def _set_link(self, op: Op, wanted: Loopback | Bridge | Veth | Tunnel) -> None:
        if op.verb == "add":
            _refuse(op, errno.EEXIST)
        was = self._require_link(op, wanted.netns, wanted.name)
        if was.kind != wanted.kind or {"peer", "peer_netns", "type"} & set(op.fields):
            _refuse(op, errno.EOPNOTSUPP)
        if "options" in op.fields and wanted.kind != "wireguard":
            _refuse(op, errno.EOPNOTSUPP)
        new = replace(was, **{name: getattr(wanted, name) for name in op.fields})
        if isinstance(new, Veth) and isinstance(was, Veth) and isinstance(wanted, Veth):
            if new.master and new.master != was.master:
                self._require_free_port(op, new)
            if "master" in op.fields:  # a new port has no flags; the kernel layer writes the wanted one with it
                new = replace(new, hairpin=wanted.hairpin and bool(new.master))
        self.state[new.key] = new
        netns, dev = new.netns, new.name
        if was.up and not new.up:
            self._drop(lambda each: _on(each, netns, dev) and _goes_down(each))
            if isinstance(new, Loopback):  # IPv6 hangs blackholes on lo
                self._drop(lambda each: isinstance(each, Route) and each.netns == netns and _rejects_ipv6(each))
        if isinstance(new, Bridge | Veth | Tunnel) and isinstance(was, Bridge | Veth | Tunnel):
            if new.mac != was.mac:  # neigh_changeaddr() spares no permanent entry
                self._drop(lambda each: isinstance(each, Neighbours) and _on(each, netns, dev))
            if new.mtu < _IPV6_MTU <= was.mtu:
                self._drop(lambda each: _on(each, netns, dev) and _is_ipv6(each))
                if isinstance(new, Veth):  # what IPv6 was told about the link goes with it
                    self.state[new.key] = replace(new, addrgen=True)

    def _drop_link(self, link: Bridge | Veth | Tunnel) -> None:
        ends: list[KernelObject] = [link]
        if isinstance(link, Veth) and link.peer_key in self.state:
            ends.append(self.state[link.peer_key])
        for end in ends:
            name = getattr(end, "name", "")
            for address in self._addresses(end.netns, name):
                self._forget_source(address)
            self._drop(partial(_on, netns=end.netns, dev=name))
            self._drop(partial(_of, netns=end.netns, dev=name))
            del self.state[end.key]
        for key, each in self.state.items():
            if isinstance(each, Veth) and (each.netns, each.master) == (link.netns, link.name):
                self.state[key] = replace(each, master="", hairpin=False)

    def _add_address(self, op: Op, address: Address) -> None:
        self._require_link(op, address.netns, address.dev)
        for each in self._addresses(address.netns, address.dev):
            # IPv4 allows one address with two masks, IPv6 does not.
            same = _ip(each) == _ip(address) if _is_ipv6(address) else each.address == address.address
            if same:
                _refuse(op, errno.EEXIST, "address already assigned")
        self.state[address.key] = address

    def _drop_address(self, address: Address) -> None:
        dropped = [address]
        if not _is_ipv6(address):
            # Without promote_secondaries, the first address of a network takes the later ones with it.
            network = ipaddress.ip_interface(address.address).network
            ipv4 = [each for each in self._addresses(address.netns, address.dev) if not _is_ipv6(each)]
            peers = [each for each in ipv4 if ipaddress.ip_interface(each.address).network == network]
            dropped = peers if peers[0] == address else dropped
        for each in dropped:
            del self.state[each.key]
            self._forget_source(each)
        if not _is_ipv6(address) and not any(not _is_ipv6(a) for a in self._addresses(address.netns, address.dev)):
            # fib_disable_ip(): with the last address, IPv4 ends on the link.
            self._drop(lambda each: _on(each, address.netns, address.dev) and not _is_ipv6(each))

    def _forget_source(self, address: Address) -> None:
        """IPv4 drops the routes that named the address as their source, IPv6 only makes them forget it."""
        source = str(_ip(address))
        for key, each in list(self.state.items()):
            if isinstance(each, Route) and each.netns == address.netns and each.src == source:
                if _is_ipv6(each):
                    self.state[key] = replace(each, src="")
                else:
                    del self.state[key]

    def _put_route(self, op: Op, route: Route) -> None:
        if op.verb == "add" and route.key in self.state:
            _refuse(op, errno.EEXIST)
        dev = self._require_link(op, route.netns, route.dev) if route.dev else None
        if dev is not None and not dev.up:
            _refuse(op, errno.ENETDOWN, "Device for nexthop is not up")
        if route.src and not any(str(_ip(each)) == route.src for each in self._addresses(route.netns)):
            _refuse(op, errno.EINVAL, "Invalid prefsrc address")
        if route.type == "unicast" and route.via:
            devs = [dev] if dev is not None else [self.state[key] for key in self.state if key[0] == "link"]
            on_link = route.onlink and route.dev
            reached = [
                each for each in devs if each.netns == route.netns and (on_link or self._on_link(each, route.via))
            ]
            if not reached:
                # IPv4 and IPv6 refuse a gateway that is not on the link in different words.
                number = errno.EHOSTUNREACH if _is_ipv6(route) else errno.ENETUNREACH
                _refuse(op, number, "Nexthop has invalid gateway")
            route = replace(route, dev=getattr(reached[0], "name", ""))
        elif route.type != "unicast":
            route = replace(route, dev="", via="")
        self.state[route.key] = route

    def _on_link(self, link: KernelObject, gateway: str) -> bool:
        """Whether a gateway is reached on a link without a gateway: by an address's network, or a route."""
        via = ipaddress.ip_address(gateway)
        if not getattr(link, "up", False):
            return False
        if via.version == 6 and via.is_link_local:
            return True
        name = getattr(link, "name", "")
        if any(via in ipaddress.ip_interface(a.address).network for a in self._addresses(link.netns, name)):
            return True
        routes = (each for each in self.state.values() if isinstance(each, Route) and not each.via)
        return any(_on(r, link.netns, name) and via in ipaddress.ip_network(r.dst) for r in routes)

    # -- looking up ---------------------------------------------------------------------------------------

    def _require_netns(self, op: Op, name: str) -> None:
        if name not in self._made:
            _refuse(op, errno.ENOENT, f"no namespace {name}")

    def _require_link(self, op: Op, netns: str, name: str) -> Loopback | Bridge | Veth | Tunnel:
        found = self.state.get(("link", netns, name))
        if not isinstance(found, Loopback | Bridge | Veth | Tunnel):
            _refuse(op, errno.ENODEV, f"no link {name} in {netns or 'the machine'}")
        return found

    def _require_free_port(self, op: Op, port: Veth) -> None:
        bridge = self._require_link(op, port.netns, port.master)
        if not isinstance(bridge, Bridge):
            _refuse(op, errno.EOPNOTSUPP, f"{port.master} is no bridge")
        on = (port.netns, port.master)
        ports = [each for each in self.state.values() if isinstance(each, Veth) and (each.netns, each.master) == on]
        if len(ports) >= _BRIDGE_PORTS:
            _refuse(op, errno.EXFULL, f"bridge {port.master} has {_BRIDGE_PORTS} ports")

    def _addresses(self, netns: str, dev: str | None = None) -> list[Address]:
        found = [each for each in self.state.values() if isinstance(each, Address) and each.netns == netns]
        return [each for each in found if dev is None or each.dev == dev]

    def _sysctl_exists(self, netns: str, name: str) -> bool:
        dev = _device_of(name)
        return not dev or ("link", netns, dev) in self.state

    def _drop(self, doomed: Callable[[KernelObject], bool]) -> None:
        for key in [key for key, each in self.state.items() if doomed(each)]:
            del self.state[key]


def _refuse(op: Op, number: int, why: str = "") -> NoReturn:
    msg = f"cannot {op}: {why or os.strerror(number)}"
    raise KernelError(msg, number)


def _device_of(sysctl: str) -> str:
    """The device whose sysctl this is; empty for those of a whole namespace."""
    parts = sysctl.split("/")
    if len(parts) > 4 and parts[:2] in (["net", "ipv4"], ["net", "ipv6"]) and parts[2] in {"conf", "neigh"}:
        return "" if parts[3] in {"all", "default"} else parts[3]
    return ""


def _on(each: KernelObject, netns: str, dev: str) -> bool:
    """Whether an address, route, neighbour, peer or discipline is on a link."""
    return isinstance(each, Address | Route | Neighbours | Peer | Qdisc) and (each.netns, each.dev) == (netns, dev)


def _goes_down(each: KernelObject) -> bool:
    """Whether it goes when its link is set down: routes, neighbours, IPv6 addresses."""
    return isinstance(each, Route | Neighbours) or (isinstance(each, Address) and _is_ipv6(each))


def _of(each: KernelObject, netns: str, dev: str) -> bool:
    """Whether a sysctl is a link's own."""
    return isinstance(each, Sysctl) and (each.netns, _device_of(each.name)) == (netns, dev)


def _is_ipv6(each: KernelObject) -> bool:
    if isinstance(each, Neighbours):
        return each.version == 6
    if isinstance(each, Peer | Qdisc):
        return False  # what it is sent over is no business of the link
    text = each.dst if isinstance(each, Route) else getattr(each, "address", "")
    return ":" in text


def _rejects_ipv6(each: KernelObject) -> bool:
    return isinstance(each, Route) and each.type != "unicast" and _is_ipv6(each)


def _ip(address: Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_interface(address.address).ip
