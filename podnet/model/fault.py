"""What is wrong with a running lab on purpose, besides what its topology says."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Fault"]


class Fault(NamedTuple):
    """One thing that a command broke, until a command or ``down`` undoes it.

    ``kind`` is ``impair`` (``target``'s ``interface`` sends by ``settings``, as ``kernel.impairment`` has them),
    ``link`` (that interface is down), ``node`` (the node ``target`` is stopped), or ``partition`` (the nodes of one of
    ``groups`` reach none of the others).
    """

    kind: str
    target: str = ""
    interface: str = ""
    settings: tuple[tuple[str, int], ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def where(self) -> str:
        """What it is about, as commands name it."""
        if self.kind == "partition":
            return " | ".join(",".join(group) for group in self.groups)
        return f"{self.target}:{self.interface}" if self.interface else self.target
