"""The server may start, end, hang and be killed at any time: no call is lost, and none is made twice."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from podnet.cni.plugin.call import turn
from podnet.ipam.ledger import Owner

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[4]
ROUNDS = int(os.environ.get("PODNET_STRESS_COUNT", "10"))
Calls = Callable[[], list[tuple[str, str, bool]]]


def until(true: Callable[[], Any], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.01)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A network whose IPAM plugin says that it was called, and then waits for a file."""
    path = tmp_path / "slow"
    path.write_text(
        "#!/bin/bash\n"
        f'cd {tmp_path}; touch "began-$CNI_COMMAND-$CNI_CONTAINERID"\n'
        'until [ -e "go-$CNI_CONTAINERID" ]; do sleep 0.02; done\n'
        '[ $CNI_COMMAND = ADD ] && echo \'{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24"}]}\'\n'
        "exit 0\n"
    )
    path.chmod(0o755)
    yield {"cniVersion": "1.1.0", "name": "slow", "type": "podnet", "bridge": "br1", "ipam": {"type": "slow"}}
    for name in ("c1", "c2", "c3"):
        (tmp_path / f"go-{name}").touch()


def nothing_is_left(host: Any, state: Path) -> None:
    assert not [each["ifname"] for each in host.ip("link") if each["ifname"].startswith("veth")]
    for name in ("c1", "c2", "c3"):
        assert [each["ifname"] for each in host.ip("link", netns=name)] == ["lo"]
    assert host.elements() == set()
    host.state = state
    assert [host.ledger(table) for table in ("holder", "lease", "part", "element")] == [[], [], [], []]


def waits_for_its_turn(files: Path) -> bool:
    for each in files.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(each).endswith("attachments.lock"):
                return True
    return False


@pytest.mark.stress
def test_it_may_be_killed_at_any_moment(
    servers: Any, host: Any, small: Any, conf: dict[str, Any], state: Path, calls: Calls
) -> None:
    conf["ipam"] = {"type": "host-local", "subnet": "10.1.2.0/28"}
    rng = random.Random(20)  # noqa: S311 - moments, no secrets
    outcomes = {"lost": 0, "done": 0}

    def one(command: str, name: str) -> None:
        code, answer, said = small.call(command, conf, name)
        if code:
            # The only call that may fail is the ADD whose server was killed; its DEL must clean up.
            assert command == "ADD", (answer, said)
            assert (answer["code"], "has ended during this ADD" in answer["msg"]) == (11, True), (answer, said)
            outcomes["lost"] += 1
        else:
            outcomes["done"] += 1

    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for _ in range(2):
                one("ADD", name)
                one("DEL", name)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            failures.append(error)

    server = servers.start()
    started = time.monotonic()
    small.add(conf)
    assert small.call("DEL", conf) == (0, None, "")
    took = 3 * (time.monotonic() - started)  # three call at once; on this machine, as busy as it is
    server.kill()
    server.wait()
    servers.socket.unlink()  # so that start() can see the next server's
    for _ in range(ROUNDS):
        server = servers.start()
        threads = [threading.Thread(target=work, args=(name,)) for name in ("c1", "c2", "c3")]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0, took))
        server.kill()
        server.wait()
        for thread in threads:
            thread.join()
        assert not failures, failures
        servers.socket.unlink()
        nothing_is_left(host, state)
    assert {warm for _, _, warm in calls()} == {True, False}
    assert outcomes["done"] > outcomes["lost"]
    # And the state of so many deaths still serves.
    servers.start()
    small.add(conf)
    assert small.call("DEL", conf) == (0, None, "")


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_killed_in_the_middle_of_a_call(
    servers: Any, host: Any, plugin: Any, slow: dict[str, Any], state: Path, tmp_path: Path, command: str
) -> None:
    server = servers.start()
    if command == "DEL":
        (tmp_path / "go-c1").touch()
        plugin.add(slow, CNI_PATH=str(tmp_path))
        (tmp_path / "go-c1").unlink()
    process = plugin.start(command, slow, CNI_PATH=str(tmp_path))
    until((tmp_path / f"began-{command}-c1").exists, "the delegate")
    (tmp_path / f"began-{command}-c1").unlink()
    server.kill()
    server.wait()
    if command == "ADD":
        output, said = process.communicate(timeout=60)
        assert process.returncode == 1, said
        assert json.loads(output)["code"] == 11
    else:  # may be made twice, and is: by the cold path
        until((tmp_path / "began-DEL-c1").exists, "the delegate's second call")
        (tmp_path / "go-c1").touch()
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0
    (tmp_path / "go-c1").touch()
    assert plugin.call("DEL", slow, CNI_PATH=str(tmp_path)) == (0, None, "")
    nothing_is_left(host, state)
    plugin.add(slow, CNI_PATH=str(tmp_path))
    assert plugin.call("DEL", slow, CNI_PATH=str(tmp_path)) == (0, None, "")


