"""The sample conflists of cni/examples work as they are: a port is mapped, CHECK is quiet, DEL leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel

FOLDER = Path(__file__).parents[3] / "cni" / "examples"
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.conflist")))
def test_a_sample_works(machine: Any, name: str) -> None:
    document = json.loads((FOLDER / name).read_text())
    for plugin in document["plugins"]:
        if "ipam" in plugin:  # where else the test would write to the machine's own state
            plugin["ipam"]["dataDir"] = str(machine.folder / "ipam")
    network = machine.network(*document["plugins"], name=document["name"], version=document["cniVersion"])
    machine.ports = PORTS
    result = machine.add(network, machine.container())
    address = result["ips"][0]["address"].partition("/")[0]
    assert f": {address} . 80 }}" in machine.rules()
    assert any(route["dst"] == "default" for route in machine.ip("route", pod="beside-a"))
    machine.check(network, machine.container())
    machine.delete(network, machine.container())
    assert machine.links("beside-a") == {"lo"}
    assert f"{address} " not in machine.rules()
