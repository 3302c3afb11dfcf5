"""Sysctls that go back, and a link that goes while that is done."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from podnet.cni.plugin import sysctls
from podnet.errors import KernelError
from podnet.ipam.book import Noted, Setting
from podnet.ipam.ledger import Owner, boot_id

NAMES = ("net/ipv4/conf/br0/route_localnet", "net/ipv4/conf/br1/route_localnet")
OWNER = Owner("net", "container", "eth0")
STRUCK = Noted(OWNER, "ports", {}, "", 0, boot_id(), settings=tuple(Setting(name, "1", "0") for name in NAMES))


class Machine:
    """Sysctls that are all 1 when they are looked at; writing to the first of them fails."""

    def __init__(self, number: int) -> None:
        self.number, self.written = number, dict[str, str]()

    def sysctl(self, _name: str) -> str:
        return "1"

    def apply(self, ops: list[Any]) -> None:
        for op in ops:
            if op.object.name == NAMES[0]:
                raise KernelError("cannot set", self.number)
            self.written[op.object.name] = op.object.value


class Book:
    """Nobody else sets any."""

    def before(self, _name: str) -> None:
        return None


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_a_link_that_is_gone_has_nothing_to_put_back(number: int) -> None:
    machine: Any = Machine(number)
    sysctls.put_back(machine, Book(), [STRUCK])  # type: ignore[arg-type]
    assert machine.written == {NAMES[1]: "0"}


def test_any_other_refusal_is_told() -> None:
    machine: Any = Machine(errno.EACCES)
    with pytest.raises(KernelError):
        sysctls.put_back(machine, Book(), [STRUCK])  # type: ignore[arg-type]
