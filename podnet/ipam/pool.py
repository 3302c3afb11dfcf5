"""Which address comes next: pools as pure arithmetic.

Addresses are handed out in rising order from the first host address; the gateway, the network's own address
and IPv4's broadcast address are never handed out. A taken address is skipped by a set look-up, and a search
starts where the last one ended, so filling a pool is linear in its size as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from podnet.errors import PodnetError

__all__ = ["Pool", "PoolExhaustedError"]


class PoolExhaustedError(PodnetError):
    """Every address of a pool is taken."""

    exit_code = 2


@dataclass(slots=True)
class Pool:
    """The addresses of one network that attachments may get; its first host address is the gateway."""

    network: IPv4Network | IPv6Network
    taken: set[int] = field(default_factory=set)
    _next: int = 0

    @property
    def gateway(self) -> IPv4Interface | IPv6Interface:
        """The first host address, with the network's prefix length."""
        return self._interface(int(self.network.network_address) + 1)

    @property
    def first(self) -> int:
        """The first address that is handed out, as a number."""
        return int(self.network.network_address) + 2

    @property
    def last(self) -> int:
        """The last address that is handed out, as a number."""
        broadcast = int(self.network.broadcast_address)
        return broadcast - 1 if self.network.version == 4 else broadcast

    def holds(self, address: int) -> bool:
        """Whether an address is one that this pool hands out."""
        return self.first <= address <= self.last

    def claim(self, address: int) -> bool:
        """Take one address; ``False`` where it is taken already."""
        if address in self.taken:
            return False
        self.taken.add(address)
        return True

    def take(self) -> IPv4Interface | IPv6Interface:
        """Take the lowest free address. Raises ``PoolExhaustedError``."""
        candidate = max(self._next, self.first)
        while candidate in self.taken:
            candidate += 1
        if candidate > self.last:
            msg = f"no address is left in {self.network}: all {self.last - self.first + 1} are taken"
            raise PoolExhaustedError(msg)
        self.taken.add(candidate)
        self._next = candidate + 1
        return self._interface(candidate)

    def _interface(self, number: int) -> IPv4Interface | IPv6Interface:
        if self.network.version == 4:
            return IPv4Interface((number, self.network.prefixlen))
        return IPv6Interface((number, self.network.prefixlen))
