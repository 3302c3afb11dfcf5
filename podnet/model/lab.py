"""The lab: a topology whose every name has its namespace, its interfaces and its addresses.

This is what ``up`` records, what ``status`` prints and what the probes are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from podnet.model.topology import Expectation

__all__ = ["Interface", "InterfaceAddress", "Lab", "Target"]

InterfaceAddress = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface of a target; ``mtu`` in bytes, ``mac`` as ``aa:bb:cc:dd:ee:ff``."""

    name: str
    mac: str
    mtu: int
    addresses: tuple[InterfaceAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """Something that packets are sent from and to: a pod, a node, a client or a router.

    ``netns`` is the name under ``/run/netns``; the empty name is the machine's own namespace.
    ``node`` is the name of the pod's node, empty for all others. ``containers`` of a node or router are its daemons.
    """

    name: str
    kind: str  # pod | node | client | router
    netns: str
    interfaces: tuple[Interface, ...]
    node: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    containers: tuple[str, ...] = ()

    def addresses(self, version: int) -> tuple[InterfaceAddress, ...]:
        """All addresses of one IP version, in the order of the interfaces."""
        return tuple(a for i in self.interfaces for a in i.addresses if a.version == version)


@dataclass(frozen=True, slots=True)
class Lab:
    """A placed topology."""

    name: str
    versions: tuple[int, ...]
    targets: tuple[Target, ...]
    expect: tuple[Expectation, ...] = ()

    def target(self, name: str) -> Target | None:
        """The target of that name, or ``None``."""
        return next((t for t in self.targets if t.name == name), None)

    def of_kind(self, kind: str) -> tuple[Target, ...]:
        """All targets of one kind, in file order."""
        return tuple(t for t in self.targets if t.kind == kind)
