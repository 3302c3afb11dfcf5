"""The shape of a result in each version of the specification: section 5."""

from __future__ import annotations

import pytest

from podnet.conform.results import addresses, converted, problems, reshaped, routes

NEW = {
    "interfaces": [{"name": "veth1", "mac": "02:00:00:00:00:01"}, {"name": "eth0", "sandbox": "/run/netns/a"}],
    "ips": [
        {"interface": 1, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
        {"interface": 1, "address": "fd00::2/64"},
    ],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
}
VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_reshaped_to_a_version_has_its_shape(version: str) -> None:
    result = reshaped(NEW, version)
    assert problems(result, version, ipam=False) == []
    assert result["cniVersion"] == version
    assert addresses(result) == ["10.1.0.2/24", "fd00::2/64"]
    assert [route["dst"] for route in routes(result)] == ["0.0.0.0/0"]


@pytest.mark.parametrize("own", VERSIONS[2:])
@pytest.mark.parametrize("other", VERSIONS[2:])
def test_a_result_is_converted_between_versions(own: str, other: str) -> None:
    result = converted(reshaped(NEW, own), other)
    assert problems(result, other, ipam=False) == []
    assert result["cniVersion"] == other


@pytest.mark.parametrize(
    ("version", "change", "expected"),
    [
        ("0.2.0", {"interfaces": []}, "it has interfaces, which came with 0.3.0"),
        ("0.2.0", {"ip4": {"ip": "10.1.0.2"}}, "ip4.ip '10.1.0.2' is not in CIDR notation"),
        ("0.2.0", {"ip4": {"ip": "fd00::2/64"}}, "ip4.ip 'fd00::2/64' is of the wrong family"),
        ("0.4.0", {"ips": [{"address": "10.1.0.2/24"}]}, "ips[].version is None, must be '4' before 1.0.0"),
        (
            "0.4.0",
            {"ips": [{"version": "4", "address": "fd00::2/64"}]},
            "ips[].version is '4', must be '6' before 1.0.0",
        ),
        ("1.0.0", {"ips": [{"version": "4", "address": "10.1.0.2/24"}]}, "ips[].version ended with 0.4.0"),
        ("1.0.0", {"ip4": {}}, "it has ip4 or ip6, which ended with version 0.2.0"),
        ("1.0.0", {"ips": [{"address": "10.1.0.2/24", "interface": 2}]}, "is no index into 2 interfaces"),
        ("1.0.0", {"ips": [{"address": "10.1.0.2/24", "gateway": "x"}]}, "ips[].gateway 'x' is no address"),
        ("1.0.0", {"interfaces": [{"name": "e", "mtu": 1500}]}, "interfaces[].mtu came with 1.1.0"),
        ("1.1.0", {"interfaces": [{"name": "e", "mtu": "1500"}]}, "interfaces[].mtu is '1500', not a number"),
        ("1.1.0", {"interfaces": [{"mac": ""}]}, "an interface without a name"),
        ("1.1.0", {"interfaces": [{"name": "e", "mac": "02-00"}]}, "is no hardware address"),
        ("1.0.0", {"routes": [{"dst": "default"}]}, "routes[].dst 'default' is not in CIDR notation"),
        ("1.0.0", {"routes": [{"dst": "10.0.0.0/8", "mtu": 1400}]}, "routes[].mtu came with 1.1.0"),
        ("1.0.0", {"dns": []}, "dns is no object but list"),
        ("1.0.0", {"ips": "10.1.0.2/24"}, "ips is no list of objects"),
    ],
)
def test_what_is_wrong_is_said(version: str, change: dict[str, object], expected: str) -> None:
    found = problems({**reshaped(NEW, version), **change}, version, ipam=False)
    assert any(expected in each for each in found), found


def test_an_ipam_result_is_abbreviated() -> None:
    found = problems(reshaped(NEW, "1.0.0"), "1.0.0", ipam=True)
    assert "an IPAM plugin's result has interfaces" in found
    assert "an IPAM plugin's result has ips[].interface" in found


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_a_result_is_an_object(value: object) -> None:
    assert problems(value, "1.0.0", ipam=False)[0].startswith("the result is no JSON object")
