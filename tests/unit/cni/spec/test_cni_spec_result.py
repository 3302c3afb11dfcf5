"""Results in every version: the exact shape, what is lost on the way down, and what is read back."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podnet.cni.spec import result, versions
from podnet.cni.spec.document import Document, decode, encode
from podnet.cni.spec.errors import CNIError
from podnet.cni.spec.result import DNS, IP, Interface, Result, Route

OLD, MIDDLE, NEW = ("0.1.0", "0.2.0"), ("0.3.0", "0.3.1", "0.4.0"), ("1.0.0", "1.1.0")

DUAL = Result(
    interfaces=(
        Interface("cni0", "00:11:22:33:44:55", 1500),
        Interface("eth0", "99:88:77:66:55:44", 1400, "/run/netns/blue", "/run/a.sock", "0000:00:1f.6"),
    ),
    ips=(
        IP("10.1.0.5/16", "10.1.0.1", 1),
        IP("10.2.0.5/16", interface=1),
        IP("2001:db8:1::2/64", "2001:db8:1::1", 1),
    ),
    routes=(Route("0.0.0.0/0"), Route("::/0", "2001:db8:1::1"), Route("10.9.0.0/16", "10.1.0.1", 1300, 1260, 5, 0, 0)),
    dns=DNS(("10.1.0.1",), "local", ("a.local",), ("ndots:5",)),
)
ROUTES = [
    {"dst": "0.0.0.0/0"},
    {"dst": "::/0", "gw": "2001:db8:1::1"},
    {"dst": "10.9.0.0/16", "gw": "10.1.0.1", "mtu": 1300, "advmss": 1260, "priority": 5, "table": 0, "scope": 0},
]
DNS_JSON = {"nameservers": ["10.1.0.1"], "domain": "local", "search": ["a.local"], "options": ["ndots:5"]}


def shape(version: str) -> dict[str, Any]:
    """What DUAL must look like."""
    if version in OLD:
        return {
            "cniVersion": version,
            "ip4": {
                "ip": "10.1.0.5/16",
                "gateway": "10.1.0.1",
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.1"}],
            },
            "ip6": {
                "ip": "2001:db8:1::2/64",
                "gateway": "2001:db8:1::1",
                "routes": [{"dst": "::/0", "gw": "2001:db8:1::1"}],
            },
            "dns": DNS_JSON,
        }
    interfaces: list[dict[str, Any]] = [
        {"name": "cni0", "mac": "00:11:22:33:44:55"},
        {"name": "eth0", "mac": "99:88:77:66:55:44", "sandbox": "/run/netns/blue"},
    ]
    ips: list[dict[str, Any]] = [
        {"interface": 1, "address": "10.1.0.5/16", "gateway": "10.1.0.1"},
        {"interface": 1, "address": "10.2.0.5/16"},
        {"interface": 1, "address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1"},
    ]
    if version in NEW:
        interfaces[0] |= {"mtu": 1500}
        interfaces[1] |= {"mtu": 1400, "socketPath": "/run/a.sock", "pciID": "0000:00:1f.6"}
    else:
        for ip, family in zip(ips, "446", strict=True):
            ip["version"] = family
    return {"cniVersion": version, "interfaces": interfaces, "ips": ips, "routes": ROUTES, "dns": DNS_JSON}


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_1_9_the_whole_shape(version: str) -> None:
    assert result.to_json(DUAL, version) == shape(version)


@pytest.mark.parametrize(
    ("version", "value"),
    [
        *[(version, {"cniVersion": version, "dns": {}}) for version in MIDDLE],
        *[(version, {"cniVersion": version}) for version in NEW],
    ],
)
def test_1_9_the_empty_shape(version: str, value: object) -> None:
    assert result.to_json(Result(), version) == value


@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize("only_interfaces", [Result(), Result((Interface("eth0", sandbox="/x"),))])
def test_1_9_old_versions_cannot_do_without_an_address(version: str, only_interfaces: Result) -> None:
    with pytest.raises(CNIError, match="cannot convert: no valid IP addresses"):
        result.to_json(only_interfaces, version)


@pytest.mark.parametrize("version", OLD)
def test_1_9_one_family_only(version: str) -> None:
    six = Result(ips=(IP("fd00::2/64"),), routes=(Route("0.0.0.0/0"),))
    assert result.to_json(six, version) == {"cniVersion": version, "ip6": {"ip": "fd00::2/64"}, "dns": {}}


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_c5_every_shape_is_read_back(version: str) -> None:
    found = result.parse(Document(shape(version)), version)
    assert result.to_json(found, version) == shape(version)
    if version == "1.1.0":
        assert found == DUAL


def test_h8_without_a_version_the_configurations_counts() -> None:
    value = shape("0.2.0")
    del value["cniVersion"]
    assert result.parse(Document(value), "0.2.0").ips[0].gateway == "10.1.0.1"
    assert result.parse(Document(value), "1.0.0") == Result(dns=DUAL.dns)


def test_c5_a_version_of_its_own_decides_the_shape() -> None:
    assert len(result.parse(Document(shape("0.2.0")), "1.0.0").ips) == 2


def test_p7_keys_of_a_result_match_as_in_go() -> None:
    value = {"CNIVersion": "1.0.0", "IPs": [{"Address": "10.0.0.1/8", "Interface": 0}], "Interfaces": [{"Name": "e"}]}
    found = result.parse(Document(value), "1.0.0")
    assert found == Result((Interface("e"),), (IP("10.0.0.1/8", interface=0),))
    assert found.interface_of(found.ips[0]) == Interface("e")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cniVersion": "9.9.9"}, 'prevResult.cniVersion is "9.9.9"'),
        ({"ips": [{}]}, "prevResult.ips[0].address: '' is no IP address with prefix length"),
        ({"ips": [{"address": "10.0.0.1"}]}, "prevResult.ips[0].address: '10.0.0.1'"),
        ({"ips": [{"address": "10.0.0.1/33"}]}, "prevResult.ips[0].address: '10.0.0.1/33'"),
        ({"ips": [{"address": "10.0.0.1/8", "gateway": "x"}]}, "prevResult.ips[0].gateway: 'x'"),
        ({"ips": [{"address": "10.0.0.1/8", "interface": -1}]}, "prevResult.ips[0].interface is out of range: -1"),
        ({"ips": [{"address": "10.0.0.1/8", "interface": "0"}]}, "prevResult.ips[0].interface must be an integer"),
        ({"ips": {}}, "prevResult.ips must be an array, not an object"),
        ({"interfaces": [{"name": 1}]}, "prevResult.interfaces[0].name must be a string"),
        ({"interfaces": [{"name": "a", "mtu": -1}]}, "prevResult.interfaces[0].mtu is out of range"),
        ({"routes": [{"gw": "10.0.0.1"}]}, "prevResult.routes[0].dst: ''"),
        ({"routes": [{"dst": "10.0.0.0/8", "table": "main"}]}, "prevResult.routes[0].table must be an integer"),
        ({"dns": []}, "prevResult.dns must be an object, not an array"),
        ({"dns": {"search": [1]}}, "prevResult.dns.search[0] must be a string"),
    ],
)
def test_e1_a_result_that_cannot_be_read_names_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CNIError) as caught:
        result.parse(Document(change, "prevResult"), "1.1.0")
    assert caught.value.code == 6
    assert str(caught.value).startswith(message)


def test_an_index_that_points_nowhere_is_no_interface() -> None:
    found = Result((Interface("a"),), (IP("10.0.0.1/8", interface=1), IP("10.0.0.1/8")))
    assert [found.interface_of(ip) for ip in found.ips] == [None, None]


@pytest.mark.parametrize(
    ("given", "canonical"),
    [("2001:DB8:0:0::1/64", "2001:db8::1/64"), ("10.0.0.1/08", "10.0.0.1/8"), ("::/0", "::/0")],
)
def test_addresses_keep_their_host_bits_and_become_canonical(given: str, canonical: str) -> None:
    assert result.parse(Document({"ips": [{"address": given}]}), "1.0.0").ips[0].address == canonical


@pytest.mark.parametrize("given", ["010.0.0.1/8", "fe80::1%eth0/64", "10.0.0.1/+8", "10.0.0.1/ 8", "10.1/8", "1.1.1.1/",
                                   "/8", "::/129", "1.1.1.1/8/8", "10.0.0.1\0/8", "\ud800::/8"])  # fmt: skip
def test_addresses_that_go_refuses(given: str) -> None:
    with pytest.raises(CNIError):
        result.parse(Document({"ips": [{"address": given}]}), "1.0.0")


NUMBER = st.integers(0, 2**32 - 1)
TEXT = st.text(max_size=12)
V4 = st.ip_addresses(v=4).map(str)
# What inet_ntop and ipaddress write differently (IPv4 within IPv6) is left out.
V6 = st.integers(0, 2**96 - 1).map(lambda low: str(IPv6Address(0x20010DB8 << 96 | low)))
PREFIX = st.one_of(
    st.tuples(V4, st.integers(0, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    st.tuples(V6, st.integers(0, 128)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
)
GATEWAY = st.one_of(st.just(""), V4, V6)
RESULT = st.builds(
    Result,
    st.lists(st.builds(Interface, TEXT, TEXT, NUMBER, TEXT, TEXT, TEXT), max_size=3).map(tuple),
    st.lists(st.builds(IP, PREFIX, GATEWAY, st.none() | st.integers(0, 5)), max_size=4).map(tuple),
    st.lists(
        st.builds(Route, PREFIX, GATEWAY, NUMBER, NUMBER, NUMBER, st.none() | NUMBER, st.none() | NUMBER), max_size=4
    ).map(tuple),
    st.builds(DNS, *(st.lists(TEXT, max_size=2).map(tuple) for _ in range(1)), TEXT,
              *(st.lists(TEXT, max_size=2).map(tuple) for _ in range(2))),
)  # fmt: skip


@given(RESULT)
def test_1_9_round_trip_in_the_newest(found: Result) -> None:
    first = result.to_json(found, "1.1.0")
    again = result.parse(decode(encode(first)), "1.1.0")
    assert result.to_json(again, "1.1.0") == first


@given(RESULT, st.sampled_from(versions.SUPPORTED), st.sampled_from(versions.SUPPORTED))
def test_1_9_conversion_loses_once(found: Result, version: str, newer: str) -> None:
    """Down to a version and back up, and down again: nothing more is lost, whichever way it goes up."""
    if version in OLD and not found.ips:
        with pytest.raises(CNIError, match="cannot convert: no valid IP addresses"):
            result.to_json(found, version)
        return
    down = result.to_json(found, version)
    assert down["cniVersion"] == version
    back = result.parse(decode(encode(down)), version)
    if versions.parse(newer) >= versions.parse(version):
        back = result.parse(decode(encode(result.to_json(back, newer))), newer)
    assert result.to_json(back, version) == down
