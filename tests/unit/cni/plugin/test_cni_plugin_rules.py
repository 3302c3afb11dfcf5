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
