"""none: nodes do not reach each other's pods, unless by the file's own routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.fabric import Site, Terms, Way
    from podnet.kernel.objects import KernelObject

__all__ = ["CARRIES", "NEEDS", "node", "overhead", "router"]

NEEDS: tuple[str, ...] = ()
CARRIES = (4, 6)


def overhead(versions: tuple[int, ...]) -> int:
    """Nothing is put around a packet."""
    return 0


def node(terms: Terms, here: Site, ways: Sequence[Way]) -> list[KernelObject]:
    """Nothing."""
    return []


def router(netns: str, dev: str, other: Site, hops: dict[int, str]) -> list[KernelObject]:
    """Nothing."""
    return []
