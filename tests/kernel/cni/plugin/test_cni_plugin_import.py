"""A network that the reference host-local plugin has handed out addresses of (2.3): taken over, released, collected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel


@pytest.fixture
def network(conf: dict[str, Any]) -> dict[str, Any]:
    return conf | {"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/29"}]]}}


@pytest.fixture
def folder(host: Any) -> Path:
    """What host-local would have left beside our own state, for an attachment of c1 and one of nobody."""
    path: Path = host.state.parent / "networks" / "net"
    path.mkdir(parents=True)
    (path / "10.1.2.2").write_text("c1\r\neth0")
    (path / "10.1.2.3").write_text("legacy")
    (path / "last_reserved_ip.0").write_text("10.1.2.3")
    return path


def files(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.name != "lock")


def make_pod(host: Any) -> None:
    """c1 as the reference bridge plugin has made it: names of its own."""
    host.tool("ip", "link", "add", "br0", "type", "bridge")
    host.tool("ip", "link", "add", "veth00000001", "type", "veth", "peer", "name", "eth0", "netns", "c1")
    host.tool("ip", "link", "set", "veth00000001", "master", "br0", "up")
    host.tool("ip", "-n", "c1", "link", "set", "eth0", "up")
    host.tool("ip", "-n", "c1", "address", "add", "10.1.2.2/29", "dev", "eth0")


@pytest.mark.parametrize("kind", ["host-local", "podnet"])
@pytest.mark.parametrize("given", [False, True])
def test_what_runs_keeps_its_address_and_gives_it_back(
    host: Any, network: dict[str, Any], folder: Path, kind: str, given: bool
) -> None:
    network["ipam"] |= {"type": kind} | ({"dataDir": str(folder.parent)} if given else {})
    make_pod(host)
    assert host.add(network, "c2")["ips"][0]["address"] == "10.1.2.4/29"
    assert host.addresses("eth0", "c1") == ["10.1.2.2/29"]
    for _ in range(2):
        host.delete(network)
        assert files(folder) == ["10.1.2.3", "last_reserved_ip.0"]
        assert [each["ifname"] for each in host.ip("link", netns="c1")] == ["lo"]
    asked = host.add(network, "c3", CNI_ARGS="IP=10.1.2.2")
    assert asked["ips"][0]["address"] == "10.1.2.2/29"


def test_d2_del_with_the_namespace_gone_and_of_an_id_without_interface(
    host: Any, network: dict[str, Any], folder: Path
) -> None:
    host.delete(network, CNI_NETNS="")
    host.delete(network, "legacy", CNI_NETNS="")
    assert (files(folder), host.ledger("lease"), host.ledger("holder")) == (["last_reserved_ip.0"], [], [])


def test_d6_del_touches_no_interface_of_ours_or_of_the_host(host: Any, network: dict[str, Any], folder: Path) -> None:
    make_pod(host)
    host.add(network | {"name": "other", "isDefaultGateway": False}, "c2")
    host.delete(network, "c2")
    assert host.link("eth0", "c2")
    host.tool("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
    host.delete(network, CNI_NETNS="/proc/thread-self/ns/net")
    assert host.link("eth0")
    assert files(folder) == ["10.1.2.3", "last_reserved_ip.0"]


def test_g8_gc_takes_what_is_not_valid_and_leaves_the_bookkeeping(
    host: Any, network: dict[str, Any], folder: Path
) -> None:
    (folder / "10.1.2.5").write_text("gone\r\neth0")
    (folder / "10.1.2.6").write_text("")
    valid = [{"containerID": "c1", "ifname": "eth0"}, {"containerID": "legacy", "ifname": "eth0"}]
    assert host.call("GC", network | {"cni.dev/valid-attachments": valid}) == (0, None)
    assert files(folder) == ["10.1.2.2", "10.1.2.3", "last_reserved_ip.0"]
    assert host.call("GC", network | {"cni.dev/valid-attachments": []}) == (0, None)
    assert files(folder) == ["last_reserved_ip.0"]


def test_s2_status_counts_them_and_no_boot_of_ours_makes_them_dead(
    host: Any, network: dict[str, Any], folder: Path
) -> None:
    for n in range(4, 7):
        (folder / f"10.1.2.{n}").write_text(f"c{n}\r\neth0")
    assert host.call("STATUS", network)[1]["code"] == 50
    code, error = host.call("ADD", network)
    assert (code, "no IP addresses available" in error["msg"]) == (1, False)
    assert error["msg"] == (
        "failed to allocate for range 0: 10.1.2.2 has been allocated to c1, duplicate allocation is not allowed"
    )
    assert "no IP addresses available" in host.call("ADD", network, "c2")[1]["msg"]


def test_a_folder_of_another_network_is_not_looked_at(host: Any, network: dict[str, Any], folder: Path) -> None:
    assert host.add(network | {"name": "net2"}, "c2")["ips"][0]["address"] == "10.1.2.2/29"
