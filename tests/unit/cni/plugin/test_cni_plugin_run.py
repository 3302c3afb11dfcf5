"""The plugin's entry without a kernel: VERSION, order of checks, errors as JSON, and what is imported (1.1, 1.8)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import podnet
from podnet.cni.attachment import label_of, plugin_host_name
from podnet.cni.plugin.bridge import conflicting
from podnet.cni.plugin.main import run
from podnet.cni.spec.errors import CNIError
from podnet.kernel.objects import Address

STATE = "/proc/podnet-cannot-be-made"  # nothing in here may touch it
BASE = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/run/netns/absent", "CNI_IFNAME": "eth0", "CNI_PATH": "/nowhere"}


def call(command: str, data: object, **environ: str) -> tuple[int, Any]:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    code, output = run({"CNI_COMMAND": command, **BASE, **environ}, lambda: raw, state=STATE)
    return code, json.loads(output) if output else None


def unreadable() -> bytes:
    raise CNIError(5, "error reading from stdin: Bad file descriptor")


@pytest.mark.parametrize(
    ("read", "version"),
    [
        (unreadable, "1.1.0"),
        (lambda: b"", "1.1.0"),
        (lambda: b"nonsense", "1.1.0"),
        (lambda: b'{"cniVersion": "0.4.0"}', "0.4.0"),
    ],
)
def test_v1_v2_p4_version_needs_nothing_but_its_name(read: Callable[[], bytes], version: str) -> None:
    code, output = run({"CNI_COMMAND": "VERSION"}, read, state=STATE)
    answer = json.loads(output)
    assert (code, answer["cniVersion"], answer["supportedVersions"][-1]) == (0, version, "1.1.0")


def test_p4_p10_the_executable_waits_for_nothing() -> None:
    argv = [sys.executable, "-c", "import sys; from podnet.cni.plugin.main import main; sys.exit(main())"]
    for command in ("", "VERSION"):
        # An open, empty standard input: a plugin that waits for its end would wait for ever.
        with subprocess.Popen(
            argv, env={"CNI_COMMAND": command}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.wait(30) == 0
            assert process.stdout is not None
            assert process.stderr is not None
            output, said = process.stdout.read(), process.stderr.read()
        assert (bool(output), b"CNI protocol versions supported: 0.1.0" in said) == (bool(command), not command)


@pytest.mark.parametrize(
    ("command", "data", "environ", "code"),
    [
        ("ADD", b"{", {"CNI_IFNAME": ""}, 4),
        ("ADD", b"{", {}, 6),
        ("ADD", {"cniVersion": "9.9.9"}, {}, 7),
        ("ADD", {"cniVersion": "9.9.9", "name": "n"}, {}, 1),
        ("NOPE", {"name": "n"}, {}, 4),
        ("CHECK", {"cniVersion": "0.3.1", "name": "n"}, {}, 1),
        ("GC", {"cniVersion": "1.0.0", "name": "n"}, {}, 1),
        ("STATUS", {"cniVersion": "1.0.0", "name": "n"}, {}, 1),
        ("ADD", {"cniVersion": "1.1.0", "name": "n", "mode": "other"}, {}, 2),
        ("ADD", {"cniVersion": "1.1.0", "name": "n", "mtu": "big"}, {}, 6),
        ("ADD", {"cniVersion": "1.1.0", "name": "n", "ipam": {"type": "podnet"}}, {}, 3),
    ],
)
def test_1_1_order_of_checks(command: str, data: object, environ: dict[str, str], code: int) -> None:
    exit_code, error = call(command, data, **environ)
    assert (exit_code, error["code"]) == (1, code), error


def test_e1_the_error_bears_the_configurations_version() -> None:
    assert call("ADD", {"cniVersion": "1.0.0", "name": "n", "mode": "other"})[1]["cniVersion"] == "1.0.0"


def test_p12_an_error_of_our_own_is_an_error_object_too() -> None:
    def broken() -> bytes:
        raise ZeroDivisionError("by zero")

    code, output = run({"CNI_COMMAND": "ADD", **BASE}, broken, state=STATE)
    assert (code, json.loads(output)) == (1, {"code": 999, "msg": "unexpected ZeroDivisionError: by zero"})


KEYS = [
    "name",
    "cniVersion",
    "mode",
    "bridge",
    "mtu",
    "vlan",
    "ipam",
    "dns",
    "runtimeConfig",
    "args",
    "prevResult",
    "portmap",
    "firewall",
    "type",
    "ranges",
    "subnet",
    "routes",
    "dst",
    "ips",
    "portMappings",
    "hostPort",
    "backend",
    "conditionsV4",
    "ingressPolicy",
    "iptablesAdminChainName",
    "interfaces",
    "aliases",
]
WORDS = ["net", "1.1.0", "podnet", "ptp", "portmap", "firewall", "-s", "firewalld"]


@given(
    command=st.sampled_from(["ADD", "CHECK", "STATUS", "VERSION", ""]),
    conf=st.dictionaries(
        st.sampled_from(KEYS[:13]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(WORDS),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS[13:]), inner, max_size=3),
            max_leaves=6,
        ),
    ),
    ifname=st.text(max_size=20),
)
def test_p1_p2_whatever_comes_in_one_json_object_or_nothing_goes_out(
    command: str, conf: dict[str, Any], ifname: str
) -> None:
    environ = {"CNI_COMMAND": command, **BASE, "CNI_IFNAME": ifname}
    code, output = run(environ, lambda: json.dumps(conf).encode(), state=STATE)
    assert code in (0, 1)
    if code:
        error = json.loads(output)
        assert isinstance(error["code"], int)
        assert "unexpected" not in error["msg"], error


def test_nothing_heavy_is_imported_for_a_call() -> None:
    heavy = [
        "asyncio", "click", "concurrent", "email", "ipaddress", "logging", "netaddr", "pathlib", "pydantic", "pyroute2",
        "rich", "scapy", "subprocess", "urllib", "yaml",
    ]  # fmt: skip
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import podnet.cni.plugin.main, podnet.cni.plugin.add, podnet.cni.plugin.check, podnet.cni.plugin.clean\n"
        "import podnet.cni.plugin.machine, podnet.cni.plugin.settings, podnet.cni.runtime.invoke\n"
        "print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    root = str(Path(podnet.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, root], capture_output=True, text=True, check=True, cwd="/"
    )
    assert not set(heavy) & set(done.stdout.split())


@pytest.mark.parametrize(
    ("network", "container", "ifname"),
    [("a.b", "c", "eth0"), ("a", "b.c", "eth0"), ("n" * 200, "c", "eth0"), ("n", "c" * 200, "eth0"), ("a", "b", "c.0")],
)
def test_labels_are_unambiguous_and_fit(network: str, container: str, ifname: str) -> None:
    label = label_of(network, container, ifname)
    assert label.startswith("podnet.")
    assert len(label) <= 127
    assert label != label_of("a.b.c", "eth0", "x")
    assert len(plugin_host_name(label)) <= 15


def test_labels_are_readable_and_differ() -> None:
    assert label_of("net", "c1", "eth0") == "podnet.net.c1.eth0"
    assert label_of("a.b", "c", "eth0") != label_of("a", "b.c", "eth0")


@pytest.mark.parametrize(
    ("wanted", "there", "conflicts"),
    [
        ("10.0.0.1/24", "10.0.0.1/24", False),
        ("10.0.0.1/24", "10.0.0.2/24", True),
        ("10.0.0.1/24", "192.0.2.1/24", True),
        ("10.0.0.1/24", "fd00::1/64", False),
        ("fd00::1/64", "fd00::2/64", True),
        ("fd00::1/64", "fd00::1/48", True),
        ("fd00:0:0:1::1/64", "fd00::1/48", True),
        ("fd00:0:0:1::1/64", "fd00::1/64", False),
    ],
)
def test_3_1_12_which_addresses_cannot_stand_together(wanted: str, there: str, conflicts: bool) -> None:
    assert conflicting(Address("", "br0", wanted), Address("", "br0", there)) is conflicts
