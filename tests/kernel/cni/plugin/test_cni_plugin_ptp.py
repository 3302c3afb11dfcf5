"""The ptp mode against the reference plugin's requirements (2.2, 3.2), seen with ``ip`` and ``ping``."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.kernel


@pytest.fixture
def ptp(conf: dict[str, Any]) -> dict[str, Any]:
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    return conf | {"mode": "ptp", "ipam": conf["ipam"] | {"routes": routes}}


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_3_2_1_the_result_has_two_interfaces(host: Any, ptp: dict[str, Any], version: str) -> None:
    result = host.add(ptp | {"cniVersion": version})
    outer, inner = result["interfaces"]
    assert (outer["name"][:4], inner["name"], inner["sandbox"]) == ("veth", "eth0", "/run/netns/c1")
    assert outer["mac"] == host.link(outer["name"])["address"]
    assert inner["mac"] == host.link("eth0", "c1")["address"]
    assert [each["interface"] for each in result["ips"]] == [1, 1]
    assert sorted(each["ifname"] for each in host.ip("link")) == sorted(["lo", outer["name"]])


def test_2_2_addresses_and_routes_on_both_ends(host: Any, ptp: dict[str, Any]) -> None:
    name = host.add(ptp)["interfaces"][0]["name"]
    assert host.addresses(name) == ["10.1.2.1/32", "fd00:1::1/128"]
    assert {("10.1.2.2", ""), ("fd00:1::2", "")} <= host.routes()
    assert host.addresses("eth0", "c1") == ["10.1.2.2/29", "fd00:1::2/64"]
    assert host.routes("c1") == {
        ("10.1.2.1", ""), ("10.1.2.0/29", "10.1.2.1"), ("default", "10.1.2.1"),
        ("fd00:1::1", ""), ("fd00:1::/64", "fd00:1::1"), ("default", "fd00:1::1"),
    }  # fmt: skip
    kernels = [row["dst"] for row in host.ip("-4", "route", netns="c1") if row.get("protocol") == "kernel"]
    assert kernels == []


def test_3_2_1_containers_reach_gateway_and_each_other(host: Any, ptp: dict[str, Any]) -> None:
    for name in ("c1", "c2"):
        host.add(ptp, name)
    for target in ("10.1.2.1", "10.1.2.3", "fd00:1::1", "fd00:1::3"):
        host.tool("ip", "netns", "exec", "c1", "ping", "-c", "1", "-W", "2", target)
    host.delete(ptp)
    assert {("10.1.2.3", ""), ("fd00:1::3", "")} <= host.routes()
    assert ("10.1.2.2", "") not in host.routes()


def test_3_2_5_two_families_with_an_odd_prefix_and_more_routes(host: Any, ptp: dict[str, Any]) -> None:
    ptp["ipam"] = {
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/66"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "192.168.0.0/16"}, {"dst": "2001:db8:2::/48"}],
    }
    result = host.add(ptp)
    assert {("192.168.0.0/16", "10.1.2.1"), ("2001:db8:2::/48", "2001:db8:1::1")} <= host.routes("c1")
    assert host.call("CHECK", ptp | {"prevResult": result}) == (0, None)
    name = result["interfaces"][0]["name"]
    host.tool("ip", "address", "delete", "10.1.2.1/32", "dev", name)
    assert f"address 10.1.2.1/32 on {name}" in host.call("CHECK", ptp | {"prevResult": result})[1]["details"]


@pytest.mark.parametrize("ipam", [{}, None])
def test_2_2_ptp_needs_addresses(host: Any, ptp: dict[str, Any], ipam: Any) -> None:
    before = host.snapshot()
    code, error = host.call("ADD", ptp | {"ipam": ipam})
    assert (code, error["msg"]) == (1, "IPAM plugin returned missing IP config")
    assert host.snapshot() == before
