"""Ways through the underlay: from one subnet to another over routers; no I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podnet.model.placement import PlacedRouter, Placement

__all__ = ["Underlay"]


class Underlay:
    """The underlay as a graph of subnets and routers."""

    def __init__(self, placement: Placement) -> None:
        self._routers = placement.routers

    def next_router(self, here: str, there: str) -> PlacedRouter | None:
        """The router in subnet ``here`` that begins the shortest way to ``there``; ``None`` if there is no way."""
        first: dict[str, PlacedRouter | None] = {here: None}
        queue = deque([here])
        while queue:
            subnet = queue.popleft()
            for router in self._routers:
                if subnet not in router.router.subnets:
                    continue
                for neighbour in router.router.subnets:
                    if neighbour not in first:
                        first[neighbour] = first[subnet] or router
                        queue.append(neighbour)
        return first.get(there)

    def gateway(self, subnet: str) -> PlacedRouter | None:
        """The first router in a subnet: the default gateway of what stands there."""
        return next((r for r in self._routers if subnet in r.router.subnets), None)

    @staticmethod
    def addresses_in(router: PlacedRouter, subnet: str) -> dict[int, str]:
        """A router's addresses in one of its subnets, by IP version, as text without prefix length."""
        placed = router.addresses[router.router.subnets.index(subnet)]
        return {address.version: str(address.ip) for address in placed}
