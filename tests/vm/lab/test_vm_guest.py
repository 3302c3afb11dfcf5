"""What the guest of ``scripts/vm`` is: Debian's kernel, with its modules, over this machine's files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vm, pytest.mark.kernel]

# What "ip link add" is told besides the name.
KINDS = {
    "dummy": "type dummy",
    "wireguard": "type wireguard",
    "vxlan": "type vxlan id 7 dstport 4789",
    "ipip": "type ipip local 127.0.0.1 remote 127.0.0.2",
    "vlan": "link under type vlan id 7",
    "ipvlan": "link under type ipvlan",
    "vrf": "type vrf table 7",
}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def test_it_runs_debians_kernel() -> None:
    assert "Debian" in os.uname().version


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_link_that_is_a_module_is_there_when_it_is_asked_for(kind: str) -> None:
    ip("netns", "add", "trial")
    try:
        ip("-n", "trial", "link", "add", "under", "type", "veth", "peer", "name", "other")
        ip("-n", "trial", "link", "add", "it", *KINDS[kind].split())
    finally:
        ip("netns", "del", "trial")


def test_what_it_writes_stays_in_its_memory() -> None:
    root = next(line for line in Path("/proc/self/mounts").read_text().splitlines() if line.split()[1] == "/")
    options = dict(part.partition("=")[::2] for part in root.split()[3].split(","))
    assert root.split()[2] == "overlay"
    assert options["upperdir"].startswith("/over/")
    Path("/var/lib/podnet-trial").mkdir()
    Path("/var/lib/podnet-trial").rmdir()
