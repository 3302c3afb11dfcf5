"""What nft is asked while others write rules: an answer, not that it was interrupted."""

from __future__ import annotations

import os

import pytest

from podnet.kernel import nft
from podnet.kernel.netns import anonymous

pytestmark = pytest.mark.kernel


def write(number: int) -> None:
    element = f"element inet t m {{ 10.0.1.{number} }}\n"
    for _ in range(70):
        nft.run("", f"add {element}")
        nft.run("", f"delete {element}")


def test_looking_while_others_write() -> None:
    """Without another try, one in 180 of these looks fails."""
    with anonymous():
        nft.run("", "add table inet t\nadd set inet t m { type ipv4_addr ; }\nadd element inet t m { 10.0.0.9 }\n")
        writers = []
        for number in range(6):
            pid = os.fork()
            if pid == 0:
                try:
                    write(number)
                finally:
                    os._exit(0)
            writers.append(pid)
        try:
            while os.waitpid(writers[0], os.WNOHANG)[0] == 0:
                for _ in range(20):
                    assert "10.0.0.9" in nft.run("", "get element inet t m { 10.0.0.9 }\n")
        finally:
            for pid in writers[1:]:
                os.waitpid(pid, 0)