def test_a_hung_server_is_not_waited_for_and_makes_nothing_later(
    servers: Any, host: Any, small: Any, conf: dict[str, Any], calls: Calls
) -> None:
    server = servers.start()
    server.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        result = small.add(conf)
        assert time.monotonic() - started > 4
    finally:
        server.send_signal(signal.SIGCONT)
    # Calls are taken in their order: when this one is answered, the one that was given up has been looked at.
    assert small.call("STATUS", conf) == (0, None, "")
    assert calls() == [("ADD", "c1", False), ("STATUS", "c1", True)]
    assert host.addresses("eth0", "c1") == [ip["address"] for ip in result["ips"]]


def test_sigterm_answers_what_runs_and_takes_no_more(
    servers: Any, host: Any, plugin: Any, slow: dict[str, Any], conf: dict[str, Any], tmp_path: Path, calls: Calls
) -> None:
    server = servers.start()
    process = plugin.start("ADD", slow, CNI_PATH=str(tmp_path))
    until((tmp_path / "began-ADD-c1").exists, "the delegate")
    server.terminate()
    until(lambda: not servers.socket.exists(), "the socket's end")
    plugin.add(conf, "c2")
    assert server.poll() is None
    (tmp_path / "go-c1").touch()
    output, said = process.communicate(timeout=60)
    assert (process.returncode, json.loads(output)["ips"][0]["address"]) == (0, "10.9.0.5/24"), said
    assert server.wait(60) == 0
    assert calls() == [("ADD", "c2", False), ("ADD", "c1", True)]


def test_different_containers_at_once_the_same_one_in_turn(
    servers: Any, host: Any, small: Any, slow: dict[str, Any], tmp_path: Path, calls: Calls
) -> None:
    servers.start()
    first = small.start("ADD", slow, "c1", CNI_PATH=str(tmp_path))
    until((tmp_path / "began-ADD-c1").exists, "the first ADD")
    # Its runtime gives up, and calls DEL: this must not overtake the ADD, which goes on in the server.
    first.kill()
    first.communicate()
    gone = small.start("DEL", slow, "c1", CNI_PATH=str(tmp_path))
    (tmp_path / "go-c2").touch()
    assert small.call("ADD", slow, "c2", CNI_PATH=str(tmp_path))[0] == 0
    assert not (tmp_path / "began-DEL-c1").exists()
    (tmp_path / "go-c1").touch()
    assert gone.communicate(timeout=60) == ("", "")
    assert [call[:2] for call in calls()] == [("ADD", "c2"), ("ADD", "c1"), ("DEL", "c1")]
    assert [each["ifname"] for each in host.ip("link", netns="c1")] == ["lo"]


def test_an_add_whose_caller_was_killed_before_its_turn_makes_nothing(
    servers: Any, host: Any, small: Any, conf: dict[str, Any], state: Path, calls: Calls
) -> None:
    """Its runtime's DEL may have had the turn before: what is made after that, nobody would delete."""
    server = servers.start()
    files = Path(f"/proc/{server.pid}/fd")
    small.call("STATUS", conf)
    with turn(str(state), Owner(conf["name"], "c1", "eth0")):
        process = small.start("ADD", conf)
        until(lambda: waits_for_its_turn(files), "the ADD waits")
        process.kill()
        process.communicate()
    until(lambda: ("ADD", "c1", True) in calls(), "the ADD's end")
    nothing_is_left(host, state)
    small.add(conf)
    assert small.call("DEL", conf) == (0, None, "")


