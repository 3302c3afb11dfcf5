"""Whatever comes in: one JSON object or nothing goes out, a refused ADD changes nothing, and no name is a path.

In process, with every file that Python or SQLite opens for writing looked at; and a sample as real processes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.kernel, pytest.mark.stress]

COUNT = int(os.environ.get("PODNET_STRESS_COUNT", "10"))
CNI = Path(__file__).resolve().parents[4] / "cni"
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")

# -- what comes in --------------------------------------------------------------------------------------------

NASTY = (
    "", " ", ".", "..", "../..", "/", "//", "../../etc/passwd", "a/../b", "/etc/passwd", "\0", "a\0b", "\n", "all",
    "default", "lo", "eth0.5", "%s", "%n%n", "$(id)", "';--", "x" * 16, "x" * 300, "-", "--", "é", "\ud800",
    "\uff10\uff11", "0", "1", "-1", "true", "null", "10.1.2.0/29", "10.1.2.5", "::", "fd00::/64", "0.0.0.0/0",
    "999.1.1.1", "1.1.0", "9.9.9",
)  # fmt: skip
names = st.sampled_from(NASTY) | st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | names
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
KEYS = (
    "name", "cniVersion", "type", "mode", "bridge", "isGateway", "isDefaultGateway", "forceAddress", "ipMasq",
    "ipMasqBackend", "mtu", "hairpinMode", "promiscMode", "vlan", "vlanTrunk", "macspoofchk", "portIsolation",
    "enabledad", "disableContainerInterface", "dns", "ipam", "args", "runtimeConfig", "prevResult", "capabilities",
    "cni.dev/valid-attachments", "cni.dev/attachments",
)  # fmt: skip
INNER = {
    "ipam": ("type", "subnet", "rangeStart", "rangeEnd", "gateway", "ranges", "routes", "dataDir", "resolvConf"),
    "runtimeConfig": ("portMappings", "bandwidth", "ips", "ipRanges", "mac", "dns", "aliases"),
    "args": ("cni",),
    "prevResult": ("cniVersion", "interfaces", "ips", "routes", "dns"),
    "dns": ("nameservers", "domain", "search", "options"),
}


def valid(state: Path) -> dict[str, Any]:
    return {
        "cniVersion": "1.1.0", "name": "net", "type": "podnet", "bridge": "br0", "isDefaultGateway": True,
        "ipMasq": True, "ipam": {"type": "host-local", "subnet": "10.1.2.0/29", "routes": [{"dst": "10.9.0.0/16"}]},
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
        "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/c1"}], "ips": []},
        "cni.dev/valid-attachments": [],
    }  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[str, str, Any]]:
    """Changes to a valid configuration: a key, perhaps one in it, and a value; or the key in other letters."""
    found = []
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from(KEYS))
        inner = draw(st.sampled_from(("", *INNER.get(key, ()))))
        found.append((key, inner, draw(values)))
    return found


def mutated(conf: dict[str, Any], changes: list[tuple[str, str, Any]]) -> dict[str, Any]:
    for key, inner, value in changes:
        if inner and isinstance(conf.get(key), dict):
            conf[key] = conf[key] | {inner: value}
        else:
            conf[key] = {inner: value} if inner else value
    return conf


environs = st.fixed_dictionaries(
    {},
    optional={
        "CNI_COMMAND": st.sampled_from(VERBS) | names,
        "CNI_CONTAINERID": names | st.just("c" * 300),
        "CNI_NETNS": names
        | st.sampled_from(
            [
                "/run/netns/../netns/c1",
                "/run/netns/absent",
                "/proc/self/ns/net",
                "/proc/self/ns/mnt",
                "/etc/passwd",
                "/run",
            ]
        ),
        "CNI_IFNAME": names,
        "CNI_ARGS": names | st.sampled_from(["IgnoreUnknown=1;K=V", "IP=10.1.2.4", "IP=;MAC=", "MAC=zz", "=;=", ";;"]),
        "CNI_PATH": names,
        "PODNET_CNI_SOCKET": names,
    },
)

# -- what is looked at ----------------------------------------------------------------------------------------

_written: list[str] | None = None
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _written is None:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES and isinstance(path, (str, bytes)):
            _written.append(os.fsdecode(path))
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.chmod", "os.truncate",
                   "sqlite3.connect"):  # fmt: skip
        _written.extend(os.fsdecode(each) for each in arguments if isinstance(each, (str, bytes)))


@contextmanager
def writes() -> Iterator[list[str]]:
    """The paths that are opened for writing, made, removed or renamed meanwhile."""
    global _written  # noqa: PLW0603 - a hook of the interpreter can neither be removed nor given data
    if _hook not in _installed:
        sys.addaudithook(_hook)
        _installed.append(_hook)
    _written = []
    try:
        yield _written
    finally:
        _written = None


_installed: list[Any] = []


def allowed(path: str, state: Path, data_dir: object) -> bool:
    folders = [str(state), *([data_dir] if isinstance(data_dir, str) and data_dir.startswith("/") else [])]
    if any(os.path.normpath(path) == path and (path == each or path.startswith(f"{each}/")) for each in folders):
        return True
    return re.fullmatch(r"/proc/sys/net/ipv[46]/(ip_forward|conf/[^/]+/[a-z0-9_]+)", path) is not None


def judge(code: int, output: bytes) -> dict[str, Any] | None:
    """The one JSON object, or nothing; an error has its shape, and is none of our own making."""
    assert code in (0, 1)
    if not output:
        assert code == 0
        return None
    answer = json.loads(output)
    assert isinstance(answer, dict)
    if code:
        assert isinstance(answer["code"], int)
        assert answer["code"] > 0
        assert isinstance(answer["msg"], str)
        assert answer["msg"]
        assert re.match(r"unexpected [A-Z]\w*: ", answer["msg"]) is None, answer
        assert "Traceback" not in output.decode()
    return answer


def reset(host: Any) -> None:
    """Take away what a call that succeeded has made, with the verbs themselves, and what all share, by hand."""
    import sqlite3
    from contextlib import closing

    path = host.state / "podnet.sqlite"
    if path.exists():
        with closing(sqlite3.connect(path)) as db:
            owners = {row[:3] for table in ("holder", "part") for row in db.execute(f"SELECT * FROM {table}")}  # noqa: S608
        for network, container, ifname in owners:
            conf = {"cniVersion": "1.1.0", "name": network, "type": "podnet", "cni.dev/valid-attachments": []}
            host.delete(conf, CNI_CONTAINERID=container, CNI_IFNAME=ifname, CNI_NETNS="")
            assert host.call("GC", conf) == (0, None)
    for link in host.ip("link"):
        if link.get("linkinfo", {}).get("info_kind") == "bridge":
            host.tool("ip", "link", "delete", link["ifname"])


@settings(max_examples=12 * COUNT, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(verb=st.sampled_from(VERBS), changes=mutations(), environ=environs)
@example(verb="ADD", changes=[], environ={})
@example(verb="ADD", changes=[("mode", "", ["portmap"])], environ={})
@example(verb="ADD", changes=[("mode", "", {})], environ={})
@example(verb="DEL", changes=[("mode", "", [1])], environ={})
@example(verb="ADD", changes=[("bridge", "", "all")], environ={})
@example(verb="ADD", changes=[("bridge", "", "attachments")], environ={})
@example(verb="ADD", changes=[], environ={"CNI_IFNAME": "default"})
@example(verb="ADD", changes=[], environ={"CNI_IFNAME": "é" * 7})
@example(verb="ADD", changes=[], environ={"CNI_NETNS": "/proc/self/ns/mnt"})
@example(verb="ADD", changes=[("ipam", "dataDir", "/proc/nowhere")], environ={})
@example(verb="ADD", changes=[("ipam", "dataDir", "/tmp/\0")], environ={})
@example(verb="ADD", changes=[("ipam", "resolvConf", "/tmp/\0")], environ={})
@example(verb="ADD", changes=[("ipam", "type", "../../../bin/sh")], environ={"CNI_PATH": "/bin"})
@example(verb="GC", changes=[("cni.dev/valid-attachments", "", [{"containerID": "../x", "ifname": "\0"}])], environ={})
def test_p1_p2_p12_whatever_comes_in(
    host: Any, verb: str, changes: list[tuple[str, str, Any]], environ: dict[str, str]
) -> None:
    reset(host)
    before = whole(host)
    conf = mutated(valid(host.state), changes)
    environ = {"CNI_COMMAND": verb} | environ
    data_dir = conf["ipam"].get("dataDir") if isinstance(conf.get("ipam"), dict) else None
    if isinstance(data_dir, str) and data_dir.startswith("/") and "\0" not in data_dir and "/proc/" not in data_dir:
        # The administrator's choice, wherever it leads: here, into the test's own folder.
        conf["ipam"]["dataDir"] = data_dir = f"{host.state}{os.path.normpath(f'/{data_dir}')}"
    with writes() as written:
        code, answer = host.raw(environ, encoded(conf))
    judge(code, answer)
    assert [path for path in written if not allowed(path, host.state, data_dir)] == []
    if code or environ["CNI_COMMAND"] not in ("ADD", "GC"):
        after = whole(host)
        assert after == before


def encoded(conf: dict[str, Any]) -> bytes:
    return json.dumps(conf).encode("utf-8", "surrogatepass")


def whole(host: Any) -> tuple[Any, ...]:
    """The host and all three containers; forwarding is switched on for good by an ADD, and is not looked at."""
    others = [sorted(each["ifname"] for each in host.ip("link", netns=name)) for name in ("c2", "c3")]
    return (*host.snapshot(), others)


@pytest.mark.parametrize("path", ["relative", "/tmp/\0"])
@pytest.mark.parametrize("key", ["dataDir", "resolvConf"])
def test_d2_what_add_refuses_del_finds_nothing_of(host: Any, key: str, path: str) -> None:
    conf = valid(host.state)
    conf["ipam"][key] = path
    code, error = host.call("ADD", conf)
    assert (code, error["code"], error["msg"].startswith(f"ipam.{key}: ")) == (1, 7, True)
    host.delete(conf)


@settings(max_examples=30 * COUNT, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
@example(data=b"[" * 200_000)
@example(data=b'{"name":' * 50_000)
@example(data=b'{"name": "net", "mtu": 1' + b"0" * 5000 + b"}")
@example(data=b'{"name": "net", "mtu": NaN}')
@example(data=b'{"name": "net", "mtu": 1e999}')
@example(data=b'{"name": "net", "bridge": "\\ud800"}')
@example(data=b"\xef\xbb\xbf{}")
@example(data=b"\xff\xfe{\0}\0")
def test_p4_whatever_stands_on_standard_input(host: Any, data: bytes) -> None:
    for verb in VERBS:
        judge(*host.raw({"CNI_COMMAND": verb}, data))


@pytest.mark.parametrize("executable", [path for path in (CNI / "podnet-python", CNI / "podnet") if path.exists()],
                         ids=lambda path: path.name)  # fmt: skip
@pytest.mark.parametrize(
    ("environ", "data"),
    [
        ({b"CNI_CONTAINERID": b"\xff\xfe"}, b'{"name": "net"}'),
        ({b"CNI_IFNAME": b"\xff"}, b'{"name": "net"}'),
        ({b"CNI_NETNS": b"/run/netns/\xff"}, b'{"name": "net"}'),
        ({b"CNI_NETNS": b"/proc/self/ns/pid"}, b'{"name": "net", "type": "podnet"}'),
        ({b"CNI_ARGS": b"IP=\xff"}, b'{"name": "net"}'),
        ({b"CNI_COMMAND": b"\xff"}, b'{"name": "net"}'),
        ({b"CNI_PATH": b"/\xff"}, b'{"name": "net", "ipam": {"type": "absent"}}'),
        ({}, b"[" * 100_000),
        ({}, b'{"name": "net", "bridge": "\\ud800"}'),
        ({}, b"\xff"),
        ({b"LANG": b"C", b"PYTHONIOENCODING": b"ascii"}, '{"name": "net", "mode": "\u00e9"}'.encode()),
    ],
    ids=str,
)
def test_a_sample_as_real_processes(
    host: Any, executable: Path, environ: dict[bytes, bytes], data: bytes, tmp_path: Path
) -> None:
    base = {b"CNI_COMMAND": b"ADD", b"CNI_CONTAINERID": b"c1", b"CNI_NETNS": b"/run/netns/absent",
            b"CNI_IFNAME": b"eth0", b"CNI_PATH": b"/nowhere", b"PODNET_CNI_SOCKET": b""}  # fmt: skip
    # What it writes down of the call stays in a /var/lib of its own.
    own = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none /var/lib; exec "$0"', executable]
    done = subprocess.run(own, env=base | environ, input=data, capture_output=True)
    assert judge(done.returncode, done.stdout) is not None
    assert done.stderr == b""
