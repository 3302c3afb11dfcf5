"""Elements of nftables maps that come and go while others are at them."""

from __future__ import annotations

from typing import Any

import pytest

from podnet.cni.plugin import rules
from podnet.errors import KernelError
from podnet.ipam.book import Element

ELEMENT = Element("inet t", "pods4", "10.1.2.2", "goto there")


class Maps:
    """The elements that there are; another attachment's removal adds ours when we have failed ``at`` times."""

    def __init__(self, at: int, *, stuck: bool = False) -> None:
        self.there, self.at, self.stuck = False, at, stuck

    def nft_removal(self, _commands: str) -> None:
        if self.there and not self.stuck:
            self.there = False
            return
        self.at -= 1
        self.there = self.there or self.at == 0
        raise KernelError("Could not process rule", 2)

    def nft(self, _commands: str) -> str:
        if not self.there:
            raise KernelError("No such file or directory", 2)
        return "table inet t { }"


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_element_that_is_put_back_meanwhile_is_no_error(at: int) -> None:
    maps: Any = Maps(at)
    rules.delete(maps, [ELEMENT])
    assert not maps.there


def test_an_element_that_cannot_be_deleted_is_one() -> None:
    maps: Any = Maps(1, stuck=True)
    with pytest.raises(KernelError):
        rules.delete(maps, [ELEMENT])


class Refusing:
    """A machine that adds no element; ``chains`` are those of the table, ``there`` whether the element is listed."""

    def __init__(self, chains: dict[str, str], *, there: bool) -> None:
        self.chains, self.there = chains, there

    def nft_chains(self, _table: str) -> dict[str, str]:
        return self.chains

    def nft(self, commands: str) -> str:
        if commands.startswith("get") and self.there:
            return "table inet t { }"
        raise KernelError("refused", 16)


@pytest.mark.parametrize(
    ("chains", "there"),
    [({}, False), ({"there": ""}, True)],
    ids=["its table is yet to be made", "it is there with another value"],
)
def test_what_cannot_be_put_back_and_need_not_is_no_error(chains: dict[str, str], there: bool) -> None:
    refusing: Any = Refusing(chains, there=there)
    rules.put_back(refusing, [ELEMENT])


def test_what_cannot_be_put_back_is_an_error() -> None:
    refusing: Any = Refusing({"there": ""}, there=False)
    with pytest.raises(KernelError, match="refused"):
        rules.put_back(refusing, [ELEMENT])
