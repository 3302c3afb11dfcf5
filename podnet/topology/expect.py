"""The entries of ``expect``: selectors to names, defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from podnet.model.topology import Expectation
from podnet.topology import schema
from podnet.topology.context import Context
from podnet.topology.problem import Enough, did_you_mean, quote
from podnet.topology.ranges import written
from podnet.topology.tree import Path

__all__ = ["read_expect"]

MAX_WORK = 10_000_000  # names looked at for all selectors of a file
_WORDS = {"pods": "pod", "nodes": "node", "clients": "client"}


@dataclass(frozen=True, slots=True)
class Member:
    """Something that a selector can match; ``base`` is the name that a pod has in the file."""

    name: str
    kind: str
    labels: dict[str, str]
    node: str = ""
    base: str = ""


class Roster:
    """All pods (replicas spread), nodes and clients, found by name, word or selector."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.work = 0
        file = context.file
        self.members = [Member(n.name, "node", n.labels) for n in file.nodes]
        for pod in file.pods:
            names = [pod.name] if pod.replicas is None else [f"{pod.name}-{i}" for i in range(pod.replicas)]
            self.members += [Member(name, "pod", pod.labels, pod.node, pod.name) for name in names]
        self.members += [Member(c.name, "client", {}) for c in file.clients]
        self.by_name: dict[str, list[str]] = {}
        for member in self.members:
            self.by_name.setdefault(member.name, []).append(member.name)
            if member.base and member.base != member.name:
                self.by_name.setdefault(member.base, []).append(member.name)
        self.kinds = {m.name: m.kind for m in self.members}

    def select(self, selection: object, path: Path) -> list[str]:
        """The names that are meant, in order, each once; problems are reported."""
        self.work += len(self.members) if not isinstance(selection, str) or selection not in self.by_name else 1
        if self.work > MAX_WORK:
            message = f"the selectors of `expect` stand for more than {MAX_WORK:,} names"
            self.context.report(path, message, "write fewer or narrower expectations")
            raise Enough
        if isinstance(selection, list):
            found = [name for i, one in enumerate(selection) for name in self.select(one, (*path, i))]
            return list(dict.fromkeys(found))
        if isinstance(selection, schema.Selector):
            return self._matching(selection, path)
        return self._called(str(selection), path)

    def _called(self, word: str, path: Path) -> list[str]:
        if word == "*":
            return [m.name for m in self.members]
        if word in _WORDS:
            found = [m.name for m in self.members if m.kind == _WORDS[word]]
            if not found and self.context.intact(word):
                self.context.report(
                    path, f"`{word}` selects nothing: the file has none", "take this entry out, or add some"
                )
            return found
        if word not in self.by_name and not self._cut_out(word):
            kind = self.context.declared.targets.get(word)
            if kind == "router":
                self.context.report(
                    path, f"{quote(word)} is a router, and only pods, nodes and clients can be expected to talk"
                )
            else:
                hint = did_you_mean(word, [*self.by_name, *_WORDS])
                self.context.report(path, f"there is no pod, node or client {quote(word)}", hint)
        return self.by_name.get(word, [])

    def _cut_out(self, word: str) -> bool:
        """Whether the name is of an entry that is left out because something else is wrong with it."""
        declared = self.context.declared
        if declared.targets.get(word) in ("pod", "node", "client"):
            return True
        base, dash, number = word.rpartition("-")
        return bool(dash) and number.isdecimal() and base in declared.unclear

    def _matching(self, selector: schema.Selector, path: Path) -> list[str]:
        context = self.context
        if selector.labels is None and selector.node is None and selector.kind is None:
            context.report(path, "a selector needs at least one of `labels`, `node` and `kind`", 'write "*" for all')
            return []
        nodes = context.declared.of_kind("node")
        if selector.node is not None and selector.node not in nodes:
            context.report(
                (*path, "node"), f"there is no node {quote(selector.node)}", did_you_mean(selector.node, nodes)
            )
            return []
        labels = (selector.labels or {}).items()
        found = [
            m.name
            for m in self.members
            if (selector.kind is None or m.kind == selector.kind)
            and (selector.node is None or m.node == selector.node)
            and all(m.labels.get(k) == v for k, v in labels)
        ]
        if not found and context.whole:
            known = sorted({f"{k}: {v}" for m in self.members for k, v in m.labels.items()})
            hint = did_you_mean(", ".join(f"{k}: {v}" for k, v in labels), known, "the labels are") if labels else ""
            context.report(path, "this selector matches no pod, node or client", hint)
        return found


def read_expect(context: Context) -> None:
    """Fill ``context.expect``; a name or selector that matches nothing is a problem."""
    roster = Roster(context)
    for i, entry in enumerate(context.file.expect):
        path: Path = ("expect", i)
        sources = roster.select(entry.from_, (*path, "from"))
        targets = roster.select(entry.to, (*path, "to"))
        given = [name for name in schema.PROTOCOLS if getattr(entry, name) is not None]
        if len(given) != 1:
            message = (
                "an expectation has one of `icmp: true`, `arp: true`, `nd: true` and `tcp`, `udp`, `sctp`, `connect`, "
                "`http`, `dns` with a port"
            )
            context.report(
                (*path, given[1]) if given else path, f"{message}, found {len(given) or 'none'}", key=bool(given)
            )
            continue
        families = _families(context, entry, path, given[0])
        _source(context, entry, path, families)
        via = _bounds(context, entry, path, given[0])
        client = any(roster.kinds[name] == "client" for name in (*sources, *targets))
        default = "any" if client or entry.verdict != "reach" else "own"
        line = context.span(path).line
        for port in _ports(context, entry, path, given[0]):
            context.expect.append(
                Expectation(
                    tuple(sources),
                    tuple(targets),
                    given[0],
                    entry.verdict,
                    port,
                    families,
                    entry.source or default,
                    line,
                    entry.ttl,
                    via,
                    entry.mtu,
                    entry.latency_ms,
                    None if entry.loss_percent is None else entry.loss_percent / 100,
                    float(entry.within or 0),
                )
            )


