"""A machine that refuses one of its changes, for the tests that an ADD which fails half-way leaves nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from podnet.cni.plugin.machine import LinkSeen, Machine
from podnet.errors import KernelError
from podnet.kernel.conntrack import Flow
from podnet.kernel.objects import Address, Route
from podnet.kernel.schedule import Op


class FailingMachine(Machine):
    """A machine on which the N-th change (from 0) fails: before it is done, or after."""

    fail_at, late, done = -1, False, 0

    def _step(self, act: Callable[[], Any]) -> Any:
        cls = type(self)
        number, cls.done = cls.done, cls.done + 1
        if number == cls.fail_at and not cls.late:
            raise KernelError("refused by the test", 5)
        found = act()
        if number == cls.fail_at:
            raise KernelError("refused by the test", 5)
        return found

    def apply(self, ops: Sequence[Op]) -> None:
        for op in ops:
            self._step(lambda op=op: Machine.apply(self, [op]))  # type: ignore[misc]

    def send(self, what: str, messages: Sequence[tuple[int, int, bytes]]) -> None:
        for each in messages:
            self._step(lambda each=each: Machine.send(self, what, [each]))  # type: ignore[misc]

    def set_isolated(self, name: str) -> None:
        self._step(lambda: Machine.set_isolated(self, name))

    def set_promiscuous(self, name: str) -> None:
        self._step(lambda: Machine.set_promiscuous(self, name))

    def pin_mac(self, bridge: LinkSeen) -> None:
        self._step(lambda: Machine.pin_mac(self, bridge))

    def add_address(self, address: Address, *, dad: bool = False, route: bool = True) -> None:
        self._step(lambda: Machine.add_address(self, address, dad=dad, route=route))

    def add_route(self, route: Route) -> None:
        self._step(lambda: Machine.add_route(self, route))

    def forget_flows(self, flows: Sequence[Flow]) -> None:
        self._step(lambda: Machine.forget_flows(self, flows))

    def pass_forward(self, family: int, mark: int) -> None:
        self._step(lambda: Machine.pass_forward(self, family, mark))

    def nft(self, commands: str) -> str:
        found: str = self._step(lambda: Machine.nft(self, commands))
        return found

    def nft_addition(self, commands: str) -> None:
        self._step(lambda: Machine.nft_addition(self, commands))
