"""Which packets must get through: the Kubernetes network model, changed by the lab's own ``expect``.

The model (kubernetes.io, "The Kubernetes network model"): pods reach all pods on all nodes without NAT, agents
on a node reach the pods, and a pod sees itself under the address that others see.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from podnet.model.probe import Bounds
from podnet.probe.onlink import LINK_PROTOCOLS, neighbours
from podnet.probe.plan import Checks, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from podnet.model.lab import Lab
    from podnet.model.topology import Expectation

__all__ = ["FURTHER", "PROTOCOLS", "derive"]

PROTOCOLS = ("icmp", "tcp", "udp")

# What the model can be asked by besides: more of the same truth, at more cost.
FURTHER = ("sctp", "connect", "http", "dns", "arp", "nd")
# What the file asks comes along with what the model is asked by: else it would be left out unless somebody names it.
_CARRIER = {"connect": "tcp", "http": "tcp", "dns": "udp", "sctp": "icmp", "arp": "icmp", "nd": "icmp"}


def derive(
    lab: Lab,
    protocols: Sequence[str] = PROTOCOLS,
    *,
    senders: Collection[str] | None = None,
    receivers: Collection[str] | None = None,
) -> Checks:
    """All checks of a lab, those of the model first, then those that only the file asks for, in file order.

    An entry of ``expect`` replaces the check with the same sender, receiver, protocol, port and IP version.
    ICMP and a TCP or UDP entry without a port stand for the model's own check; a port is a check of its own.
    Conversations of the file (``connect``, ``http``, ``dns``) come along with the protocol that carries them, its
    ``sctp``, ``arp`` and ``nd`` with ICMP.
    ``senders`` and ``receivers`` keep those between these names only.
    """
    model = _Model(lab, protocols, senders, receivers)
    checks = model.checks
    place: dict[tuple[int, int, str, int, int], int] = {}
    number = {target.name: at for at, target in enumerate(lab.targets)}
    for entry in lab.expect:
        for source, target, kind in _expanded(entry, lab.versions) if _asked(entry.protocol, protocols) else ():
            if not (senders is None or source in senders) or not (receivers is None or target in receivers):
                continue
            key = (number[source], number[target], kind.protocol, kind.port, kind.version)
            index = place.get(key)
            if index is None:
                index = None if kind.port else model.place(key[0], key[1], (kind.version, kind.protocol))
            if index is None:
                place[key] = len(checks)
                checks.add(source, target, kind)
            else:
                checks.replace(index, kind)
    return checks


def _asked(protocol: str, protocols: Sequence[str]) -> bool:
    return protocol in protocols or _CARRIER.get(protocol) in protocols


class _Model:
    """Node to pod, pod to node, pod to pod, pod to itself; nodes among each other are not the model's business.

    But for ARP and ND: these are asked between all pods and nodes that share a link.

    Where a check is follows by arithmetic: a dictionary of a million checks would take 200 MB.
    """

    def __init__(
        self, lab: Lab, protocols: Sequence[str], senders: Collection[str] | None, receivers: Collection[str] | None
    ) -> None:
        self.checks = Checks([target.name for target in lab.targets])
        ends = [(at, target) for at, target in enumerate(lab.targets) if target.kind in ("node", "pod")]
        able = [(at, target) for at, target in ends if receivers is None or target.name in receivers]
        to_all, to_pods = [at for at, _ in able], [at for at, target in able if target.kind == "pod"]
        self._columns = [{at: column for column, at in enumerate(each)} for each in (to_all, to_pods)]
        self._rows: dict[int, tuple[int, bool]] = {}  # where a sender's row begins in a block; whether to pods only
        size = 0
        for at, target in ends:
            if senders is None or target.name in senders:
                self._rows[at] = (size, target.kind == "node")
                size += len(to_pods if target.kind == "node" else to_all)
        self._blocks: dict[tuple[int, str], int] = {}
        self._on_links: dict[tuple[int, int, str], int] = {}
        for version, protocol in product(lab.versions, protocols):
            if LINK_PROTOCOLS.get(protocol) == version:
                self._ask_on_links(lab, protocol, version, {at for at, _ in able})
            elif protocol in (*PROTOCOLS, *FURTHER) and protocol not in LINK_PROTOCOLS:
                self._blocks[version, protocol] = len(self.checks)
                kind = self.checks.number(Kind(protocol, version))
                for source, (_, pods_only) in self._rows.items():
                    self.checks.row(source, to_pods if pods_only else to_all, kind)

    def _ask_on_links(self, lab: Lab, protocol: str, version: int, receivers: Collection[int]) -> None:
        """Each pod and node asks for those that share a link with it. Of others, the model says nothing."""
        kind = self.checks.number(Kind(protocol, version))
        for source, targets in neighbours(lab, version).items():
            if source in self._rows:
                chosen = [target for target in targets if target in receivers]
                self._on_links |= {(source, target, protocol): at for at, target in enumerate(chosen, len(self.checks))}
                self.checks.row(source, chosen, kind)

    def place(self, source: int, target: int, block: tuple[int, str]) -> int | None:
        """The number of the model's check between two ends, or ``None`` where the model asks nothing."""
        if block[1] in LINK_PROTOCOLS:
            return self._on_links.get((source, target, block[1]))
        row, begin = self._rows.get(source), self._blocks.get(block)
        if row is None or begin is None:
            return None
        column = self._columns[row[1]].get(target)
        return None if column is None else begin + row[0] + column


def _expanded(entry: Expectation, versions: Sequence[int]) -> Iterator[tuple[str, str, Kind]]:
    port = 0 if entry.protocol in ("icmp", *LINK_PROTOCOLS) else entry.port
    asked: Bounds | None = Bounds(entry.ttl, entry.via, entry.mtu, entry.latency_ms, entry.loss, entry.within)
    bounds = None if asked == Bounds() else asked
    for source, target, version in product(entry.sources, entry.targets, versions):
        # Nobody asks a link for its own address, but to find duplicates of it.
        if version in entry.families and not (source == target and entry.protocol in LINK_PROTOCOLS):
            kind = Kind(
                entry.protocol, version, port, entry.verdict, entry.source,
                listen=port == 0 or entry.protocol == "sctp", origin="file", line=entry.line, bounds=bounds,
            )  # fmt: skip
            yield source, target, kind
