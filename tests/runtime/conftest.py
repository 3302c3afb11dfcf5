"""What the tests with real runtimes share: podnet's executables, and a machine of their own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from image import archive
from own_machine import OwnMachine, own_machine, until

CNI = Path(__file__).resolve().parents[2] / "cni"


class Way(NamedTuple):
    """A way in which podnet is called: the executable, and whether its server runs."""

    executable: Path
    served: bool

    def __str__(self) -> str:
        return f"{self.executable.name}-{'warm' if self.served else 'cold'}"


# In Python it is always there; the small executable where set-up has found a compiler.
WAYS = [way for way in (Way(CNI / "podnet-python", False), Way(CNI / "podnet", True)) if way.executable.is_file()]


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """Each way in which podnet can be called."""
    found: Way = request.param
    return found


@pytest.fixture
def machine(way: Way, cgroup: str, tmp_path: Path) -> Iterator[OwnMachine]:  # the cgroup ends after it
    """A machine of its own, with podnet and the reference plugins; and the server, where that belongs to the way."""
    reference = [(path.name, path) for path in sorted(Path("/usr/lib/cni").glob("*"))]
    with own_machine([("podnet", way.executable), *reference]) as made:
        if way.served:
            made.start(CNI / "podnet-python", "serve", log=tmp_path / "server.log")
            until(lambda: made.files("/run/podnet/cni.sock"), "the server listens")
        yield made


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one image of all pods."""
    return archive(tmp_path_factory.mktemp("image") / "busybox.tar")


@pytest.fixture
def cgroup() -> Iterator[str]:
    """The one thing that is not a machine's own: the cgroup below which its containers have theirs."""
    name = f"/podnet-test-{uuid.uuid4().hex[:12]}"
    yield name
    for root in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/")]:
        top = root / name.strip("/")
        for folder in [*sorted(top.rglob("*/"), reverse=True), top] if top.is_dir() else ():
            until(lambda folder=folder: _removed(folder), f"{folder} is empty")


def _removed(folder: Path) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:  # a process of it is still ending
        return False
    return True
