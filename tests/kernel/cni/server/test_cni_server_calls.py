"""A call through the server is the same call: where its caller stands, with what its caller sees."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[4]
Calls = Callable[[], list[tuple[str, str, bool]]]


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_life_by_every_executable(
    servers: Any, host: Any, plugin: Any, conf: dict[str, Any], calls: Calls, warm: bool
) -> None:
    if warm:
        servers.start()  # it stands in another network namespace than its callers
    result = plugin.add(conf)
    assert host.addresses("eth0", "c1") == [ip["address"] for ip in result["ips"]]
    assert host.link(result["interfaces"][1]["name"])["master"] == "br0"
    assert plugin.call("CHECK", conf | {"prevResult": result}) == (0, None, "")
    assert plugin.call("STATUS", conf) == (0, None, "")
    code, error, _ = plugin.call("ADD", conf)
    assert (code, error["code"], "already exists" in error["msg"]) == (1, 999, True)
    assert plugin.call("DEL", conf) == (0, None, "")
    assert plugin.call("GC", conf | {"cni.dev/valid-attachments": []}) == (0, None, "")
    assert [each["ifname"] for each in host.ip("link", netns="c1")] == ["lo"]
    assert sorted(each["ifname"] for each in host.ip("link")) == ["br0", "lo"]
    verbs = ["ADD", "CHECK", "STATUS", "ADD", "DEL", "GC"]
    assert calls() == [(verb, "c1", warm) for verb in verbs]


def test_the_hosts_neighbours_survive_an_add(servers: Any, host: Any, plugin: Any, conf: dict[str, Any]) -> None:
    """Fixing a bridge's MAC makes the kernel forget them: it is done once for each bridge."""
    servers.start()
    for mac in ("02:00:00:00:00:01", "02:00:00:00:00:02"):
        host.tool("ip", "link", "add", "br0", "type", "bridge")
        host.tool(
            "ip", "link", "add", "port0", "address", mac, "master", "br0", "type", "veth", "peer", "name", "port1"
        )
        assert host.link("br0")["address"] == mac
        plugin.add(conf)
        host.tool("ip", "link", "delete", "port0")
        assert host.link("br0")["address"] == mac, "no port changes it any more"
        host.tool("ip", "neighbour", "add", "10.1.2.99", "lladdr", "02:00:00:00:00:99", "dev", "br0")
        plugin.add(conf, "c2")
        assert "10.1.2.99" in [each["dst"] for each in host.ip("neighbour", "show", "dev", "br0")]
        for container in ("c1", "c2"):
            assert plugin.call("DEL", conf, container)[0] == 0
        host.tool("ip", "link", "delete", "br0")


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_p4_p10_nothing_is_waited_for(servers: Any, plugin: Any, warm: bool) -> None:
    if warm:
        servers.start()
    for command, data in (("VERSION", '{"cniVersion": "0.4.0"}'), ("VERSION", ""), ("", "")):
        environ = plugin.environ(command, "c", "eth0")
        reader, writer = os.pipe()
        try:
            os.write(writer, data.encode())  # and left open
            done = subprocess.run([plugin.path], env=environ, stdin=reader, capture_output=True, text=True, timeout=60)
        finally:
            os.close(reader)
            os.close(writer)
        assert done.returncode == 0
        if command:
            assert json.loads(done.stdout)["cniVersion"] == ("0.4.0" if data else "1.1.0")
        else:
            assert (done.stdout, "CNI protocol versions supported: 0.1.0" in done.stderr) == ("", True)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "</"])
def test_p4_closed_and_unreadable_streams(
    servers: Any, small: Any, conf: dict[str, Any], closed: str, calls: Calls
) -> None:
    servers.start()
    done = subprocess.run(
        ["bash", "-c", f"{small.path} {closed}"],
        env=small.environ("STATUS", "c", "eth0"),
        input=json.dumps(conf).encode(),
        capture_output=True,
    )
    if "<" in closed:
        assert done.returncode == 1
        assert ">" in closed or json.loads(done.stdout)["code"] == 5
    else:
        assert done.returncode == 0


def test_the_callers_mounts_are_what_counts(
    servers: Any, host: Any, small: Any, conf: dict[str, Any], calls: Calls, tmp_path: Path
) -> None:
    servers.start()
    # Only the caller sees this namespace, this state, and no modules of ours.
    script = f"""
        mount -t tmpfs caller /run/netns
        mount -t tmpfs caller /var/lib/cni
        ip netns add only-here
        mount -t tmpfs caller {ROOT}/podnet
        {small.path}
        code=$?
        ip -n only-here -j address show eth0 >{tmp_path}/address
        cp /var/lib/cni/podnet/calls.jsonl {tmp_path}
        exit $code
    """
    environ = small.environ("ADD", "only-here", "eth0")
    argv = ["unshare", "--mount", "bash", "-c", script]
    done = subprocess.run(argv, env=environ, input=json.dumps(conf), capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout, done.stderr)
    address = json.loads(done.stdout)["ips"][0]["address"].partition("/")[0]
    seen = json.loads((tmp_path / "address").read_text())[0]["addr_info"]
    assert address in [each["local"] for each in seen]
    assert json.loads((tmp_path / "calls.jsonl").read_text())["warm"] is True
    assert calls() == []  # nothing of it in the server's own /var/lib/cni