_ASKED_OF = {
    "mtu": ("icmp",),
    "latencyMs": ("icmp", "tcp", "udp", "sctp"),
    "lossPercent": ("icmp", "tcp", "udp", "sctp"),
    "ttl": ("icmp", "tcp", "udp", "sctp"),
    "via": ("icmp", "tcp", "udp", "sctp"),
}


_OF_ONE_VERSION = {"arp": 4, "nd": 6}


def _bounds(context: Context, entry: schema.Expectation, path: Path, protocol: str) -> tuple[str, ...] | None:
    """Check what is asked of packets that get through; the names of ``via``."""
    given = {
        "ttl": entry.ttl, "via": entry.via, "mtu": entry.mtu, "latencyMs": entry.latency_ms,
        "lossPercent": entry.loss_percent,
    }  # fmt: skip
    for key, value in given.items():
        if value is None:
            continue
        if entry.verdict != "reach":
            message = f"`{key}` is about packets that arrive, and `verdict` is {entry.verdict}"
            context.report((*path, key), message, f"take `{key}` out, or write another `verdict`", key=True)
        elif protocol not in _ASKED_OF[key]:
            message = f"`{key}` is not measured by `{protocol}`"
            context.report((*path, key), message, f"write it for {', '.join(_ASKED_OF[key])}", key=True)
    if entry.via is None:
        return None
    hosts = [*context.declared.of_kind("node"), *context.declared.of_kind("router")]
    for i, name in enumerate(entry.via):
        if name not in hosts:
            message = f"there is no node or router {quote(name)} that could forward"
            context.report((*path, "via", i), message, did_you_mean(name, hosts))
    return tuple(entry.via)


def _ports(context: Context, entry: schema.Expectation, path: Path, protocol: str) -> list[int]:
    value = 0 if protocol in ("icmp", *_OF_ONE_VERSION) else getattr(entry, protocol)
    ports = value if isinstance(value, list) else [value or 0]
    seen = set[int]()
    for i, port in enumerate(ports):
        if port in seen:
            context.report((*path, protocol, i), f"port {port} is in the list twice", "keep one of the two")
        seen.add(port)
    return ports


def _families(context: Context, entry: schema.Expectation, path: Path, protocol: str) -> tuple[int, ...]:
    if protocol in _OF_ONE_VERSION:
        return _link_family(context, entry, path, protocol)
    if entry.family is None:
        return context.versions
    version = 4 if entry.family == "ipv4" else 6
    if version not in context.versions and context.intact("networking", "ipFamily"):
        message = f"`family` is {entry.family}, and the lab has {written(context.versions)} only"
        context.report((*path, "family"), message, "take this entry out, or write `ipFamily: dual`")
    return (version,)


def _link_family(context: Context, entry: schema.Expectation, path: Path, protocol: str) -> tuple[int, ...]:
    """What asks a link is of one IP version, and cannot be refused: check that the entry fits."""
    version = _OF_ONE_VERSION[protocol]
    other = next(each for each in _OF_ONE_VERSION if each != protocol)
    if entry.family is not None and entry.family != f"ipv{version}":
        message = f"`{protocol}` is of IPv{version}, and `family` is {entry.family}"
        context.report((*path, "family"), message, f"take `family` out, or write `{other}: true`")
    elif version not in context.versions and context.intact("networking", "ipFamily"):
        message = f"`{protocol}` is of IPv{version}, and the lab has {written(context.versions)} only"
        context.report((*path, protocol), message, f"write `{other}: true`, or `ipFamily: dual`", key=True)
    if entry.verdict == "refuse":
        message = f"nobody can refuse `{protocol}`: who has the address answers, or nobody does"
        context.report((*path, "verdict"), message, "write `reach` or `drop`")
    return (version,)


def _source(context: Context, entry: schema.Expectation, path: Path, families: tuple[int, ...]) -> None:
    if entry.source is None or entry.source == "any":
        return
    if entry.verdict == "drop":
        message = "the receiver sees no address of what is dropped"
        context.report((*path, "source"), message, "take `source` out, or write another `verdict`", key=True)
        return
    if entry.source not in ("own", "node"):
        address = ip_address(entry.source)
        if address.version not in families:
            message = f"`source` {address} is IPv{address.version}, and this entry is about {written(families)}"
            context.report((*path, "source"), message, f"write `family: ipv{address.version}` or another address")
        elif len(families) > 1:
            context.report(
                (*path, "source"),
                f"`source` {address} fits one of two IP versions",
                f"write `family: ipv{address.version}`, too",
            )
