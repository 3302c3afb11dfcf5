"""The keys that all plugins share: names, well-known keys, capabilities, and what comes before what."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from podnet.cni.spec import config
from podnet.cni.spec.config import Bandwidth, IPRange, NetworkConfig, PortMapping, RuntimeConfig
from podnet.cni.spec.errors import DECODING_FAILURE, INVALID_CONFIG, CNIError
from podnet.cni.spec.result import DNS, IP, Result

MINIMAL = {"cniVersion": "1.1.0", "name": "net", "type": "podnet"}


def parsed(extra: dict[str, Any], command: str = "ADD", arguments: dict[str, str] | None = None) -> NetworkConfig:
    data = json.dumps(MINIMAL | extra).encode()
    return config.parse(config.decode_named(data), command, arguments or {}, data)


def refused(act: Callable[[], object], code: int) -> CNIError:
    with pytest.raises(CNIError) as caught:
        act()
    assert caught.value.code == code, caught.value
    return caught.value


@pytest.mark.parametrize("data", [b"{}", b'{"name":""}', b'{"name":null}', b"null", b'{"type":"x"}'])
def test_c2_the_name_is_required(data: bytes) -> None:
    assert refused(lambda: config.decode_named(data), INVALID_CONFIG).msg == "missing network name"


@pytest.mark.parametrize("name", ["-a", "a/b", "../a", "a b", "a\n", "é", "a\\"])
def test_c2_the_name_is_a_file_name(name: str) -> None:
    error = refused(lambda: config.decode_named(json.dumps({"name": name}).encode()), INVALID_CONFIG)
    assert (error.msg, error.details) == ("invalid characters found in network name", name)


@pytest.mark.parametrize("name", [1, [], {}, True])
def test_c2_a_name_of_another_type_cannot_be_decoded(name: object) -> None:
    refused(lambda: config.decode_named(json.dumps({"name": name}).encode()), DECODING_FAILURE)


@pytest.mark.parametrize("kind", ["a/b", "/bin/sh", "..\\x", "a\0b"])
def test_c3_the_type_is_a_file_name(kind: str) -> None:
    assert "type" in refused(lambda: parsed({"type": kind}), INVALID_CONFIG).msg


def test_c1_without_a_version_it_is_the_oldest() -> None:
    assert parsed({"cniVersion": ""}).version == "0.1.0"


def test_c7_well_known_keys() -> None:
    found = parsed({
        "ipMasq": True,
        "ipam": {"type": "host-local", "subnet": "10.0.0.0/24"},
        "dns": {"nameservers": ["10.0.0.1"], "domain": "d", "search": ["s"], "options": ["o"]},
    })  # fmt: skip
    assert found.ip_masq
    assert found.ipam_type == "host-local"
    assert found.ipam is not None
    assert found.ipam.text("subnet") == "10.0.0.0/24"
    assert found.dns == DNS(("10.0.0.1",), "d", ("s",), ("o",))


@pytest.mark.parametrize(("dns", "found"), [(None, None), ({}, None), ({"nameservers": []}, DNS())])
def test_c7_dns_counts_as_given_when_any_key_is(dns: object, found: DNS | None) -> None:
    assert parsed({"dns": dns}).dns == found
    assert parsed({}).dns is None


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({"ipMasq": "yes"}, "ipMasq"),
        ({"ipam": []}, "ipam"),
        ({"ipam": {"type": 1}}, "ipam.type"),
        ({"dns": {"nameservers": "x"}}, "dns.nameservers"),
        ({"prevResult": []}, "prevResult"),
        ({"prevResult": {"ips": [{"address": "x"}]}}, "prevResult.ips[0].address"),
        ({"runtimeConfig": 1}, "runtimeConfig"),
        ({"runtimeConfig": {"portMappings": {}}}, "runtimeConfig.portMappings"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": "80"}]}}, "runtimeConfig.portMappings[0].hostPort"),
        ({"runtimeConfig": {"bandwidth": {"ingressRate": -1}}}, "runtimeConfig.bandwidth.ingressRate"),
        ({"runtimeConfig": {"bandwidth": {"ingressRate": 1.5}}}, "runtimeConfig.bandwidth.ingressRate"),
        ({"runtimeConfig": {"ipRanges": [{}]}}, "runtimeConfig.ipRanges.0"),
        ({"runtimeConfig": {"aliases": "x"}}, "runtimeConfig.aliases"),
        ({"args": {"cni": {"ips": "10.0.0.1"}}}, "args.cni.ips"),
    ],
)
def test_e1_a_wrong_type_is_a_decoding_failure_and_names_the_key(extra: dict[str, Any], key: str) -> None:
    assert key in refused(lambda: parsed(extra), DECODING_FAILURE).msg


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"runtimeConfig": {"portMappings": [{"containerPort": 80}]}}, "Invalid host port number: 0"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": 80}]}}, "Invalid container port number: 0"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": 65536, "containerPort": 80}]}}, "Invalid host port number"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]}}, '"icmp"'),
        ({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1, "hostIP": "x"}]}}, "hostIP"),
        ({"runtimeConfig": {"mac": "zz"}}, "runtimeConfig.mac"),
        ({"runtimeConfig": {"ips": ["10.0.0.256"]}}, "runtimeConfig.ips"),
        ({"args": {"cni": {"mac": "00:11"}}}, "args.cni.mac"),
        ({"args": {"cni": {"ips": ["x"]}}}, "args.cni.ips"),
    ],
)
def test_e1_a_wrong_value_is_an_invalid_configuration(extra: dict[str, Any], message: str) -> None:
    assert message in refused(lambda: parsed(extra), INVALID_CONFIG).msg


@pytest.mark.parametrize(
    ("arguments", "message"), [({"MAC": "x"}, "CNI_ARGS MAC"), ({"IP": "10.0.0.1,x"}, "CNI_ARGS IP")]
)
def test_e1_a_wrong_value_in_cni_args(arguments: dict[str, str], message: str) -> None:
    assert message in refused(lambda: parsed({}, arguments=arguments), INVALID_CONFIG).msg


@pytest.mark.parametrize(
    "extra",
    [
        {"prevResult": {"ips": [{"address": "x"}]}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 0}]}},
        {"dns": {"search": 5}},
        {"args": {"cni": {"mac": "x", "ips": ["x"]}}},
    ],
)
def test_d2_del_takes_what_add_refuses_as_absent(extra: dict[str, Any]) -> None:
    found = parsed(extra, "DEL", {"MAC": "x", "IP": "x"} if "args" not in extra else {})
    assert (found.prev_result, found.runtime, found.dns, found.mac, found.ips) == (None, RuntimeConfig(), None, "", ())


@pytest.mark.parametrize(
    "extra",
    [
        {"args": 5}, {"args": []}, {"args": {"cni": "x"}}, {"args": {"labels": 1}}, {"args": {"cni": {"sysctl": 1}}},
        {"capabilities": {"portMappings": True}}, {"capabilities": 7}, {"cni.dev/x": 1}, {"unheard-of": {"of": []}},
        {"runtimeConfig": {}}, {"runtimeConfig": {"cgroupPath": "/x", "io.kubernetes.cri.pod-annotations": {"a": "b"}}},
    ],
)  # fmt: skip
def test_p6_what_is_not_understood_is_no_error(extra: dict[str, Any]) -> None:
    found = parsed(extra)
    assert found.document.raw == MINIMAL | extra
    assert json.loads(found.data) == MINIMAL | extra


def test_h5_the_document_for_delegates_is_what_came_in() -> None:
    data = b'{ "NAME":"n",\t"big": 1e400, "x":{"dup":1,"dup":2}, "u":"\\u00e9" }'
    assert config.parse(config.decode_named(data), "ADD", {}, data).data is data


def test_1_11_capabilities_with_the_keys_of_the_conventions() -> None:
    assert parsed({"runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"},
                         {"hostPort": 1, "containerPort": 65535}],
        "bandwidth": {"ingressRate": 2048, "ingressBurst": 1600, "egressRate": 4096, "egressBurst": 1600},
        "ips": ["10.0.0.5/24", "FD00::5"],
        "ipRanges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.19",
                       "gateway": "10.0.0.254"}], [{"subnet": "fd00::/64"}]],
        "mac": "C2-11-22-33-44-55",
        "dns": {"servers": ["8.8.8.8"], "searches": ["x"], "options": ["o"]},
        "aliases": ["web"],
    }}).runtime == RuntimeConfig(
        (PortMapping(8080, 80, "udp", "127.0.0.1"), PortMapping(1, 65535)),
        Bandwidth(2048, 1600, 4096, 1600),
        ("10.0.0.5/24", "fd00::5"),
        ((IPRange("10.0.0.0/24", "10.0.0.9", "10.0.0.19", "10.0.0.254"),), (IPRange("fd00::/64"),)),
        "c2:11:22:33:44:55",
        DNS(("8.8.8.8",), "", ("x",), ("o",)),
        ("web",),
    )  # fmt: skip


def test_p7_capabilities_as_containerd_sends_them() -> None:
    found = parsed({"runtimeConfig": {
        "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""}],
        "bandwidth": {"IngressRate": 1, "IngressBurst": 4294967295, "EgressRate": 2**64 - 1, "EgressBurst": 3},
        "dns": {"Servers": ["8.8.8.8"], "Searches": ["x"], "Options": None},
        "ipRanges": [[{"Subnet": "10.0.0.0/24", "RangeStart": "", "RangeEnd": "", "Gateway": ""}]],
    }}).runtime  # fmt: skip
    assert found.port_mappings == (PortMapping(8080, 80),)
    assert found.bandwidth == Bandwidth(1, 4294967295, 2**64 - 1, 3)
    assert found.dns == DNS(("8.8.8.8",), "", ("x",))
    assert found.ip_ranges == ((IPRange("10.0.0.0/24"),),)


@pytest.mark.parametrize(("sent", "found"), [({"net": ["a", "b"]}, ("a", "b")), ({"other": ["a"]}, ())])
def test_1_11_aliases_as_podman_sends_them(sent: object, found: tuple[str, ...]) -> None:
    assert parsed({"runtimeConfig": {"aliases": sent}}).runtime.aliases == found


@pytest.mark.parametrize(
    ("runtime", "args", "arguments", "mac", "ips"),
    [
        ("1", "2", "3", "1", "1"),
        ("", "2", "3", "2", "2"),
        ("", "", "3", "3", "3"),
        ("1", "", "3", "1", "1"),
        ("", "", "", "", ""),
    ],
)
def test_1_11_runtime_config_before_args_before_cni_args(
    runtime: str, args: str, arguments: str, mac: str, ips: str
) -> None:
    def mac_of(digit: str) -> str:
        return f"02:00:00:00:00:0{digit}" if digit else ""

    def ips_of(digit: str) -> list[str]:
        return [f"10.0.0.{digit}"] if digit else []

    found = parsed(
        {
            "runtimeConfig": {"mac": mac_of(runtime), "ips": ips_of(runtime)},
            "args": {"cni": {"mac": mac_of(args), "ips": ips_of(args)}},
        },
        arguments={"MAC": mac_of(arguments), "IP": "".join(ips_of(arguments))},
    )
    assert (found.mac, found.ips) == (mac_of(mac), tuple(ips_of(ips)))


def test_1_11_several_addresses_in_cni_args() -> None:
    assert parsed({}, arguments={"IP": "10.0.0.1/24, fd00::1"}).ips == ("10.0.0.1/24", "fd00::1")


def test_c4_prev_result_in_the_shape_of_the_configurations_version() -> None:
    assert parsed({}).prev_result is None
    assert parsed({"prevResult": {"ips": [{"address": "10.0.0.1/8"}]}}).prev_result == Result(ips=(IP("10.0.0.1/8"),))
    old = parsed({"cniVersion": "0.2.0", "prevResult": {"ip4": {"ip": "10.0.0.1/8"}}})
    assert old.prev_result == Result(ips=(IP("10.0.0.1/8"),))


ONE = [{"containerID": "c1", "ifname": "eth0"}]


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ({"cni.dev/valid-attachments": ONE}, {("c1", "eth0")}),
        ({"cni.dev/attachments": ONE}, {("c1", "eth0")}),
        ({"cni.dev/valid-attachments": [], "cni.dev/attachments": ONE}, set()),
        ({"cni.dev/valid-attachments": []}, set()),
        ({"cni.dev/valid-attachments": None}, set()),  # Go's empty slice
    ],
)
def test_c9_valid_attachments(extra: dict[str, Any], found: set[tuple[str, str]]) -> None:
    assert parsed(extra, "GC").valid_attachments == found


def test_g3_a_missing_list_is_not_an_empty_one() -> None:
    assert "cni.dev/valid-attachments" in refused(lambda: parsed({}, "GC"), INVALID_CONFIG).msg
    assert parsed({}).valid_attachments is None


@pytest.mark.parametrize("value", [{}, "x", [1], [{"containerID": 1}]])
def test_c9_a_list_that_cannot_be_read_is_not_an_empty_one(value: object) -> None:
    refused(lambda: parsed({"cni.dev/valid-attachments": value}, "GC"), DECODING_FAILURE)
