"""Under which address a target is probed, and which sender's address a receiver should see."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podnet.model.lab import Lab, Target
    from podnet.model.probe import Check

__all__ = ["Sources", "described", "primary"]


def primary(lab: Lab, target: Target, version: int) -> str | None:
    """The address that others use for a target: its first one that is not link-local.

    For a node the address in the underlay (Kubernetes: InternalIP), not the gateway address on its bridge,
    which is told by having pods in its network; a node with nothing else is known by its gateway address.
    """
    found = [a for a in target.addresses(version) if not a.ip.is_link_local and not a.ip.is_loopback]
    if target.kind == "node":
        pods = [a.ip for pod in lab.of_kind("pod") if pod.node == target.name for a in pod.addresses(version)]
        found.sort(key=lambda a: any(ip in a.network for ip in pods))
    return str(found[0].ip) if found else None


class Sources:
    """The senders' addresses that receivers of a lab may see, looked up once per sender."""

    def __init__(self, lab: Lab) -> None:
        self._targets = {target.name: target for target in lab.targets}
        self._known: dict[tuple[str, str, int], frozenset[str]] = {}

    def fits(self, check: Check, observed: str) -> bool:
        """Whether the address that the receiver saw, in canonical text, is what the check expects."""
        if check.seen == "any":
            return True
        key = (check.source, check.seen, check.version)
        if key not in self._known:
            self._known[key] = self._expected(*key)
        return observed in self._known[key]

    def _expected(self, source: str, seen: str, version: int) -> frozenset[str]:
        if seen not in _OWNED:
            return frozenset({str(ip_address(seen))})
        target = self._targets[source]
        if seen == "node" and target.kind == "pod":
            target = self._targets[target.node]
        return frozenset(str(a.ip) for a in target.addresses(version))


_OWNED = {"own": "the sender's own address", "node": "an address of the sender's node"}


def described(seen: str) -> str:
    """An expected source address in words."""
    return _OWNED.get(seen, seen)
