"""The pytest plugin: ``@pytest.mark.podnet("topology.yaml")`` and the fixture ``lab``.

pytest loads it wherever podnet is installed, so that it imports nothing of podnet before a test asks for a lab.
"""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from podnet.testing.lab import RunningLab

__all__ = ["lab", "pytest_configure"]

_SCOPES = ("session", "module", "function")
_numbers = count(1)
_labs = pytest.StashKey[dict[str, "RunningLab"]]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "podnet(topology, scope='module'): run the lab of a topology file for a test; scope: session, module, function",
    )


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> RunningLab:
    """The lab of the test's marker, up; it is taken down with the marker's scope."""
    marker = request.node.get_closest_marker("podnet")
    if marker is None or len(marker.args) != 1:
        pytest.fail('the fixture lab needs @pytest.mark.podnet("topology.yaml")', pytrace=False)
    scope = marker.kwargs.get("scope", "module")
    if scope not in _SCOPES:
        pytest.fail(f"podnet: scope is one of {', '.join(_SCOPES)}, not {scope!r}", pytrace=False)
    owner = {"session": request.session, "module": request.node.getparent(pytest.Module), "function": request.node}[
        scope
    ]
    path = str((request.path.parent / marker.args[0]).resolve())
    held: dict[str, RunningLab] = owner.stash.setdefault(_labs, {})
    if path not in held:
        held[path] = _up(path, owner)
    return held[path]


def _up(path: str, owner: pytest.Collector | pytest.Item) -> RunningLab:
    """Build a lab under a name of its own, so that workers of pytest-xdist do not meet."""
    from dataclasses import replace

    from podnet.cli.output import lab_kernel
    from podnet.errors import PodnetError
    from podnet.kernel.capabilities import require
    from podnet.lab import record
    from podnet.lab.converge import up
    from podnet.lab.teardown import down
    from podnet.testing.lab import RunningLab
    from podnet.topology.load import load

    try:
        topology = load(path)
        # A lab's name has 40 characters at most; a process has a lab for each scope that asks.
        name = f"{topology.name[:24].rstrip('-')}-{os.getpid()}-{next(_numbers)}"
        topology = replace(topology, name=name)
        require()

        def remove() -> None:
            with lab_kernel(name) as (kernel, supervisor):
                down(name, kernel, supervisor.shutdown)

        owner.addfinalizer(remove)
        with lab_kernel(name) as (kernel, supervisor):
            outcome = up(topology, kernel)
            if not any(target.containers for target in outcome.lab.targets):
                supervisor.shutdown()
        entry = record.find(name)
    except PodnetError as error:
        pytest.fail(f"podnet: {error}", pytrace=False)
    found = entry.lab
    return RunningLab(found, sorted({*entry.namespaces, *(target.netns for target in found.targets)}))
