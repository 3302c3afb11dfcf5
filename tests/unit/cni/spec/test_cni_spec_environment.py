"""CNI_* variables: what is required when, what is refused, in which order, in which words."""

from __future__ import annotations

import pytest

from podnet.cni.spec import environment
from podnet.cni.spec.errors import INVALID_ENVIRONMENT, CNIError

FULL = {
    "CNI_CONTAINERID": "some-container-id",
    "CNI_NETNS": "/run/netns/some",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
}
ALL_MISSING = {
    "ADD": "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH",
    "CHECK": "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH",
    "DEL": "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH",
    "GC": "CNI_PATH",
    "STATUS": "CNI_PATH",
}


def refused(environ: dict[str, str]) -> CNIError:
    with pytest.raises(CNIError) as caught:
        environment.parse(environ)
    assert caught.value.code == INVALID_ENVIRONMENT
    return caught.value


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION"])
def test_p1_all_variables_given(command: str) -> None:
    found = environment.parse({"CNI_COMMAND": command, **FULL})
    assert found.command == command
    assert found.container_id == "some-container-id"
    assert found.netns == "/run/netns/some"
    assert found.ifname == "eth0"
    assert found.args == "IgnoreUnknown=1;K8S_POD_NAME=web"
    assert found.path == ("/opt/cni/bin", "/usr/lib/cni")
    assert not found.netns_override


@pytest.mark.parametrize(("command", "names"), ALL_MISSING.items())
def test_p1_missing_ones_are_reported_together(command: str, names: str) -> None:
    assert refused({"CNI_COMMAND": command}).msg == f"required env variables [{names}] missing"


def test_p1_no_command() -> None:
    assert refused({}).msg == "required env variables [CNI_COMMAND] missing"
    assert refused(FULL | {"CNI_COMMAND": ""}).msg == "required env variables [CNI_COMMAND] missing"


@pytest.mark.parametrize(
    ("command", "name"),
    [(command, name) for command, names in ALL_MISSING.items() for name in names.split(",")],
)
def test_p1_one_missing_or_empty(command: str, name: str) -> None:
    without = {key: value for key, value in FULL.items() if key != name} | {"CNI_COMMAND": command}
    assert refused(without).msg == f"required env variables [{name}] missing"
    assert refused(without | {name: ""}).msg == f"required env variables [{name}] missing"


def test_d2_netns_may_be_missing_on_del() -> None:
    assert environment.parse({"CNI_COMMAND": "DEL", **FULL, "CNI_NETNS": ""}).netns == ""


def test_v2_version_needs_the_command_only() -> None:
    assert environment.parse({"CNI_COMMAND": "VERSION"}).command == "VERSION"


def test_an_unknown_command_is_no_matter_of_the_environment() -> None:
    assert environment.parse({"CNI_COMMAND": "NOPE"}).command == "NOPE"


@pytest.mark.parametrize("container_id", ["a", "A9", "0", "a.b-c_d", "x" * 64, "a..b"])
def test_container_ids_that_are_taken(container_id: str) -> None:
    assert environment.parse({"CNI_COMMAND": "ADD", **FULL, "CNI_CONTAINERID": container_id})


@pytest.mark.parametrize("container_id", ["-a", "_a", ".a", "../a", "a/b", "a b", "a\n", "ä", "a:b", "٣", "a\udcff"])
@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
def test_container_ids_that_are_refused(command: str, container_id: str) -> None:
    error = refused({"CNI_COMMAND": command, **FULL, "CNI_CONTAINERID": container_id})
    assert error.msg == "CNI_CONTAINERID: invalid characters in containerID"
    assert error.details == container_id


@pytest.mark.parametrize("ifname", ["eth0", "a", "x" * 15, "...", "net-1", "é" * 7])
def test_interface_names_that_are_taken(ifname: str) -> None:
    assert environment.parse({"CNI_COMMAND": "ADD", **FULL, "CNI_IFNAME": ifname}).ifname == ifname


