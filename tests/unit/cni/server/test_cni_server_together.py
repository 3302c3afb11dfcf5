"""What calls do together: whoever comes while the kernel waits shares the next wait, and gets his own error only."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from podnet.cni.server import protocol
from podnet.cni.server.together import Shared
from podnet.errors import KernelError


class Slow:
    """A deletion that waits as the kernel does, until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.began, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, names: Sequence[str]) -> list[KernelError | None]:
        self.batches.append(list(names))
        self.began.release()
        assert self.go.acquire(timeout=30)
        return [KernelError(f"cannot delete {name}") if name == "bad" else None for name in names]


def test_those_that_come_meanwhile_go_together() -> None:
    slow = Slow()
    shared = Shared("delete", slow)
    outcomes: dict[str, str] = {}

    def delete(name: str) -> None:
        try:
            shared.do(name)
            outcomes[name] = "gone"
        except KernelError as error:
            outcomes[name] = str(error)

    threads = [threading.Thread(target=delete, args=("first",))]
    threads[0].start()
    assert slow.began.acquire(timeout=30)
    for name in ("a", "bad", "b"):
        threads.append(threading.Thread(target=delete, args=(name,)))
        threads[-1].start()
        while sum(map(len, shared._waiting.values())) < len(threads) - 1:
            threading.Event().wait(0.001)
    slow.go.release()
    slow.go.release()
    for thread in threads:
        thread.join(30)
    assert slow.batches == [["first"], ["a", "bad", "b"]]
    assert outcomes == {"first": "gone", "a": "gone", "b": "gone", "bad": "cannot delete bad"}
    assert (shared._waiting, shared._turns) == ({}, {})


def test_an_error_of_all_reaches_all() -> None:
    def broken(_names: Sequence[str]) -> list[KernelError | None]:
        raise KernelError("no socket")

    with pytest.raises(KernelError, match="cannot delete veth1: no socket"):
        Shared("delete", broken).do("veth1")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", {}),
        (b"A=1\0B=2=3\0", {"A": "1", "B": "2=3"}),
        (b"A=1\0A=2\0", {"A": "1"}),
        (b"nothing\0=\0A=\xff\0", {"": "", "A": "\udcff"}),
        (b"A=", {"A": ""}),
    ],
)
def test_environments(data: bytes, found: dict[str, str]) -> None:
    assert protocol.environ_of(data) == found
    if "" not in found:
        assert protocol.environ_of(protocol.packed(found)) == found
