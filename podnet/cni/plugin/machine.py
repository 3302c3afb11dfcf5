"""The one place where the plugin touches the machine: everything it changes goes through ``Machine``.

What ``podnet.kernel`` has no object for (a port's isolation, promiscuity, an address without the kernel's route)
is written and read here, with the same sockets.
"""

from __future__ import annotations

import _socket as socket  # the rest of socket takes 6 ms to import
import os
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from podnet.errors import KernelError
from podnet.kernel import conntrack, dump, forward, nft, rtnl, sysctl
from podnet.kernel import netns as namespaces
from podnet.kernel.linux import LinuxKernel
from podnet.kernel.netlink import attr, attrs, nested
from podnet.kernel.objects import PROTOCOL, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from podnet.kernel import tc, vlan
    from podnet.kernel.conntrack import Flow
    from podnet.kernel.netlink import NetlinkSocket
    from podnet.kernel.objects import Address, State
    from podnet.kernel.schedule import Op

__all__ = ["LinkSeen", "Machine"]

_IFINFO = struct.Struct("=BxHiII")
_WITHOUT_STATISTICS = attr(rtnl.IFLA_EXT_MASK, (1 << 3).to_bytes(4, "little"))  # RTEXT_FILTER_SKIP_STATS
_IFF_PROMISC = 0x100
_BRPORT_ISOLATED, _BR_VLAN_FILTERING = 33, 7  # IFLA_BRPORT_ISOLATED, IFLA_BR_VLAN_FILTERING, linux/if_link.h
_IFA_FLAGS, _IFA_F_NODAD, _IFA_F_DADFAILED, _IFA_F_TENTATIVE, _IFA_F_NOPREFIXROUTE = 8, 0x02, 0x08, 0x40, 0x200
_RTM_GETLINK, _RTM_NEWADDR, _RTM_GETADDR = 18, 20, 22
_RTA_DST, _RTA_OIF = 1, 4
_AHEAD = 0.002  # seconds that this thread is ahead of the step beside it
_CREATE, _EXCL = 0x400, 0x200


class LinkSeen(NamedTuple):
    """A link as far as the plugin asks about it; ``peer`` is the number of a veth's other end, wherever that is."""

    number: int
    name: str
    mac: str
    mtu: int
    kind: str
    altnames: tuple[str, ...]
    isolated: bool
    peer: int = 0
    filters_vlans: bool = False
    up: bool = True


