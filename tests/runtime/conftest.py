"""What the tests with real runtimes share: podnet's executables, and a machine of their own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from image import archive
from own_machine import OwnMachine, own_machine, until

CHECKOUT = Path(__file__).resolve().parents[2]
# The executable in Python is always there, the other where it was built.
EXECUTABLES = [path for path in (CHECKOUT / "cni" / name for name in ("podnet-python", "podnet")) if path.is_file()]


@pytest.fixture(params=EXECUTABLES, ids=lambda path: path.name)
def executable(request: pytest.FixtureRequest) -> Path:
    """Each way in which podnet can be called."""
    path: Path = request.param
    return path


@pytest.fixture
def machine(executable: Path, cgroup: str) -> Iterator[OwnMachine]:  # the cgroup ends after it
    """A machine of its own, with the executable and the reference plugins."""
    reference = [(path.name, path) for path in sorted(Path("/usr/lib/cni").glob("*"))]
    with own_machine([("podnet", executable), *reference]) as made:
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
