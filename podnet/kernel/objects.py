"""Kernel objects as data: what podnet wants, and what it found, in the same types.

Every object has a ``key``; two objects with one key are two states of the same thing. ``netns`` is always the
name of the namespace that the object lives in; the empty name is the machine's own. Addresses and prefixes
are canonical text (``10.244.1.1/24``, ``fd00::1/64``), as ``ip -j`` prints them; MACs are lower case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "MAIN_TABLE",
    "PROTOCOL",
    "Address",
    "Bridge",
    "Key",
    "KernelObject",
    "Link",
    "Loopback",
    "Neighbour",
    "Netns",
    "NftTable",
    "Process",
    "Route",
    "State",
    "Sysctl",
    "Veth",
    "owned",
]

Key = tuple[str, ...]

# The mark on routes, addresses and neighbours that podnet made (rtm_protocol, IFA_PROTO, NDA_PROTOCOL).
# Below 128 are the kernel's and known daemons' numbers (/etc/iproute2/rt_protos); 0x70 is "p".
PROTOCOL = 0x70

MAIN_TABLE = 254  # RT_TABLE_MAIN, linux/rtnetlink.h


@dataclass(frozen=True, slots=True)
class Netns:
    """A named network namespace: a bind mount under ``/run/netns``."""

    kind: ClassVar[str] = "netns"
    name: str

    @property
    def key(self) -> Key:
        return ("netns", self.name)

    @property
    def netns(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"namespace {self.name}"


@dataclass(frozen=True, slots=True)
class Loopback:
    """``lo``: it comes with its namespace, so it is only ever updated."""

    kind: ClassVar[str] = "loopback"
    netns: str
    up: bool = True
    name: str = "lo"

    @property
    def key(self) -> Key:
        return ("link", self.netns, self.name)

    def __str__(self) -> str:
        return f"link lo in {self.netns or 'the machine'}"


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge without spanning tree. ``group`` and ``altname`` mark it as podnet's (see ``owned``)."""

    kind: ClassVar[str] = "bridge"
    netns: str
    name: str
    mac: str
    mtu: int = 1500
    up: bool = True
    group: int = 0
    altname: str = ""

    @property
    def key(self) -> Key:
        return ("link", self.netns, self.name)

    def __str__(self) -> str:
        return f"bridge {self.name} in {self.netns or 'the machine'}"


@dataclass(frozen=True, slots=True)
class Veth:
    """One end of a veth pair; the other end is an object of its own, and both must be wanted.

    ``master`` is the bridge that this end is a port of, ``hairpin`` that port's flag. ``addrgen`` is whether
    the kernel makes an IPv6 link-local address by itself (IFLA_INET6_ADDR_GEN_MODE eui64, else none).
    """

    kind: ClassVar[str] = "veth"
    netns: str
    name: str
    peer_netns: str
    peer: str
    mac: str
    mtu: int = 1500
    up: bool = True
    master: str = ""
    hairpin: bool = False
    addrgen: bool = False
    group: int = 0
    altname: str = ""

    @property
    def key(self) -> Key:
        return ("link", self.netns, self.name)

    @property
    def peer_key(self) -> Key:
        return ("link", self.peer_netns, self.peer)

    def __str__(self) -> str:
        label = f" ({self.altname})" if self.altname else ""
        return f"veth {self.name}{label} in {self.netns or 'the machine'}"


@dataclass(frozen=True, slots=True)
class Address:
    """An address on an interface, with its prefix length."""

    kind: ClassVar[str] = "address"
    netns: str
    dev: str
    address: str
    protocol: int = PROTOCOL

    @property
    def key(self) -> Key:
        return ("address", self.netns, self.dev, self.address)

    def __str__(self) -> str:
        return f"address {self.address} on {self.dev} in {self.netns or 'the machine'}"


@dataclass(frozen=True, slots=True)
class Route:
    """A route. ``via`` or ``dev`` may be empty; ``metric`` 0 is the kernel's default (1024 for IPv6)."""

    kind: ClassVar[str] = "route"
    netns: str
    dst: str  # a prefix; "0.0.0.0/0" and "::/0" are the default routes
    via: str = ""
    dev: str = ""
    src: str = ""
    type: str = "unicast"
    metric: int = 0
    mtu: int = 0
    table: int = MAIN_TABLE
    protocol: int = PROTOCOL

    @property
    def key(self) -> Key:
        return ("route", self.netns, str(self.table), self.dst, str(self.metric))

    def __str__(self) -> str:
        how = f" via {self.via}" if self.via else ""
        how += f" dev {self.dev}" if self.dev else ""
        kind = "" if self.type == "unicast" else f"{self.type} "
        return f"route {kind}{self.dst}{how} in {self.netns or 'the machine'}"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour entry: it is not counted against ``gc_thresh3`` and never expires."""

    kind: ClassVar[str] = "neighbour"
    netns: str
    dev: str
    address: str
    mac: str
    protocol: int = PROTOCOL

    @property
    def key(self) -> Key:
        return ("neighbour", self.netns, self.dev, self.address)

    def __str__(self) -> str:
        return f"neighbour {self.address} lladdr {self.mac} dev {self.dev} in {self.netns or 'the machine'}"


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A sysctl below ``net.``, by its dotted or slashed name, and its value as text."""

    kind: ClassVar[str] = "sysctl"
    netns: str
    name: str  # the path below /proc/sys: "net/ipv4/ip_forward"
    value: str

    @property
    def key(self) -> Key:
        return ("sysctl", self.netns, self.name)

    def __str__(self) -> str:
        return f"sysctl {self.name.replace('/', '.')}={self.value} in {self.netns or 'the machine'}"


@dataclass(frozen=True, slots=True)
class NftTable:
    """One nftables table with all that is in it; it is replaced as a whole, in one transaction.

    ``ruleset`` is the text between the braces, as ``nft`` reads it.
    """

    kind: ClassVar[str] = "nft"
    netns: str
    family: str
    name: str
    ruleset: str

    @property
    def key(self) -> Key:
        return ("nft", self.netns, self.family, self.name)

    def __str__(self) -> str:
        return f"nftables table {self.family} {self.name} in {self.netns or 'the machine'}"


@dataclass(frozen=True, slots=True)
class Process:
    """A supervised process in a namespace. ``name`` is ``pod/container``."""

    kind: ClassVar[str] = "process"
    netns: str
    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> Key:
        return ("process", self.netns, self.name)

    def __str__(self) -> str:
        return f"container {self.name} in {self.netns or 'the machine'}"


Link = Loopback | Bridge | Veth
KernelObject = Netns | Loopback | Bridge | Veth | Address | Route | Neighbour | Sysctl | NftTable | Process
State = dict[Key, KernelObject]


def owned(found: KernelObject, group: int) -> bool:
    """Whether podnet made this object, by the mark that it carries in the kernel.

    Links carry the lab's ``group``; routes, addresses and neighbours carry ``PROTOCOL``; a table carries its
    name. Namespaces and processes are known by the lab's record, sysctls are never ours to delete.
    """
    match found:
        case Bridge() | Veth():
            return found.group == group
        case Address() | Route() | Neighbour():
            return found.protocol == PROTOCOL
        case NftTable():
            return found.name == "podnet" or found.name.startswith("podnet-")
        case Netns() | Process():
            return True
        case _:
            return False
