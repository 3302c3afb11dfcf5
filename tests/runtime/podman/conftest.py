"""A host with podman for every test, which ends with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from host import Host
from own_machine import OwnMachine, missing


@pytest.fixture
def conflist() -> dict[str, Any]:
    """A network as podman's own, by podnet. CNI 1.0.0 is the newest that podman 4.3 knows."""
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
                "ipam": {"type": "podnet", "ranges": [[{"subnet": "10.89.0.0/24"}], [{"subnet": "fd00:89::/64"}]]},
                "capabilities": {"portMappings": True, "ips": True, "mac": True, "aliases": True},
            }
        ],
    }


@pytest.fixture
def host(machine: OwnMachine, conflist: dict[str, Any], image: Path, cgroup: str) -> Host:
    """A host that has the image and the network."""
    if why := missing("podman", "conmon", "runc"):
        pytest.fail(why)
    made = Host(machine, cgroup)
    made.configure(conflist)
    made.prepare(image)
    return made
