"""Tunnels on the kernel in memory, and on the real one as far as every kernel has them; tests/vm has the rest."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from tunnel_cases import CASES, A, build, hold, rows

from podnet.kernel.fake import FakeKernel
from podnet.kernel.linux import LinuxKernel
from podnet.kernel.objects import Netns
from podnet.kernel.schedule import Op


@pytest.mark.parametrize(("name", "requirement"), rows(*CASES))
def test_in_memory(name: str, requirement: str) -> None:
    hold(FakeKernel(), name, requirement)


@pytest.fixture
def linux() -> Iterator[LinuxKernel]:
    real = LinuxKernel()
    try:
        yield real
    finally:
        if A in real.namespaces():
            real.apply([Op("delete", Netns(A))])
        real.close()


@pytest.mark.kernel
@pytest.mark.parametrize(("name", "requirement"), rows("vxlan", "vxlan over IPv6"))
def test_on_the_real_kernel(linux: LinuxKernel, name: str, requirement: str) -> None:
    hold(linux, name, requirement)


def _ask(*command: str) -> list[dict[str, object]]:
    done = subprocess.run(["ip", "netns", "exec", A, *command], capture_output=True, text=True, check=True)
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


@pytest.mark.kernel
def test_vxlan_as_ip_and_bridge_see_it(linux: LinuxKernel) -> None:
    build(linux, CASES["vxlan"])
    [link] = _ask("ip", "-j", "-d", "link", "show", "over0")
    assert (link["mtu"], link["address"]) == (1430, "02:00:00:00:00:01")
    assert link["linkinfo"]["info_kind"] == "vxlan"  # type: ignore[index] - JSON
    data = link["linkinfo"]["info_data"]  # type: ignore[index] - JSON
    assert (data["id"], data["local"], data["port"], data["learning"]) == (7, "192.0.2.1", 8472, False)
    entries = {row["mac"]: row for row in _ask("bridge", "-j", "fdb", "show", "dev", "over0")}
    assert {mac: row["dst"] for mac, row in entries.items()} == {
        "02:00:00:00:00:02": "192.0.2.2",
        "02:00:00:00:00:03": "192.0.2.3",
    }
    assert all(row["state"] == "permanent" for row in entries.values())
