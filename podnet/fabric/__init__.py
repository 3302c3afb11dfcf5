"""Fabrics: how nodes reach each other's pod CIDRs. One file per backend, all with the same small surface."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.kernel.objects import KernelObject
    from podnet.model.topology import Network

__all__ = ["Fabric", "Site", "Terms", "Way", "fabric_of", "outer"]

_FILES = {"host-gw": "hostgw", "vxlan": "vxlan", "wireguard": "wireguard", "ipip": "ipip", "bgp": "bgp", "none": "none"}


class Site(NamedTuple):
    """A node as fabrics see it.

    ``addresses`` are those in the underlay and ``gateways`` those on the bridge, by IP version, without length.
    ``dev`` is its underlay interface; ``tunnel``, ``label`` and ``mac`` are name, altname and MAC of the tunnel that a
    fabric may make on it. ``key`` is its public key.
    """

    netns: str
    dev: str
    addresses: dict[int, str]
    cidrs: tuple[Network, ...]
    gateways: dict[int, str]
    tunnel: str
    label: str
    mac: str
    key: str = ""


class Way(NamedTuple):
    """From one node to another: ``hops`` are the next hops by IP version, the other's own addresses if ``direct``."""

    to: Site
    hops: dict[int, str]
    direct: bool


class Terms(NamedTuple):
    """What holds for all nodes: ``mtu`` is the pods' in bytes, ``port`` 0 where the file leaves it to the fabric."""

    versions: tuple[int, ...]
    mtu: int
    group: int
    vni: int = 1
    port: int = 0
    direct_routing: bool = False


class Fabric(Protocol):
    """The surface of a backend: what its module defines."""

    NEEDS: tuple[str, ...]
    """Names of the kernel capabilities without which it cannot be (``podnet doctor``)."""
    CARRIES: tuple[int, ...]
    """IP versions of the pods' packets."""

    def overhead(self, versions: tuple[int, ...]) -> int:
        """Bytes of the underlay's MTU that it takes for itself, where the underlay has these IP versions."""
        ...

    def node(self, terms: Terms, here: Site, ways: Sequence[Way]) -> list[KernelObject]:
        """What one node needs in order to reach the pods of the others."""
        ...

    def router(self, netns: str, dev: str, other: Site, hops: dict[int, str]) -> list[KernelObject]:
        """What an underlay router needs in order to pass on packets for the pods of a node."""
        ...


def fabric_of(name: str) -> Fabric:
    """The fabric of that name; its module is imported only now."""
    return cast("Fabric", import_module(f"podnet.fabric.{_FILES[name]}"))


def outer(versions: tuple[int, ...]) -> int:
    """The IP version in which a tunnel crosses the underlay: 4 where there is a choice."""
    return 4 if 4 in versions else 6
