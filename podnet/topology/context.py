"""What the checks between values share: the file, its places, and the defaults that it leaves to podnet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from podnet.model.topology import CniNetwork, Expectation, Network, Subnet
from podnet.topology import schema
from podnet.topology.messages import narrow
from podnet.topology.problem import MAX_PROBLEMS, Enough, Problem, Span, quote
from podnet.topology.tree import List, Mapping, Node, Path, Scalar, find, key_span

__all__ = ["Context", "Declaration", "Declared", "POD_SUBNETS", "UNDERLAY", "WIDE_UNDERLAY", "WIDE_UNDERLAY_FROM"]

POD_SUBNETS: dict[int, Network] = {4: ip_network("10.244.0.0/16"), 6: ip_network("fd00:10:244::/56")}
UNDERLAY: dict[int, Network] = {4: ip_network("198.18.0.0/24"), 6: ip_network("fd00:198:18::/64")}  # RFC 2544, RFC 4193
WIDE_UNDERLAY: Network = ip_network("198.18.0.0/16")
WIDE_UNDERLAY_FROM = 251  # nodes and clients

_VERSIONS: dict[str, tuple[int, ...]] = {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6)}


@dataclass(frozen=True, slots=True)
class Declaration:
    """One entry that declares a name, whatever else is in it; ``span`` is that of the name."""

    kind: str  # node | router | client | pod
    name: str
    span: Span
    entry: Mapping

    @property
    def replicas(self) -> int | None:
        """The number of replicas, ``None`` without them or where that is no usable number."""
        found = self.entry.entries.get("replicas")
        number = found.node.data if found else None
        return number if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 1000 else None


@dataclass(frozen=True, slots=True)
class Declared:
    """All that the file declares, also by entries that are wrong otherwise: references lead to these names."""

    entries: tuple[Declaration, ...]
    subnets: tuple[str, ...]
    targets: dict[str, str]  # name -> kind
    unclear: frozenset[str]  # pods whose `replicas` is wrong

    @classmethod
    def of(cls, tree: Node) -> Declared:
        """Read the names from the tree."""
        kinds = (
            ("node", ("nodes",)),
            ("router", ("underlay", "routers")),
            ("client", ("clients",)),
            ("pod", ("pods",)),
        )
        entries = tuple(
            Declaration(kind, name, span, entry) for kind, path in kinds for name, span, entry in _named(tree, path)
        )
        return cls(
            entries,
            tuple(name for name, _, _ in _named(tree, ("underlay", "subnets"))),
            {e.name: e.kind for e in reversed(entries)},
            frozenset(e.name for e in entries if "replicas" in e.entry.entries and e.replicas is None),
        )

    def of_kind(self, kind: str) -> list[str]:
        """Names of one kind."""
        return list(dict.fromkeys(e.name for e in self.entries if e.kind == kind))


def _named(tree: Node, path: Path) -> Iterator[tuple[str, Span, Mapping]]:
    node, complete = find(tree, path)
    for item in node.items if complete and isinstance(node, List) else ():
        name = item.entries.get("name") if isinstance(item, Mapping) else None
        if name and isinstance(item, Mapping) and isinstance(name.node, Scalar) and isinstance(name.node.data, str):
            yield name.node.data, name.node.span, item


@dataclass(slots=True)
class Context:
    """The file as read, and the problems found between its values."""

    file: schema.File
    tree: Node
    lines: Sequence[str]
    declared: Declared
    cut: frozenset[Path] = frozenset()
    problems: list[Problem] = field(default_factory=list)
    expect: list[Expectation] = field(default_factory=list)
    versions: tuple[int, ...] = ()
    subnets: tuple[Subnet, ...] = ()
    cni: CniNetwork | None = None
    pod_subnets: dict[int, Network] = field(default_factory=dict)
    _by_name: dict[str, Subnet] = field(default_factory=dict)
    pinned: dict[str, dict[int, Network]] = field(
        default_factory=dict
    )  # node -> pod CIDR that its pods' addresses imply

    def __post_init__(self) -> None:
        self.versions = _VERSIONS[self.file.networking.ip_family]
        given: dict[int, Network] = {n.version: n for n in self.file.networking.pod_subnet or ()}
        self.pod_subnets = {v: given.get(v, POD_SUBNETS[v]) for v in self.versions}
        self.subnets = self._subnets()
        self._by_name = {subnet.name: subnet for subnet in reversed(self.subnets)}

    def _subnets(self) -> tuple[Subnet, ...]:
        return tuple(Subnet(s.name, s.cidr, s.mtu) for s in self.file.underlay.subnets) or (self._default(),)

    def _default(self) -> Subnet:
        wide = len(self.file.nodes) + len(self.file.clients) >= WIDE_UNDERLAY_FROM
        return Subnet("underlay", tuple(WIDE_UNDERLAY if wide and v == 4 else UNDERLAY[v] for v in self.versions))

    @property
    def whole(self) -> bool:
        """Whether nothing that other values are checked against was cut out."""
        return not self.cut

    def intact(self, *path: str) -> bool:
        """Whether the value at the path, or an entry of that list, was not cut out of the file."""
        return all(p[: len(path)] != path for p in self.cut)

    def subnet(self, name: str | None) -> Subnet | None:
        """The subnet of that name, the first one for ``None``; ``None`` where there is no such subnet."""
        if name is None:
            return self.subnets[0] if self.intact("underlay", "subnets") else None
        return self._by_name.get(name)

    def hosts(self) -> Iterator[tuple[Path, str, schema.Node | schema.Client]]:
        """Nodes and clients: the path of each, what a message calls it, and it."""
        for i, node in enumerate(self.file.nodes):
            yield ("nodes", i), f"node {quote(node.name)}", node
        for i, client in enumerate(self.file.clients):
            yield ("clients", i), f"client {quote(client.name)}", client

    def span(self, path: Path, key: bool = False, part: str = "") -> Span:
        """The place of the value at the path (of its key with ``key``), or of what holds it."""
        node, _ = find(self.tree, path)
        if key:
            return key_span(self.tree, path) or node.span
        return narrow(node.span, self.lines, part)

    def note(self, span: Span, message: str, hint: str = "") -> None:
        """Note a problem at a place. Raises ``Enough`` when there are too many to go on."""
        self.problems.append(Problem(span, message, hint))
        if len(self.problems) > MAX_PROBLEMS:
            raise Enough

    def report(self, path: Path, message: str, hint: str = "", *, part: str = "", key: bool = False) -> None:
        """Note a problem at the value of the path; ``part`` is the piece of its text that is wrong."""
        self.note(self.span(path, key, part), message, hint)

    def text(self, path: Path, default: Any = "") -> str:
        """The text at the path as it is written."""
        node, complete = find(self.tree, path)
        return node.text if complete and isinstance(node, Scalar) else str(default)

    def part(self, path: Path, version: int) -> str:
        """The piece of an ``IPv4,IPv6`` text that is of this version; empty where the text is of one version only."""
        pieces = [p.strip() for p in self.text(path).split(",")]
        return "" if len(pieces) < 2 else next((p for p in pieces if (":" in p) == (version == 6)), "")