class Machine:
    """This machine, from the namespace that the caller is in; used as a context manager."""

    def __init__(self) -> None:
        self.kernel = LinuxKernel()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.kernel.close()

    # -- look ---------------------------------------------------------------------------------------------

    def observe(self, names: Iterable[str], sysctls: Iterable[tuple[str, str]] = ()) -> State:
        """What is in these namespaces, as objects."""
        return self.kernel.observe(names, sysctls)

    def link(self, netns: str, name: str) -> LinkSeen | None:
        """A link by its name or one of its further names; ``None`` where there is none."""
        kind = rtnl.IFLA_IFNAME if len(name.encode()) <= 15 else rtnl.IFLA_ALT_IFNAME
        request = _IFINFO.pack(0, 0, 0, 0, 0) + _WITHOUT_STATISTICS + attr(kind, name.encode() + b"\0")
        answer = self._socket(netns).get(_RTM_GETLINK, request)
        if answer is None:
            return None
        found = _seen(*answer)
        self.kernel.note(netns, found.name, found.number)
        return found

    def link_at(self, number: int) -> LinkSeen | None:
        """A link of the machine by its number."""
        answer = self._socket("").get(_RTM_GETLINK, _IFINFO.pack(0, 0, number, 0, 0))
        return None if answer is None else _seen(*answer)

    def qdiscs(self, number: int) -> list[tc.Qdisc]:
        """What the packets of a link of the machine go through."""
        from podnet.kernel import tc

        return tc.qdiscs(self._socket("")).get(number, [])

    def classes(self, number: int) -> dict[int, tc.Bucket]:
        """The classes of a link of the machine, by their minor numbers."""
        from podnet.kernel import tc

        return tc.classes(self._socket(""), number)

    def redirects(self, number: int) -> list[tc.Redirect]:
        """Where what comes in by a link of the machine is led."""
        from podnet.kernel import tc

        return tc.redirects(self._socket(""), number)

    def vlans(self, number: int) -> frozenset[vlan.PortVlan]:
        """The VLANs of a bridge's port, or of a bridge itself."""
        from podnet.kernel import vlan

        return vlan.vlans(self._socket("")).get(number, frozenset())

    def addresses_of(self, link: LinkSeen) -> list[Address]:
        """The addresses of one of the machine's links."""
        return dump.addresses(self._socket(""), "", {link.number: link.name}, link.number)

    def routes(self, netns: str) -> list[Route]:
        """All routes of a namespace; of those with several ways (IPv6), gateway and device are empty."""
        names = {index: row.name for index, row in dump.links(self._socket(netns)).items()}
        return [each for each in dump.routes(self._socket(netns), netns, names) if isinstance(each, Route)]

    def undecided(self, netns: str, index: int) -> list[tuple[str, bool]]:
        """The IPv6 addresses of a link whose duplicate detection runs or has failed, as (address, failed)."""
        found = []
        request = struct.pack("=BBBBi", socket.AF_INET6, 0, 0, 0, 0)
        for _, data, start, end in self._socket(netns).dump(_RTM_GETADDR, request):
            if int.from_bytes(data[start + 4 : start + 8], "little") != index:
                continue
            values = {kind: data[begin:stop] for kind, begin, stop in attrs(data, start + 8, end)}
            flags = int.from_bytes(values.get(_IFA_FLAGS, b"\0"), "little")
            if flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED):
                address = socket.inet_ntop(socket.AF_INET6, values[rtnl.IFA_ADDRESS])
                found.append((address, bool(flags & _IFA_F_DADFAILED)))
        return found

    def route_device(self, address: str) -> str:
        """The link by which an IPv4 address is reached; empty where there is no route to it."""
        request = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0)
        answer = self._socket("").get(rtnl.RTM_GETROUTE, request + attr(_RTA_DST, socket.inet_aton(address)))
        if answer is None:
            return ""
        data, start, end = answer
        index = next((data[a:b] for kind, a, b in attrs(data, start + 12, end) if kind == _RTA_OIF), b"")
        found = self._socket("").get(_RTM_GETLINK, _IFINFO.pack(0, 0, int.from_bytes(index, "little"), 0, 0))
        return "" if found is None else _seen(*found).name

    def addresses(self) -> set[str]:
        """The machine's own addresses, without prefix length."""
        packed = struct.pack("=BBBBi", socket.AF_UNSPEC, 0, 0, 0, 0)
        found = set()
        for _, data, start, end in self._socket("").dump(_RTM_GETADDR, packed):
            values = {kind: data[begin:stop] for kind, begin, stop in attrs(data, start + 8, end)}
            address = values.get(rtnl.IFA_LOCAL) or values.get(rtnl.IFA_ADDRESS, b"")
            if address:
                found.add(socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address))
        return found

    def sysctl(self, name: str) -> str:
        """The value of one of the machine's sysctls; empty where there is none of this name."""
        return next((each.value for each in sysctl.read([("", name)])), "")

    def udp_flows(self, family: int, port: int) -> list[Flow]:
        """The tracked UDP flows to a port."""
        return conntrack.udp_flows("", family, port)

    def passes_forward(self, family: int, mark: int) -> bool | None:
        """Whether iptables forwards what is marked; ``None`` where it has no say."""
        return forward.passes(family, mark)

    # -- change -------------------------------------------------------------------------------------------

    def apply(self, ops: Sequence[Op]) -> None:
        """Carry operations out. Raises ``KernelError``; those before the refused one are done."""
        self.kernel.apply(ops)

    def send(self, what: str, messages: Sequence[tuple[int, int, bytes]]) -> None:
        """Send rtnetlink messages for the machine. Raises ``KernelError`` for the first one refused."""
        refused = self._socket("").execute(messages)
        if refused:
            msg = f"cannot {what}: {refused[0]}"
            raise KernelError(msg, refused[0].errno)

    def add_route(self, route: Route) -> None:
        """Make a route, beside another to the same destination where there is one (an interface before this one)."""
        kind, flags, data = rtnl.add_route(route, self._device(f"add {route}", route.netns, route.dev), replace=False)
        self._send(route.netns, f"add {route}", kind, flags & ~_EXCL, data)

    def set_isolated(self, name: str) -> None:
        """Let a port of a bridge talk with ports that are not isolated only."""
        port = nested(rtnl.INFO_SLAVE_DATA, attr(_BRPORT_ISOLATED, b"\1"))
        info = nested(rtnl.IFLA_LINKINFO, attr(rtnl.INFO_SLAVE_KIND, b"bridge"), port)
        self._send("", f"isolate port {name}", rtnl.RTM_NEWLINK, 0, _named(name) + info)

    def set_promiscuous(self, name: str) -> None:
        """Make a link take every frame."""
        self._send("", f"make {name} promiscuous", rtnl.RTM_NEWLINK, 0, _named(name, _IFF_PROMISC))

    def pin_mac(self, bridge: LinkSeen) -> None:
        """Give a bridge the MAC that it has: from then on, no port changes it."""
        data = _named(bridge.name) + attr(rtnl.IFLA_ADDRESS, bytes.fromhex(bridge.mac.replace(":", "")))
        self._send("", f"fix the MAC of {bridge.name}", rtnl.RTM_NEWLINK, 0, data)

    def add_address(self, address: Address, *, dad: bool = False, route: bool = True) -> None:
        """Put an address on a link; with duplicate detection, or without the kernel's route to its network."""
        number = self._device(f"add {address}", address.netns, address.dev)
        family, packed, length = rtnl.split(address.address)
        flags = (0 if dad or family == socket.AF_INET else _IFA_F_NODAD) | (0 if route else _IFA_F_NOPREFIXROUTE)
        data = struct.pack("=BBBBi", family, length, 0, 0, number)
        data += attr(rtnl.IFA_LOCAL, packed) + attr(rtnl.IFA_ADDRESS, packed)
        data += attr(_IFA_FLAGS, flags.to_bytes(4, "little")) + attr(rtnl.IFA_PROTO, bytes([PROTOCOL]))
        self._send(address.netns, f"add {address}", _RTM_NEWADDR, _CREATE | _EXCL, data)

    def delete_link(self, name: str) -> None:
        """Delete a link of the machine, and with it its other end; no error if it is gone."""
        refused = self._socket("").execute([rtnl.delete_link(name)])
        if refused and refused[0].errno != 19:  # ENODEV
            msg = f"cannot delete link {name}: {refused[0]}"
            raise KernelError(msg, refused[0].errno)

    def beside(self, step: Callable[[], None]) -> Callable[[], None]:
        """Take a step on another thread, a moment from now; what is returned waits for its end, and may raise.

        The step must leave the netlink sockets of this machine alone, which are the calling thread's.
        """
        from _thread import allocate_lock, start_new_thread

        ended, errors = allocate_lock(), list[Exception]()

        def aside() -> None:
            try:
                time.sleep(_AHEAD)
                step()
            except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
                errors.append(error)
            finally:
                ended.release()

        def wait() -> None:
            with ended:
                if errors:
                    raise errors[0]

        ended.acquire()
        start_new_thread(aside, ())
        return wait

    def forget_flows(self, flows: Sequence[Flow]) -> None:
        """Let the kernel forget tracked flows."""
        conntrack.delete("", flows)

    def pass_forward(self, family: int, mark: int) -> None:
        """Let iptables forward what is marked."""
        forward.let_pass(family, mark)

    def unpass_forward(self, family: int, mark: int) -> None:
        """Take that back."""
        forward.stop_passing(family, mark)

    def nft(self, commands: str) -> str:
        """Run nft commands as one transaction."""
        return nft.run("", commands)

    def nft_addition(self, commands: str) -> None:
        """Run nft commands that add elements."""
        nft.run("", commands)

    def nft_removal(self, commands: str) -> None:
        """Run nft commands that delete, which takes the kernel as long as deleting a link."""
        nft.run("", commands)

    def nft_chains(self, table: str) -> dict[str, str]:
        """The chains of a table (with its family) as nft lists them; none where there is no such table."""
        try:
            return nft.chains(nft.run("", f"list table {table}\n", terse=True))
        except KernelError:
            return {}

    def nft_meaning(self, commands: str) -> dict[str, str]:
        """The chains that nft commands make, as this machine's nft lists them."""
        return nft.chains(nft.listed(commands))

    def delegate(self, executable: str, data: bytes, environ: dict[str, str]) -> bytes:
        """Run another plugin."""
        from podnet.cni.runtime.invoke import run

        return run(executable, data, environ, tied=True)

    def abandoned(self) -> bool:
        """Whether nobody waits for the answer any more: only a server can outlive its caller."""
        return False

    def inode(self, path: str) -> int:
        """The number of the namespace that a path leads to; 0 where it leads to none."""
        return os.stat(path).st_ino if path and namespaces.exists(path) else 0

    def _send(self, netns: str, what: str, kind: int, flags: int, data: bytes) -> None:
        refused = self._socket(netns).execute([(kind, flags, data)])
        if refused:
            msg = f"cannot {what}: {refused[0]}"
            raise KernelError(msg, refused[0].errno)

    def _socket(self, netns: str) -> NetlinkSocket:
        return self.kernel.socket(netns)

    def _device(self, what: str, netns: str, name: str) -> int:
        try:
            return self.kernel.device(netns, name)
        except KernelError as error:
            msg = f"cannot {what}: {error}"
            raise KernelError(msg, error.errno) from None


