"""The tunnels that not every kernel has, against Debian's: the table is the one of tests/kernel/contract."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tunnel_cases import CASES, PEER_ONE, PEER_TWO, PUBLIC, A, build, hold, keys, rows

from podnet.errors import KernelError
from podnet.kernel.linux import LinuxKernel
from podnet.kernel.objects import Netns
from podnet.kernel.schedule import Op

pytestmark = [pytest.mark.vm, pytest.mark.kernel]


@pytest.fixture
def linux(tmp_path: Path) -> Iterator[LinuxKernel]:
    real = LinuxKernel(keys=keys(tmp_path))
    try:
        yield real
    finally:
        if A in real.namespaces():
            real.apply([Op("delete", Netns(A))])
        real.close()


@pytest.mark.parametrize(("name", "requirement"), rows("wireguard", "ipip", "vxlan over IPv6"))
def test_on_debians_kernel(linux: LinuxKernel, name: str, requirement: str) -> None:
    hold(linux, name, requirement)


def _ask(*command: str) -> str:
    return subprocess.run(["ip", "netns", "exec", A, *command], capture_output=True, text=True, check=True).stdout


def test_wireguard_as_wg_sees_it(linux: LinuxKernel) -> None:
    build(linux, CASES["wireguard"])
    device, *peers = [line.split("\t") for line in _ask("wg", "show", "over0", "dump").splitlines()]
    assert device[1:3] == [PUBLIC, "51820"]
    assert sorted((row[0], row[2], row[3]) for row in peers) == sorted(
        [(PEER_ONE, "192.0.2.2:51820", "10.2.0.0/24,fd02::/64"), (PEER_TWO, "[fd00::3]:51820", "10.3.0.0/24")]
    )


def test_ipip_as_ip_sees_it(linux: LinuxKernel) -> None:
    build(linux, CASES["ipip"])
    [link] = json.loads(_ask("ip", "-j", "-d", "link", "show", "over0"))
    assert link["linkinfo"]["info_kind"] == "ipip"
    assert link["linkinfo"]["info_data"]["local"] == "192.0.2.1"
    assert link["mtu"] == 1480


def test_many_peers_are_read_whole(linux: LinuxKernel) -> None:
    """More than fit one netlink message."""
    from base64 import b64encode

    from podnet.kernel.objects import Peer

    build(linux, CASES["wireguard"])
    many = [
        Peer(
            A, "over0", "wireguard", b64encode(number.to_bytes(32, "big")).decode(), f"192.0.3.{number}:51820",
            (f"10.{number}.0.0/24", f"10.{number}.1.0/24", f"fd00:{number}::/64"),
        )
        for number in range(1, 251)
    ]  # fmt: skip
    linux.apply([Op("add", each) for each in many])
    found = linux.observe([A])
    assert [found[each.key] for each in many] == many


def test_without_its_private_key_a_device_is_refused_by_name(tmp_path: Path) -> None:
    kernel = LinuxKernel(keys=str(tmp_path))
    try:
        with pytest.raises(KernelError, match=r"no private key for .* 'podnet rekey' makes new ones"):
            build(kernel, CASES["wireguard"])
    finally:
        kernel.apply([Op("delete", Netns(A))])
        kernel.close()