def test_one_server_at_a_time_and_a_dead_ones_socket_is_no_hindrance(servers: Any) -> None:
    first = servers.start()
    argv = [ROOT / "cni/podnet-python", "serve", "--socket", servers.socket]
    second = subprocess.run(argv, capture_output=True, text=True)
    assert (second.returncode, "listens at" in second.stderr) == (2, True)
    first.kill()
    first.wait()
    assert servers.socket.exists()
    third = servers.start()
    until(lambda: connected(servers.socket), "the third server")
    third.terminate()
    assert third.wait(60) == 0
    assert not servers.socket.exists()


def connected(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        return connection.connect_ex(str(path)) == 0


def test_the_socket_is_roots_alone(servers: Any) -> None:
    servers.start()
    assert servers.socket.stat().st_mode & 0o777 == 0o600


def test_in_the_background_until_it_is_idle(servers: Any, host: Any, small: Any, conf: dict[str, Any]) -> None:
    podnet = Path(sys.executable).parent / "podnet"
    argv = [podnet, "cni", "serve", "--detach", "--idle", "0.02", "--socket", servers.socket]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"listens at {servers.socket}, process " in done.stdout
    small.add(conf)
    until(lambda: not servers.socket.exists(), "its end")
    small.add(conf, "c2")


def test_socket_activation(
    servers: Any, host: Any, small: Any, conf: dict[str, Any], folder: Path, calls: Calls
) -> None:
    # As systemd does it: the socket is there first, and is the third of the server's files.
    script = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.bind(sys.argv[1]); s.listen()\n"
        "os.dup2(s.fileno(), 3)\n"
        "os.set_inheritable(3, True)\n"
        "input()\n"  # until somebody calls
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
        "os.execv(sys.executable, [sys.executable, '-IS', sys.argv[2], 'serve'])\n"
    )
    argv = [sys.executable, "-c", script, servers.socket, str(ROOT / "cni/podnet-python")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as server:
        until(servers.socket.exists, "the socket")
        process = small.start("ADD", conf)
        assert server.stdin is not None
        server.stdin.write(b"\n")
        server.stdin.close()
        output, said = process.communicate(timeout=60)
        assert process.returncode == 0, (output, said)
        server.terminate()
        assert server.wait(60) == 0
    assert servers.socket.exists()  # it is systemd's
    assert calls() == [("ADD", "c1", True)]


def test_its_ledgers_may_be_deleted_and_their_mount_may_go(
    servers: Any, host: Any, small: Any, conf: dict[str, Any], state: Path, folder: Path
) -> None:
    servers.start()
    first = small.add(conf)
    for path in state.iterdir():
        path.unlink()
    # The open file is nobody's any more: what counts is what the caller sees at the path.
    conf |= {"bridge": "br1", "name": "other"}
    second = small.add(conf, "c2", PODNET_CNI_SOCKET="")
    assert [each["address"] for each in second["ips"]] == [each["address"] for each in first["ips"]]
    third = small.add(conf, "c3")
    assert [each["address"] for each in third["ips"]] != [each["address"] for each in first["ips"]]
    host.state = state
    assert [row[1] for row in host.ledger("holder")] == ["c2", "c3"]
    assert small.call("DEL", conf, "c3") == (0, None, "")
    # And one that is not used does not keep a file system busy for long.
    place = folder / "mount"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "podnet-test", place], check=True)
    try:
        conf["ipam"]["dataDir"] = str(place)
        small.add(conf, "c3")
        until(lambda: subprocess.run(["umount", place], capture_output=True).returncode == 0, "the mount to be free")
    finally:
        subprocess.run(["umount", "-l", place], capture_output=True)