def test_a_caller_that_the_server_cannot_follow_is_served_cold(
    servers: Any, host: Any, small: Any, conf: dict[str, Any], calls: Calls
) -> None:
    servers.start()
    # In a PID namespace of its own, with a /proc in which the server does not exist.
    before = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    small.add(conf, before=before)
    assert calls() == [("ADD", "c1", False)]


def test_what_a_delegate_says_arrives(
    servers: Any, host: Any, plugin: Any, conf: dict[str, Any], compiled: Path, tmp_path: Path
) -> None:
    servers.start()
    delegate = tmp_path / "talks"
    delegate.write_text('#!/bin/sh\necho "a word of the delegate" >&2\necho \'{"cniVersion": "1.1.0", "ips": []}\'\n')
    delegate.chmod(0o755)
    code, error, said = plugin.call("ADD", conf | {"ipam": {"type": "talks"}}, CNI_PATH=str(tmp_path))
    assert (code, error["msg"]) == (1, "IPAM plugin returned missing IP config")
    assert "a word of the delegate" in said


def test_only_root_is_served(servers: Any, host: Any) -> None:
    server = servers.start()
    subprocess.run(["chmod", "666", servers.socket], check=True)
    script = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.connect(sys.argv[1])\n"
        "files = [os.memfd_create('x') for _ in range(4)]\n"
        "files += [os.open('/', os.O_PATH), os.open('/proc/self/ns/net', 0)]\n"
        "try:\n"
        "    socket.send_fds(s, [b'podnet-cni 2'], files)\n"
        "    print(s.recv(10))\n"
        "except (BrokenPipeError, ConnectionResetError):\n"
        "    print(b'')\n"  # it has ended the connection already
    )
    done = subprocess.run(["python3", "-c", script, servers.socket], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "b''\n"), done.stderr
    assert server.poll() is None


def test_a_server_that_is_not_roots_is_not_asked(
    servers: Any, host: Any, plugin: Any, conf: dict[str, Any], calls: Calls
) -> None:
    subprocess.run(["chmod", "777", servers.socket.parent], check=True)
    script = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.bind(sys.argv[1])\n"
        "s.listen()\n"
        "print(flush=True)\n"
        "print(s.accept()[0].recv(100) or 'nothing')\n"
    )
    with subprocess.Popen(["python3", "-c", script, servers.socket], stdout=subprocess.PIPE, text=True) as false:
        assert false.stdout is not None
        false.stdout.readline()
        plugin.add(conf)
        assert false.stdout.read() == "nothing\n"
    assert calls() == [("ADD", "c1", False)]


@pytest.mark.parametrize("word", [b"podnet-cni 99", b"", b"\0" * 60])
def test_what_is_no_call_is_dropped(servers: Any, host: Any, small: Any, conf: dict[str, Any], word: bytes) -> None:
    servers.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(60)
        connection.connect(str(servers.socket))
        socket.send_fds(connection, [word], [0] * (6 if word else 0))
        assert connection.recv(10) == b""
    small.add(conf)


def test_silent_callers_hold_nobody_up(servers: Any, host: Any, small: Any, conf: dict[str, Any], calls: Calls) -> None:
    servers.start()
    silent = []
    try:
        for _ in range(20):
            silent.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            silent[-1].connect(str(servers.socket))
        small.add(conf)
        assert calls() == [("ADD", "c1", True)]
    finally:
        for each in silent:
            each.close()


def test_more_than_it_may_send_is_refused(servers: Any, host: Any, small: Any, conf: dict[str, Any]) -> None:
    server = servers.start()
    given = os.memfd_create("much")
    try:
        os.ftruncate(given, 70 << 20)
        done = subprocess.run(
            [small.path], env=small.environ("ADD", "c1", "eth0"), stdin=given, capture_output=True, timeout=60
        )
    finally:
        os.close(given)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 5)
    assert server.poll() is None
    small.add(conf)


def test_everything_is_loaded_before_the_first_call(state: Path, host: Any, conf: dict[str, Any]) -> None:
    conf |= {"portMappings": [], "cniVersion": "1.1.0"}
    script = f"""
import json, os, sys
sys.path.insert(0, {str(ROOT)!r})
from podnet.cni.server.preload import preload
preload()
from podnet.cni.plugin.main import answer
before = set(sys.modules)
conf = json.loads(sys.argv[1])
result = {{}}
for verb in ("ADD", "CHECK", "STATUS", "DEL", "GC", "VERSION", "NOPE"):
    environ = {{"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0",
               "CNI_PATH": "/nowhere"}}
    given = conf | {{"cni.dev/valid-attachments": []}} | ({{"prevResult": result}} if result else {{}})
    code, output, _ = answer(environ, lambda: json.dumps(given).encode())
    assert (code == 0) == (verb != "NOPE"), output
    if verb == "ADD":
        result = json.loads(output)
environ["CNI_COMMAND"] = "ADD"
answer(environ, lambda: b"nonsense")
answer(environ, lambda: json.dumps(conf | {{"ipam": {{"type": "no-such"}}}}).encode())
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        ["python3", "-IS", "-c", script, json.dumps(conf)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
