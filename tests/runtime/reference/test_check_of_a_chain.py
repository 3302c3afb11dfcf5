"""``podnet cni check`` on a whole chain: ours, and all reference plugins that come after; each says what is its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel

POD = "beside-a"
PODNET = str(Path(sys.executable).with_name("podnet"))
RATES = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000}
# What is damaged, and whose CHECK says so.
DAMAGES = (
    ("nft flush map {table} pods4", "podnet"),
    ("ip link delete {ifb}", "bandwidth"),
    ("iptables -F CNI-FORWARD", "firewall"),
    ("ip -n beside-a link set eth0 promisc off", "tuning"),
)


def cni(machine: Any, verb: str, file: Path, ports: list[dict[str, Any]]) -> tuple[int, str]:
    """One command as a user gives it; its exit code, and what it says where it fails."""
    options = {
        "--netns": POD,
        "--conf": str(file),
        "--path": f"{machine.folder}/bin:/usr/lib/cni",
        "--cache-dir": str(machine.folder / "cache"),
        "--capability-args": json.dumps({"portMappings": ports}),
        **({"--output": "json"} if verb == "add" else {}),
    }
    argv = [PODNET, "cni", verb, *(word for pair in options.items() for word in pair)]
    done = subprocess.run(["ip", "netns", "exec", "beside-node", *argv], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def written(machine: Any, ranges: list[str]) -> Path:
    ours = {"type": "podnet", "bridge": "br0", "isGateway": True, "ipMasq": True}
    ipam = {"type": "podnet", "ranges": [[{"subnet": each}] for each in ranges]}
    file: Path = machine.folder / "net.conflist"
    chain = [
        ours | {"ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth"} | RATES,
        {"type": "firewall", "ingressPolicy": "same-bridge"},
        {"type": "tuning", "dataDir": str(machine.folder / "tuning"), "mac": "02:00:00:00:00:77", "promisc": True,
         "sysctl": {"net.core.somaxconn": "77"}},
    ]  # fmt: skip
    file.write_text(json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": chain}))
    return file


def test_check_of_a_whole_chain(machine: Any) -> None:
    file = written(machine, ["10.88.0.0/24", "fd88::/64"])
    code, output = cni(machine, "add", file, [])
    assert code == 0, output
    ifb = json.loads(output)["interfaces"][-1]["name"]
    assert machine.ip("link", "show", "eth0", pod=POD)[0]["address"] == "02:00:00:00:00:77"
    assert cni(machine, "check", file, [])[0] == 0
    (table,) = (line.split(" ", 1)[1] for line in machine.tool("nft", "list", "tables").splitlines() if "_cni_" in line)
    for damage, plugin in DAMAGES:
        machine.tool(*damage.format(table=table, ifb=ifb).split())
        code, said = cni(machine, "check", file, [])
        assert (code, said.partition(" failed")[0]) == (1, f"podnet: plugin {plugin}"), said
        assert cni(machine, "del", file, [])[0] == 0
        code, output = cni(machine, "add", file, [])
        assert code == 0, output
        ifb = json.loads(output)["interfaces"][-1]["name"]
    assert cni(machine, "check", file, [])[0] == 0
    assert cni(machine, "del", file, [])[0] == 0
    assert (machine.links(POD), machine.links() - {"br0"}) == ({"lo"}, {"lo"})


@pytest.mark.parametrize("ranges", [["10.88.0.0/24"], ["10.88.0.0/24", "fd88::/64"]], ids=["IPv4", "dual-stack"])
def test_the_reference_portmap_cannot_check_what_it_has_made(machine: Any, ranges: list[str]) -> None:
    """1.1.1 looks for an IPv4 mapping's rules in ip6tables too: its CHECK fails wherever there is a mapping."""
    file, ports = written(machine, ranges), [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    assert cni(machine, "add", file, ports)[0] == 0
    code, said = cni(machine, "check", file, ports)
    assert (code, said.startswith("podnet: plugin portmap failed (CHECK): could not check ipv6 dnat")) == (1, True), (
        said
    )
    assert cni(machine, "del", file, ports)[0] == 0
