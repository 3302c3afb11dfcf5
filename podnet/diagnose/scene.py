"""The kernel's state as a diagnosis asks for it: read once per namespace, when it is first asked for."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.kernel import detail, dump, fib, sysctl
from podnet.kernel.netlink import NetlinkSocket
from podnet.kernel.netns import entered
from podnet.kernel.objects import Route

if TYPE_CHECKING:
    from podnet.kernel.detail import LinkDetail, NeighbourDetail
    from podnet.kernel.fib import Lookup

__all__ = ["Scene"]


class Scene:
    """What is there. A namespace that is gone has nothing in it. Close it."""

    def __init__(self) -> None:
        self._sockets: dict[str, NetlinkSocket | None] = {}
        self._links: dict[str, dict[str, LinkDetail]] = {}
        self._addresses: dict[str, list[tuple[str, str]]] = {}
        self._neighbours: dict[str, list[NeighbourDetail]] = {}
        self._pinned: dict[str, list[tuple[int, str, bool]]] = {}
        self._listening: dict[tuple[str, str], str] = {}

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._sockets.values():
            if sock is not None:
                sock.close()
        self._sockets.clear()

    def _socket(self, netns: str) -> NetlinkSocket | None:
        if netns not in self._sockets:
            try:
                self._sockets[netns] = NetlinkSocket(netns)
            except (KernelError, OSError):
                self._sockets[netns] = None
        return self._sockets[netns]

    def exists(self, netns: str) -> bool:
        """Whether the namespace is there."""
        return self._socket(netns) is not None

    def links(self, netns: str) -> dict[str, LinkDetail]:
        """The links of a namespace by name."""
        if netns not in self._links:
            sock = self._socket(netns)
            self._links[netns] = {link.name: link for link in detail.links(sock)} if sock else {}
        return self._links[netns]

    def link(self, netns: str, name: str) -> LinkDetail | None:
        """One link."""
        return self.links(netns).get(name)

    def name(self, netns: str, index: int) -> str:
        """The name of a link by its index, empty if there is none."""
        return next((link.name for link in self.links(netns).values() if link.ifindex == index), "")

    def master(self, netns: str, name: str) -> str:
        """The bridge that a link is a port of, empty if it is none."""
        link = self.link(netns, name)
        return self.name(netns, link.master) if link and link.master else ""

    def addresses(self, netns: str) -> list[tuple[str, str]]:
        """(device, address with prefix length) of a namespace."""
        if netns not in self._addresses:
            sock = self._socket(netns)
            rows = detail.addresses(sock) if sock else []
            self._addresses[netns] = [(self.name(netns, index), address) for index, address in rows]
        return self._addresses[netns]

    def has(self, netns: str, address: str) -> bool:
        """Whether the namespace has an address, given without prefix length."""
        return any(each.partition("/")[0] == address for _, each in self.addresses(netns))

    def neighbour(self, netns: str, dev: str, address: str) -> NeighbourDetail | None:
        """The neighbour entry of an address on a device."""
        if netns not in self._neighbours:
            sock = self._socket(netns)
            self._neighbours[netns] = detail.neighbours(sock) if sock else []
        found = (n for n in self._neighbours[netns] if n.address == address and self.name(netns, n.ifindex) == dev)
        return next(found, None)

    def pinned_port(self, netns: str, bridge: str, mac: str) -> str:
        """The port of a bridge at which somebody pinned a MAC, empty if nobody did."""
        if netns not in self._pinned:
            sock = self._socket(netns)
            self._pinned[netns] = detail.forwarding_database(sock) if sock else []
        ports = (self.name(netns, index) for index, each, pinned in self._pinned[netns] if pinned and each == mac)
        found = (port for port in ports if port == bridge or self.master(netns, port) == bridge)
        return next(found, "")

    def lookup(self, netns: str, destination: str, source: str = "", incoming: str = "") -> Lookup | None:
        """The kernel's answer to a route lookup, ``None`` where the namespace or the incoming device is gone."""
        sock = self._socket(netns)
        link = self.link(netns, incoming) if incoming else None
        if sock is None or (incoming and link is None):
            return None
        return fib.lookup(sock, destination, source, link.ifindex if link else 0)

    def refusing(self, netns: str, kind: str, destination: str) -> str:
        """The prefix of the longest route of a kind (``blackhole``, ...) for a destination, empty if there is none."""
        sock = self._socket(netns)
        if sock is None:
            return ""
        found = [r.dst for r in dump.routes(sock, netns, {}) if isinstance(r, Route) and r.type == kind]
        wanted = ip_address(destination)
        fitting = [p for p in map(ip_network, found) if p.version == wanted.version and wanted in p]
        return str(max(fitting, key=lambda network: network.prefixlen)) if fitting else ""

    def sysctl(self, netns: str, name: str) -> str:
        """The value of a sysctl (``net/ipv4/ip_forward``), empty where there is none."""
        if not self.exists(netns):
            return ""
        found = sysctl.read([(netns, name)])
        return found[0].value if found else ""

    def listens(self, netns: str, protocol: str, port: int) -> bool:
        """Whether some socket of the namespace is bound to a TCP (listening) or UDP port, of either IP version."""
        wanted = f"{port:04X}"
        state = "0A" if protocol == "tcp" else "07"  # TCP_LISTEN; UDP sockets that are not connected
        for suffix in ("", "6"):
            for line in self._sockets_of(netns, protocol + suffix).splitlines()[1:]:
                fields = line.split()
                if fields[1].rpartition(":")[2] == wanted and fields[3] == state:
                    return True
        return False

    def _sockets_of(self, netns: str, name: str) -> str:
        if (netns, name) not in self._listening:
            try:
                with entered(netns), open(f"/proc/thread-self/net/{name}", encoding="ascii") as file:
                    self._listening[netns, name] = file.read()
            except (KernelError, OSError):
                self._listening[netns, name] = ""
        return self._listening[netns, name]