def _named(name: str, flags: int = 0) -> bytes:
    return _IFINFO.pack(0, 0, 0, flags, flags) + attr(rtnl.IFLA_IFNAME, name.encode() + b"\0")


def _seen(data: bytes, start: int, end: int) -> LinkSeen:
    _, _, index, flags, _ = _IFINFO.unpack_from(data, start)
    name = mac = kind = ""
    mtu = peer = 0
    isolated = filters = False
    altnames: tuple[str, ...] = ()
    for key, begin, stop in attrs(data, start + 16, end):
        value = data[begin:stop]
        if key == rtnl.IFLA_IFNAME:
            name = value[:-1].decode(errors="replace")
        elif key == rtnl.IFLA_ADDRESS:
            mac = value.hex(":")
        elif key == rtnl.IFLA_MTU:
            mtu = int.from_bytes(value, "little")
        elif key == rtnl.IFLA_LINK:
            peer = int.from_bytes(value, "little")
        elif key == rtnl.IFLA_PROP_LIST:
            altnames = tuple(data[a : b - 1].decode(errors="replace") for _, a, b in attrs(data, begin, stop))
        elif key == rtnl.IFLA_LINKINFO:
            for inner, first, last in attrs(data, begin, stop):
                if inner == rtnl.INFO_KIND:
                    kind = data[first : last - 1].decode() if data[last - 1] == 0 else data[first:last].decode()
                elif inner == rtnl.INFO_DATA and kind == "bridge":
                    filters = any(data[a] != 0 for key, a, _ in attrs(data, first, last) if key == _BR_VLAN_FILTERING)
                elif inner == rtnl.INFO_SLAVE_DATA:
                    ports = {port: data[a] for port, a, _ in attrs(data, first, last)}
                    isolated = ports.get(_BRPORT_ISOLATED, 0) != 0
    return LinkSeen(index, name, mac, mtu, kind, altnames, isolated, peer, filters, bool(flags & rtnl.IFF_UP))
