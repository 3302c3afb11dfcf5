"""Which packets must get through: the Kubernetes network model, changed by the lab's own ``expect``.

The model (kubernetes.io, "The Kubernetes network model"): pods reach all pods on all nodes without NAT, agents
on a node reach the pods, and a pod sees itself under the address that others see.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from podnet.model.probe import Check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podnet.model.lab import Lab
    from podnet.model.topology import Expectation

__all__ = ["PROTOCOLS", "derive"]

PROTOCOLS = ("icmp", "tcp", "udp")

_Key = tuple[str, str, str, int, int]


def derive(lab: Lab, protocols: Sequence[str] = PROTOCOLS) -> list[Check]:
    """All checks of a lab, those of the model first, then those that only the file asks for, in file order.

    An entry of ``expect`` replaces the check with the same sender, receiver, protocol, port and IP version.
    ICMP and a TCP or UDP entry without a port stand for the model's own check; a port is a check of its own.
    """
    checks: dict[_Key, Check] = {}
    for source, target in _pairs(lab):
        for version, protocol in product(lab.versions, protocols):
            checks[source, target, protocol, 0, version] = Check(source, target, protocol, version)
    for entry in lab.expect:
        if entry.protocol in protocols:
            for check in _expanded(entry, lab.versions):
                checks[check.source, check.target, check.protocol, check.port, check.version] = check
    return list(checks.values())


def _pairs(lab: Lab) -> Iterator[tuple[str, str]]:
    """Node to pod, pod to node, pod to pod, pod to itself; nodes among each other are not the model's business."""
    ends = [target for target in lab.targets if target.kind in ("node", "pod")]
    for source, target in product(ends, ends):
        if "pod" in (source.kind, target.kind):
            yield source.name, target.name


def _expanded(entry: Expectation, versions: Sequence[int]) -> Iterator[Check]:
    port = 0 if entry.protocol == "icmp" else entry.port
    for source, target, version in product(entry.sources, entry.targets, versions):
        if version in entry.families:
            yield Check(
                source=source,
                target=target,
                protocol=entry.protocol,
                version=version,
                port=port,
                verdict=entry.verdict,
                seen=entry.source,
                listen=port == 0,
                origin="file",
                line=entry.line,
            )
