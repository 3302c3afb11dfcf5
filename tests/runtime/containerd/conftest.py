"""A node for every test, which ends with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from node import Node
from own_machine import OwnMachine, missing, until


@pytest.fixture
def conflist() -> dict[str, Any]:
    """A cluster's network. CNI 1.0.0 is the newest that containerd 1.6 knows."""
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "podnet",
                "bridge": "cni0",
                "isDefaultGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {"type": "podnet", "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]]},
                "capabilities": {"portMappings": True, "dns": True, "bandwidth": True},
            }
        ],
    }


@pytest.fixture
def node(machine: OwnMachine, conflist: dict[str, Any], image: Path, cgroup: str, tmp_path: Path) -> Node:
    """A node with containerd ready for pods."""
    if why := missing("containerd", "containerd-shim-runc-v2", "ctr", "runc"):
        pytest.fail(why)
    made = Node(machine, tmp_path, cgroup)
    made.configure(conflist)
    made.start()
    made.load(image)
    until(lambda: made.network_ready()[0], "NetworkReady")
    return made
