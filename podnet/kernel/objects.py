"""Kernel objects as data: what podnet wants, and what it found, in the same types.

Every object has a ``key``; two objects with one key are two states of the same thing. ``netns`` is always the
name of the namespace that the object lives in; the empty name is the machine's own. Addresses and prefixes
are canonical text (``10.244.1.1/24``, ``fd00::1/64``), as ``ip -j`` prints them; MACs are lower case.

They are named tuples, not frozen dataclasses: defining one costs 0.3 instead of 1.6 ms at every start of the
program, making one 0.3 instead of 1.2 µs, and a lab of 1,000 pods has up to 100,000 of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

__all__ = [
    "ALTNAME",
    "BIRD",
    "MAIN_TABLE",
    "PROTOCOL",
    "Address",
    "Attached",
    "BirdConf",
    "Bridge",
    "Key",
    "KernelObject",
    "Link",
    "Loopback",
    "Neighbours",
    "Netns",
    "NftTable",
    "Peer",
    "Process",
    "Qdisc",
    "Route",
    "State",
    "Sysctl",
    "Tunnel",
    "Veth",
    "owned",
    "replace",
]

Key = tuple[str, ...]

# The mark on routes, addresses and neighbours that podnet made (rtm_protocol, IFA_PROTO, NDA_PROTOCOL).
# Below 128 are the kernel's and known daemons' numbers (/etc/iproute2/rt_protos); 0x70 is "p".
PROTOCOL = 0x70

BIRD = 12  # RTPROT_BIRD, linux/rtnetlink.h: who writes the routes that are learned

ALTNAME = "podnet."  # how podnet's alternative names of links begin

MAIN_TABLE = 254  # RT_TABLE_MAIN, linux/rtnetlink.h


class Netns(NamedTuple):
    """A named network namespace: a bind mount under ``/run/netns``."""

    name: str

    @property
    def kind(self) -> str:
        return "netns"

    @property
    def key(self) -> Key:
        return ("netns", self.name)

    @property
    def netns(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"namespace {self.name}"


class Loopback(NamedTuple):
    """``lo``: it comes with its namespace, so it is only ever updated."""

    netns: str
    up: bool = True
    name: str = "lo"

    @property
    def kind(self) -> str:
        return "loopback"

    @property
    def key(self) -> Key:
        return ("link", self.netns, self.name)

    def __str__(self) -> str:
        return f"link lo in {self.netns or 'the machine'}"


class Bridge(NamedTuple):
    """A bridge without spanning tree. ``group`` and ``altname`` mark it as podnet's (see ``owned``)."""

    netns: str
    name: str
    mac: str
    mtu: int = 1500
    up: bool = True
    group: int = 0
    altname: str = ""

    @property
    def kind(self) -> str:
        return "bridge"

    @property
    def key(self) -> Key:
        return ("link", self.netns, self.name)

    def __str__(self) -> str:
        return f"bridge {self.name} in {self.netns or 'the machine'}"


class Veth(NamedTuple):
    """One end of a veth pair; the other end is an object of its own, and both must be wanted.

    ``master`` is the bridge that this end is a port of, ``hairpin`` that port's flag. ``addrgen`` is whether
    the kernel makes an IPv6 link-local address by itself (IFLA_INET6_ADDR_GEN_MODE eui64, else none).
    """

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
    def kind(self) -> str:
        return "veth"

    @property
    def key(self) -> Key:
        return ("link", self.netns, self.name)

    @property
    def peer_key(self) -> Key:
        return ("link", self.peer_netns, self.peer)

    def __str__(self) -> str:
        label = f" ({self.altname})" if self.altname else ""
        return f"veth {self.name}{label} in {self.netns or 'the machine'}"


