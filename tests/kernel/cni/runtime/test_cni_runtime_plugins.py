"""The chain with the reference plugins of Debian: what the result says is what the kernel has, until DEL."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from podnet.cli.cni_command import command
from podnet.cni.runtime import cache, chain
from podnet.cni.runtime.cache import Container
from podnet.cni.runtime.chain import ChainError, Runtime
from podnet.cni.runtime.conflist import NetworkList, parse
from podnet.kernel import netns

BIN = "/usr/lib/cni"
NEEDED = [f"{BIN}/bridge", f"{BIN}/host-local", f"{BIN}/portmap"]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        not all(os.path.isfile(path) for path in NEEDED) or shutil.which("iptables") is None,
        reason="needs Debian's containernetworking-plugins and iptables",
    ),
]


@dataclass(frozen=True)
class Machine:
    """A namespace that stands for the machine, another for the container, and the plugins' folders."""

    node: str
    pod: str
    folder: Path

    @property
    def runtime(self) -> Runtime:
        return Runtime((BIN,), str(self.folder / "cache"), 60.0)

    @property
    def container(self) -> Container:
        ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
        return Container("c1", f"/run/netns/{self.pod}", "eth0", (("IgnoreUnknown", "1"),), {"portMappings": ports})

    def configured(self, version: str) -> NetworkList:
        ipam = {"type": "host-local", "dataDir": str(self.folder / "ipam"), "ranges": [[{"subnet": "10.88.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}]}  # fmt: skip
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "ipam": ipam}
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        plugins = [bridge, portmap] if version >= "0.3.0" else [bridge]
        file = self.folder / "net.conflist"
        file.write_text(json.dumps({"cniVersion": version, "name": "net", "plugins": plugins}), encoding="utf-8")
        return parse(file.read_bytes(), str(file))

    @property
    def reserved(self) -> list[str]:
        folder = self.folder / "ipam" / "net"
        return sorted(path.name for path in folder.glob("10.*")) if folder.exists() else []


def ip(namespace: str, *arguments: str) -> Any:
    done = subprocess.run(["ip", "-j", "-n", namespace, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


def links(namespace: str) -> dict[str, Any]:
    return {link["ifname"]: link for link in ip(namespace, "address")}


def addresses(link: Any) -> list[str]:
    return [f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each["scope"] == "global"]


def rules(namespace: str) -> str:
    return subprocess.run(
        ["ip", "netns", "exec", namespace, "nft", "list", "ruleset"], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine("cni-node", "cni-pod", tmp_path)
    try:
        for name in (made.node, made.pod):
            subprocess.run(["ip", "netns", "add", name], check=True)
        subprocess.run(["ip", "-n", made.node, "link", "set", "lo", "up"], check=True)
        yield made
    finally:
        for name in (made.node, made.pod):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_the_result_is_what_the_kernel_has(machine: Machine, version: str) -> None:
    network = machine.configured(version)
    with netns.entered(machine.node):
        result = chain.add(machine.runtime, network, machine.container)

    assert result["cniVersion"] == version
    pod, node = links(machine.pod), links(machine.node)
    made = {each["name"]: each for each in result["interfaces"]}
    assert made["eth0"]["sandbox"] == machine.container.netns
    for name, there in (("cni0", node), ("eth0", pod)):
        assert made[name]["mac"] == there[name]["address"]
    (host,) = made.keys() - {"cni0", "eth0"}
    assert node[host]["master"] == "cni0"
    (address,) = result["ips"]
    assert result["interfaces"][address["interface"]]["name"] == "eth0"
    assert [address["address"]] == addresses(pod["eth0"]) == ["10.88.0.2/24"]
    assert (address.get("version"), address["gateway"]) == ("4" if version < "1" else None, "10.88.0.1")
    assert addresses(node["cni0"]) == ["10.88.0.1/24"]
    (default,) = [route for route in ip(machine.pod, "route") if route["dst"] == "default"]
    assert default["gateway"] == "10.88.0.1"
    assert [route["dst"] for route in result["routes"]] == ["0.0.0.0/0"]
    assert machine.reserved == ["10.88.0.2"]

    with netns.entered(machine.node):
        chain.delete(machine.runtime, network, machine.container)
        chain.delete(machine.runtime, network, machine.container)
    assert links(machine.pod).keys() == {"lo"}
    assert links(machine.node).keys() == {"lo", "cni0"}
    assert machine.reserved == []
    assert cache.attachments(machine.runtime.cache_dir) == []


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_1_9_the_result_of_old_versions(machine: Machine, version: str) -> None:
    network = machine.configured(version)
    with netns.entered(machine.node):
        result = chain.add(machine.runtime, network, machine.container)
        assert result["cniVersion"] == version
        assert result["ip4"]["ip"] == addresses(links(machine.pod)["eth0"])[0]
        chain.delete(machine.runtime, network, machine.container)
    assert links(machine.pod).keys() == {"lo"}


def test_c6_the_port_is_mapped_until_del(machine: Machine) -> None:
    network = machine.configured("1.0.0")
    with netns.entered(machine.node):
        chain.add(machine.runtime, network, machine.container)
    with netns.open_socket(machine.pod, socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("10.88.0.2", 80))
        server.listen()
        server.settimeout(10)
        with netns.open_socket(machine.node, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(("10.88.0.1", 8080))
            accepted, _ = server.accept()
            with accepted:
                client.sendall(b"hello")
                assert accepted.recv(16) == b"hello"
    assert "8080" in rules(machine.node)
    with netns.entered(machine.node):
        chain.delete(machine.runtime, network, machine.container)
    assert "8080" not in rules(machine.node)


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_k2_check_sees_what_is_missing(machine: Machine, version: str) -> None:
    network = machine.configured(version)
    # Without port mappings: portmap 1.1.1 looks for IPv6 rules that it has not made, and fails.
    container = replace(machine.container, capability_args={})
    with netns.entered(machine.node):
        chain.add(machine.runtime, network, container)
        assert chain.check(machine.runtime, network, container)
        subprocess.run(["ip", "-n", machine.pod, "address", "flush", "dev", "eth0"], check=True)
        with pytest.raises(ChainError, match=r"plugin bridge failed \(CHECK\)"):
            chain.check(machine.runtime, network, container)


def test_a2_a_second_add_fails_and_the_first_stays(machine: Machine) -> None:
    network = machine.configured("1.0.0")
    with netns.entered(machine.node):
        chain.add(machine.runtime, network, machine.container)
        before = links(machine.pod)
        with pytest.raises(ChainError, match=r"plugin bridge failed \(ADD\)"):
            chain.add(machine.runtime, network, replace(machine.container, id="c2"))
    assert links(machine.pod).keys() == before.keys()
    assert addresses(links(machine.pod)["eth0"]) == ["10.88.0.2/24"]


def test_gc_frees_the_address_of_a_container_that_is_gone(machine: Machine) -> None:
    network = machine.configured("1.0.0")
    with netns.entered(machine.node):
        chain.add(machine.runtime, network, machine.container)
        # Another container ID: bridge 1.1.1 keeps one masquerade chain for all interfaces of a container, and its DEL
        # fails while another of them is there.
        chain.add(machine.runtime, network, Container("c2", machine.container.netns, "eth1"))
        assert machine.reserved == ["10.88.0.2", "10.88.0.3"]
        deleted = chain.collect(machine.runtime, network, [("c2", "eth1")])
    assert [each.container.id for each in deleted] == ["c1"]
    assert machine.reserved == ["10.88.0.3"]
    assert links(machine.pod).keys() == {"lo", "eth1"}


def test_v1_what_they_support(machine: Machine) -> None:
    network = machine.configured("1.0.0")
    found = chain.supported_versions(machine.runtime, network)
    assert [(each.type, each.path) for each in found] == [(name, f"{BIN}/{name}") for name in ("bridge", "portmap")]
    assert all(each.fits and "0.4.0" in each.supported for each in found)


def test_the_command_line(machine: Machine) -> None:
    machine.configured("1.0.0")
    common = ["--path", BIN, "--cache-dir", machine.runtime.cache_dir, "--netns", machine.pod, "-o", "json"]
    conf = ["--conf", str(machine.folder)]
    run = CliRunner()
    with netns.entered(machine.node):
        added = run.invoke(command, ["add", *common, *conf])
        assert added.exit_code == 0, added.output
        assert json.loads(added.stdout)["ips"][0]["address"] == addresses(links(machine.pod)["eth0"])[0]
        assert run.invoke(command, ["check", *common]).exit_code == 0
        subprocess.run(["ip", "-n", machine.pod, "link", "delete", "eth0"], check=True)
        failed = run.invoke(command, ["check", *common])
        assert failed.exit_code == 1
        error = json.loads(failed.stdout)
        assert error["code"] > 0
        assert "plugin bridge failed (CHECK)" in failed.stderr
        assert run.invoke(command, ["del", *common]).exit_code == 0
    assert machine.reserved == []
