"""One call: which error comes first, and that nothing but a ``CNIError`` ever comes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import podnet
from podnet.cni.spec import request, result, versions
from podnet.cni.spec.errors import CNIError

ENVIRON = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
CONFIG = b'{"cniVersion":"1.1.0","name":"n","type":"podnet"}'


def error_of(environ: dict[str, str], data: bytes) -> CNIError:
    with pytest.raises(CNIError) as caught:
        request.parse(environ, lambda: data)
    return caught.value


# Each row has a fault that is found before the faults of the rows below, and those as well.
ORDER = [
    (
        {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "a/b", "CNI_NETNS": ""},
        b"{",
        (4, "CNI_CONTAINERID: invalid characters in containerID"),
    ),
    ({"CNI_NETNS": ""}, b"{", (4, "required env variables [CNI_NETNS] missing")),
    ({"CNI_COMMAND": "NOPE"}, b"{", (6, "error unmarshall network config")),
    ({"CNI_COMMAND": "NOPE"}, b'{"cniVersion":"x"}', (7, "missing network name")),
    ({"CNI_COMMAND": "NOPE"}, b'{"cniVersion":"x","name":"n"}', (4, "unknown CNI_COMMAND: NOPE")),
    ({"CNI_COMMAND": "CHECK"}, b'{"cniVersion":"x","name":"n"}', (6, "invalid version")),
    ({"CNI_COMMAND": "CHECK"}, b'{"cniVersion":"0.3.2","name":"n"}', (1, "config version does not allow CHECK")),
    ({"CNI_ARGS": "x"}, b'{"cniVersion":"9.0.0","name":"n","ipam":1}', (1, "incompatible CNI versions")),
    ({"CNI_ARGS": "x"}, b'{"cniVersion":"1.0.0","name":"n","ipam":1}', (4, "CNI_ARGS: invalid pair")),
    ({}, b'{"cniVersion":"1.0.0","name":"n","ipam":1}', (6, "ipam must be an object")),
]


@pytest.mark.parametrize(("environ", "data", "expected"), ORDER)
def test_order_of_checks(environ: dict[str, str], data: bytes, expected: tuple[int, str]) -> None:
    error = error_of(ENVIRON | environ, data)
    assert error.code == expected[0]
    assert error.msg.startswith(expected[1])


def test_a_failing_read_comes_after_the_environment() -> None:
    def read() -> bytes:
        raise CNIError(5, "error reading from stdin: x")

    for environ, code in (({"CNI_NETNS": ""}, 4), ({}, 5)):
        with pytest.raises(CNIError) as caught:
            request.parse(ENVIRON | environ, read)
        assert caught.value.code == code


def test_p4_version_does_not_read() -> None:
    def read() -> bytes:
        pytest.fail("VERSION read standard input")

    assert request.parse({"CNI_COMMAND": "VERSION"}, read).config is None


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL", "STATUS"])
@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_a12_every_version_is_taken(command: str, version: str) -> None:
    data = json.dumps({"cniVersion": version, "name": "n"}).encode()
    refused = (command == "CHECK" and version < "0.4.0") or (command == "STATUS" and version < "1.1.0")
    if refused:
        assert error_of(ENVIRON | {"CNI_COMMAND": command}, data).msg == f"config version does not allow {command}"
        return
    found = request.parse(ENVIRON | {"CNI_COMMAND": command}, lambda: data)
    assert found.config is not None
    assert (found.config.version, found.command) == (version, command)


def test_d2_del_is_not_stopped_by_cni_args() -> None:
    found = request.parse(ENVIRON | {"CNI_COMMAND": "DEL", "CNI_ARGS": "nonsense"}, lambda: CONFIG)
    assert found.arguments == {}


@pytest.mark.parametrize("command", ["GC", "STATUS"])
def test_s5_arguments_are_no_matter_without_an_attachment(command: str) -> None:
    data = CONFIG[:-1] + b',"cni.dev/valid-attachments":[]}'
    assert request.parse(ENVIRON | {"CNI_COMMAND": command, "CNI_ARGS": "nonsense"}, lambda: data).arguments == {}


@pytest.mark.parametrize(
    ("data", "version"),
    [(CONFIG, "1.1.0"), (b'{"cniVersion":"9.9.9"}', "9.9.9"), (b'{"cniVersion":"x"}', ""), (b"", ""), (b"{}", "")],
)
def test_v1_the_version_to_echo(data: bytes, version: str) -> None:
    assert request.version_of(data) == version


KEYS = st.sampled_from(
    ["name", "cniVersion", "type", "ipMasq", "ipam", "dns", "prevResult", "runtimeConfig", "args", "cni", "ips", "ip4",
     "ip6", "ip", "address", "gateway", "interface", "interfaces", "routes", "dst", "gw", "mtu", "table", "mac",
     "portMappings", "hostPort", "containerPort", "protocol", "hostIP", "HostPort", "bandwidth", "ingressRate",
     "ipRanges", "subnet", "aliases", "nameservers", "servers", "search", "cni.dev/valid-attachments", "containerID",
     "ifname", "Name", "NAME", "sandbox"]
) | st.text(max_size=4)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["10.0.0.1", "10.0.0.1/24", "::/0", "0.3.1", "1.1.0", "02:00:00:00:00:01", "net", "eth0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
DOCUMENT = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(KEYS, JSON, max_size=6).map(
        lambda value: json.dumps({"name": "n", "cniVersion": "1.1.0"} | value).encode()
    ),
)
VALUE = st.text(max_size=20) | st.sampled_from(
    ["", "eth0", "c1", "IP=10.0.0.1", "IgnoreUnknown=1;x=y", "MAC=zz", "/", "..", "true"]
)
VARIABLES = st.fixed_dictionaries(
    {},
    optional={
        "CNI_COMMAND": st.sampled_from([*versions.COMMANDS, "NOPE", ""]),
        **dict.fromkeys(
            ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH", "CNI_NETNS_OVERRIDE"], VALUE
        ),
    },
)


@settings(max_examples=1000)
@given(VARIABLES, DOCUMENT, st.booleans())
@example({"CNI_IFNAME": "\udc80"}, b"{}", True)
@example({}, b'{"name":"n","cniVersion":"' + b"1" * 5000 + b'"}', True)
def test_p12_any_environment_and_any_bytes(variables: dict[str, str], data: bytes, whole: bool) -> None:
    """Either a request or a ``CNIError`` whose object is JSON; and what was parsed can be written again."""
    environ = ENVIRON | variables if whole else variables
    try:
        found = request.parse(environ, lambda: data)
    except CNIError as error:
        value = json.loads(json.dumps(error.to_json(request.version_of(data))))
    else:
        value = {"code": 0}
    assert value["code"] in (0, 1, 4, 6, 7)
    if value["code"]:
        return
    if found.config is not None and found.config.prev_result is not None:
        assert result.to_json(found.config.prev_result, "1.1.0")["cniVersion"] == "1.1.0"


def test_the_hot_path_imports_little() -> None:
    """Interpreter start is most of a cold call: what is slow to import must not be among its imports."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(podnet.__file__).parent.parent)!r})\n"
        "from podnet.cni.spec import request\n"
        f"request.parse({ENVIRON!r}, lambda: {CONFIG!r})\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = done.stdout.split()
    slow = {"dataclasses", "inspect", "ipaddress", "subprocess", "socket", "logging", "pathlib", "asyncio", "click"}
    assert "podnet.cni.spec.request" in loaded
    assert slow.isdisjoint(loaded)
