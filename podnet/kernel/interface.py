"""What a kernel can do for podnet: the real one and the in-memory one have this shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from podnet.kernel.objects import Attached, NftTable, State
from podnet.kernel.schedule import Op

__all__ = ["Attacher", "Kernel"]


class Kernel(Protocol):
    """Observe and apply; nothing else touches namespaces, links, routes, rules or processes."""

    def namespaces(self) -> set[str]:
        """The names of all named network namespaces on the machine, whoever made them."""
        ...

    def observe(
        self,
        names: Iterable[str],
        sysctls: Iterable[tuple[str, str]] = (),
        tables: Iterable[NftTable] = (),
        neighbours: Iterable[str] = (),
        qdiscs: Iterable[str] = (),
    ) -> State:
        """What is in these namespaces now; names that do not exist are left out.

        ``""`` is the machine's own namespace. ``sysctls`` are (netns, name) pairs to read besides, those of the
        machine also where ``""`` is not among the names; ``tables``
        are the tables that are wanted, and their namespaces are searched for podnet's tables; ``neighbours`` are
        the namespaces to be searched for podnet's permanent neighbours, which takes the kernel a walk through
        the neighbours of all namespaces each; ``qdiscs`` are those to be searched for impairments. Routes and
        addresses that the kernel made are not reported.
        """
        ...

    def apply(self, ops: Sequence[Op], progress: Callable[[int], None] | None = None) -> None:
        """Carry the operations out in order; ``progress`` is told how many are done.

        Raises ``KernelError`` naming the first one that was refused. Those before it are done; those after
        it that went out in the same batch may be done too.
        """
        ...


class Attacher(Protocol):
    """What has pods attached by CNI plugins, and knows what they attached."""

    def observe(self) -> list[Attached]:
        """All attachments that were made or begun, each with what its plugins say of it now."""
        ...

    def add(self, wanted: Attached) -> None:
        """Attach a pod. Raises ``KernelError`` with the plugin's words; what it made until then is removed."""
        ...

    def delete(self, found: Attached) -> None:
        """Detach a pod. Raises ``KernelError`` with the plugin's words."""
        ...