class Tunnel(NamedTuple):
    """A link that carries packets inside others; ``type`` is ``vxlan``, ``wireguard`` or ``ipip``.

    ``options`` are what makes it that one, as text, sorted by name: ``id``, ``local`` and ``port`` for vxlan,
    ``local`` for ipip, ``port`` and ``public`` (its key, base64) for wireguard. Where packets for one far end are sent
    says a ``Peer``. Only vxlan has a MAC.
    """

    netns: str
    name: str
    type: str
    options: tuple[tuple[str, str], ...]
    mac: str = ""
    mtu: int = 1500
    up: bool = True
    addrgen: bool = False
    group: int = 0
    altname: str = ""

    @property
    def kind(self) -> str:
        return self.type

    @property
    def key(self) -> Key:
        return ("link", self.netns, self.name)

    def option(self, name: str) -> str:
        """One of the options; empty where it has none of that name."""
        return dict(self.options).get(name, "")

    def __str__(self) -> str:
        return f"{self.type} {self.name} in {self.netns or 'the machine'}"


class Peer(NamedTuple):
    """The far end of a tunnel.

    For vxlan the entry of its forwarding table that sends frames for the MAC ``id`` to the address ``endpoint``; for
    wireguard the peer whose public key is ``id``, at ``endpoint`` with its port (``198.18.0.3:51820``), which may
    send from and be sent to the networks ``allowed``, sorted.
    """

    netns: str
    dev: str
    type: str
    id: str
    endpoint: str
    allowed: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return "peer"

    @property
    def key(self) -> Key:
        return ("peer", self.netns, self.dev, self.id)

    def __str__(self) -> str:
        return f"{self.type} peer {self.endpoint} of {self.dev} in {self.netns or 'the machine'}"


class Address(NamedTuple):
    """An address on an interface, with its prefix length."""

    netns: str
    dev: str
    address: str
    protocol: int = PROTOCOL

    @property
    def kind(self) -> str:
        return "address"

    @property
    def key(self) -> Key:
        return ("address", self.netns, self.dev, self.address)

    def __str__(self) -> str:
        return f"address {self.address} on {self.dev} in {self.netns or 'the machine'}"


class Route(NamedTuple):
    """A route. ``via`` or ``dev`` may be empty; ``metric`` 0 is the kernel's default (1024 for IPv6).

    ``onlink`` takes ``via`` to be on the link though no network of the link holds it.
    ``scope`` is a number of rtnetlink.h, -1 what the kernel's tools take: link without ``via``, else universe.
    IPv6 has no scopes.
    """

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
    advmss: int = 0
    scope: int = -1
    onlink: bool = False

    @property
    def kind(self) -> str:
        return "route"

    @property
    def key(self) -> Key:
        return ("route", self.netns, str(self.table), self.dst, str(self.metric))

    @property
    def learned(self) -> bool:
        """Whether a routing daemon is to write it: podnet only waits for it."""
        return self.protocol == BIRD

    def __str__(self) -> str:
        how = f" via {self.via}" if self.via else ""
        how += f" dev {self.dev}" if self.dev else ""
        kind = "" if self.type == "unicast" else f"{self.type} "
        by = " by bird" if self.learned else ""
        return f"route {kind}{self.dst}{how}{by} in {self.netns or 'the machine'}"


class Neighbours(NamedTuple):
    """The permanent neighbours of one IP version that podnet wrote for a link: (address, MAC) pairs, sorted.

    Permanent entries never expire and are not counted against ``gc_thresh3``. They are one object a link because
    a bridge of 100 pods takes 10,000 of them; pods of one bridge share one tuple of entries.
    """

    netns: str
    dev: str
    version: int
    entries: tuple[tuple[str, str], ...]

    @property
    def kind(self) -> str:
        return "neighbours"

    @property
    def key(self) -> Key:
        return ("neighbours", self.netns, self.dev, str(self.version))

    def __str__(self) -> str:
        return f"permanent IPv{self.version} neighbours of {self.dev} in {self.netns or 'the machine'}"


class Sysctl(NamedTuple):
    """A sysctl below ``net.``, by its dotted or slashed name, and its value as text."""

    netns: str
    name: str  # the path below /proc/sys: "net/ipv4/ip_forward"
    value: str

    @property
    def kind(self) -> str:
        return "sysctl"

    @property
    def key(self) -> Key:
        return ("sysctl", self.netns, self.name)

    def __str__(self) -> str:
        return f"sysctl {self.name.replace('/', '.')}={self.value} in {self.netns or 'the machine'}"