@pytest.mark.parametrize(
    ("ifname", "message"),
    [
        ("x" * 16, "interface name is too long"),
        ("é" * 8, "interface name is too long"),
        (".", "interface name is . or .."),
        ("..", "interface name is . or .."),
        ("a/b", "interface name contains / or : or whitespace characters"),
        ("a:b", "interface name contains / or : or whitespace characters"),
        ("a b", "interface name contains / or : or whitespace characters"),
        ("a\tb", "interface name contains / or : or whitespace characters"),
        ("a\n", "interface name contains / or : or whitespace characters"),
        ("a\u00a0b", "interface name contains / or : or whitespace characters"),
        ("a\udcffb", "interface name is no UTF-8"),
    ],
)
def test_interface_names_that_are_refused(ifname: str, message: str) -> None:
    assert refused({"CNI_COMMAND": "ADD", **FULL, "CNI_IFNAME": ifname}).msg == message


def test_a_wrong_value_is_reported_before_the_missing_ones() -> None:
    wrong = refused({"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "no/id"})
    assert wrong.msg == "CNI_CONTAINERID: invalid characters in containerID"
    assert refused({"CNI_COMMAND": "ADD", "CNI_IFNAME": "a/b"}).msg.startswith("interface name contains")


@pytest.mark.parametrize("command", ["GC", "STATUS", "VERSION"])
def test_s5_values_that_a_command_does_not_use_are_not_checked(command: str) -> None:
    assert environment.parse({"CNI_COMMAND": command, **FULL, "CNI_CONTAINERID": "no/id", "CNI_IFNAME": "a/b"})


@pytest.mark.parametrize(
    ("text", "override"), [("1", True), ("true", True), ("True", True), ("0", False), ("yes", False), ("", False)]
)
def test_netns_override(text: str, override: bool) -> None:
    assert environment.parse({"CNI_COMMAND": "ADD", **FULL, "CNI_NETNS_OVERRIDE": text}).netns_override is override


def test_h4_empty_elements_of_the_path_are_dropped() -> None:
    assert environment.parse({"CNI_COMMAND": "GC", "CNI_PATH": ":/a::/b:"}).path == ("/a", "/b")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("IP=10.0.0.1", {"IP": "10.0.0.1"}),
        ("IP=10.0.0.1;MAC=aa:bb:cc:dd:ee:ff;GATEWAY=10.0.0.254",
         {"IP": "10.0.0.1", "MAC": "aa:bb:cc:dd:ee:ff", "GATEWAY": "10.0.0.254"}),
        ("IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.0.0.1", {"IP": "10.0.0.1"}),
        ("K8S_POD_NAMESPACE=n;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u;IgnoreUnknown=1", {}),
        ("IgnoreUnknown=true;x=1", {}),
        ("IgnoreUnknown=True;x=1", {}),
        ("IgnoreUnknown=0", {}),
        ("IP=", {"IP": ""}),
    ],
)  # fmt: skip
def test_cni_args_that_are_taken(text: str, found: dict[str, str]) -> None:
    assert environment.arguments(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", 'CNI_ARGS: invalid pair "x"'),
        ("a=b=c", 'CNI_ARGS: invalid pair "a=b=c"'),
        ("IP=10.0.0.1;", 'CNI_ARGS: invalid pair ""'),
        ("X=1", 'CNI_ARGS: unknown args ["X=1"]'),
        ("X=1;Y=2;IP=10.0.0.1", 'CNI_ARGS: unknown args ["X=1" "Y=2"]'),
        ("ip=10.0.0.1", 'CNI_ARGS: unknown args ["ip=10.0.0.1"]'),
        ("X=1;IgnoreUnknown=0", 'CNI_ARGS: unknown args ["X=1"]'),
        ("IgnoreUnknown=maybe", 'CNI_ARGS: error parsing value of pair "IgnoreUnknown=maybe": it is no boolean'),
    ],
)
def test_cni_args_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(CNIError) as caught:
        environment.arguments(text)
    assert (caught.value.code, caught.value.msg) == (INVALID_ENVIRONMENT, message)
