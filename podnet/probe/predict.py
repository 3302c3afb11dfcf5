"""Which hosts a packet should pass, by the model alone: who shares a network with whom. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podnet.model.lab import Lab, Target

__all__ = ["Predictor"]

_FORWARDING = ("node", "router")


class Predictor:
    """The ways through one lab for one IP version; routes that the file adds by hand are not looked at."""

    def __init__(self, lab: Lab, version: int) -> None:
        self._lab = lab
        self._known: dict[tuple[str, str], tuple[str, ...] | None] = {}
        self._networks = {
            target.name: {a.network for a in target.addresses(version) if not a.ip.is_link_local}
            for target in lab.targets
        }  # fmt: skip
        self._forwarding = [target.name for target in lab.targets if target.kind in _FORWARDING]

    def way(self, source: Target, target: Target) -> tuple[str, ...] | None:
        """The names from the sender to the receiver, both included; ``None`` where no host joins them.

        The shortest way; of two equally short ones the one through what comes first in the file.
        """
        if source.name == target.name:
            return (source.name,)
        # What lies between two pods is what lies between their nodes.
        first = source.node if source.kind == "pod" and source.node else source.name
        last = target.node if target.kind == "pod" and target.node else target.name
        if source.kind == "client" and last != target.name:
            middle = self._from_client(source, last)
        else:
            middle = self._between(first, last)
        if middle is None:
            return None
        head = () if first == source.name else (source.name,)
        tail = () if last == target.name else (target.name,)
        return (*head, *middle, *tail)

    def _from_client(self, source: Target, node: str) -> tuple[str, ...] | None:
        """To a node, but not straight: only a router knows the node's pods."""
        for router in self._lab.of_kind("router"):
            if self._networks[source.name] & self._networks[router.name]:
                rest = self._between(router.name, node)
                return None if rest is None else (source.name, *rest)
        return None

    def _between(self, first: str, last: str) -> tuple[str, ...] | None:
        key = (first, last)
        if key not in self._known:
            self._known[key] = self._shortest(first, last)
        return self._known[key]

    def _shortest(self, first: str, last: str) -> tuple[str, ...] | None:
        came = {first: ""}
        queue = deque([first])
        while queue:
            here = queue.popleft()
            if here == last:
                way = [here]
                while came[way[-1]]:
                    way.append(came[way[-1]])
                return tuple(reversed(way))
            for name in (last, *self._forwarding):
                if name not in came and self._networks.get(here, set()) & self._networks.get(name, set()):
                    came[name] = here
                    queue.append(name)
        return None