class Qdisc(NamedTuple):
    """What impairs the packets that a link sends: netem, or a token bucket (``tbf``).

    ``settings`` are numbers in the kernel's units; ``podnet.kernel.impairment`` says which, and in which order.
    """

    netns: str
    dev: str
    type: str
    settings: tuple[tuple[str, int], ...]

    @property
    def kind(self) -> str:
        return "qdisc"

    @property
    def key(self) -> Key:
        return ("qdisc", self.netns, self.dev)

    def __str__(self) -> str:
        return f"{self.type} on {self.dev} in {self.netns or 'the machine'}"


class NftTable(NamedTuple):
    """One nftables table with all that is in it; it is replaced as a whole, in one transaction.

    ``ruleset`` is the text between the braces, as ``nft`` reads it.
    """

    netns: str
    family: str
    name: str
    ruleset: str

    @property
    def kind(self) -> str:
        return "nft"

    @property
    def key(self) -> Key:
        return ("nft", self.netns, self.family, self.name)

    def __str__(self) -> str:
        return f"nftables table {self.family} {self.name} in {self.netns or 'the machine'}"


class Process(NamedTuple):
    """A supervised process in a namespace. ``name`` is ``pod/container``."""

    netns: str
    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self) -> str:
        return "process"

    @property
    def key(self) -> Key:
        return ("process", self.netns, self.name)

    def __str__(self) -> str:
        return f"container {self.name} in {self.netns or 'the machine'}"


class BirdConf(NamedTuple):
    """The configuration of the routing daemon BIRD on the node or router ``name``; ``text`` is all of its file.

    The daemon itself is a ``Process``, what it learns are routes of the protocol ``BIRD``. A daemon that runs is told
    to read its configuration again, and goes on.
    """

    netns: str
    name: str
    text: str

    @property
    def kind(self) -> str:
        return "bird"

    @property
    def key(self) -> Key:
        return ("bird", self.netns)

    def __str__(self) -> str:
        return f"configuration of bird in {self.netns}"


class Attached(NamedTuple):
    """A pod's interface that the CNI plugins of a network make, with all that belongs to it.

    ``node`` is the namespace that the plugins run in, ``config`` the network's configuration list as JSON, ``path``
    the folders of the plugins, with colons between. ``state`` is empty where all is as the plugins made it, else what
    is wrong.
    """

    netns: str
    ifname: str
    node: str
    network: str
    config: str
    path: str
    state: str = ""

    @property
    def kind(self) -> str:
        return "attachment"

    @property
    def key(self) -> Key:
        return ("attachment", self.netns, self.ifname)

    def __str__(self) -> str:
        return f"attachment of {self.ifname} in {self.netns} to CNI network {self.network}"


Link = Loopback | Bridge | Veth | Tunnel
KernelObject = (
    Netns
    | Loopback
    | Bridge
    | Veth
    | Tunnel
    | Peer
    | Address
    | Route
    | Neighbours
    | Sysctl
    | Qdisc
    | NftTable
    | Process
    | BirdConf
    | Attached
)
State = dict[Key, KernelObject]


_Each = TypeVar("_Each", bound=KernelObject)


def replace(each: _Each, **fields: Any) -> _Each:
    """The same object with other values in some fields."""
    return each._replace(**fields)  # type: ignore[return-value]


def owned(found: KernelObject, group: int) -> bool:
    """Whether podnet made this object, by the mark that it carries in the kernel.

    Links carry the lab's ``group``; routes, addresses and neighbours carry ``PROTOCOL``; a table carries its
    name. Namespaces and processes are known by the lab's record, sysctls are never ours to delete.
    """
    match found:
        case Bridge() | Veth() | Tunnel():
            return found.group == group
        case Address() | Route():
            return found.protocol == PROTOCOL
        case Neighbours() | Peer() | Qdisc():
            return True  # only those with podnet's protocol or handle, or of podnet's links, are ever reported
        case NftTable():
            return found.name == "podnet" or found.name.startswith("podnet-")
        case Netns() | Process() | BirdConf() | Attached():
            return True
        case _:
            return False
