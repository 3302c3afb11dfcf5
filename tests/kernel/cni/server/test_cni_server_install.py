"""What was installed works where this checkout is not, warm and cold, and while it is installed again."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[4]
PODNET = Path(sys.executable).parent / "podnet"
Calls = Callable[[], list[tuple[str, str, bool]]]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A CNI bin directory."""
    install(tmp_path)
    return tmp_path / "bin"


def install(folder: Path, *options: str) -> None:
    folders = ["--bin-dir", folder / "bin", "--conf-dir", folder / "net.d", "--systemd-dir", ""]
    subprocess.run([PODNET, "cni", "install", *folders, *options], check=True, capture_output=True)


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_life(
    servers: Any, host: Any, small: Any, installed: Path, conf: dict[str, Any], calls: Calls, warm: bool
) -> None:
    small.path = installed / "podnet"
    hidden = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs hidden {ROOT}/podnet && exec "$@"', "sh")
    server = None
    if warm:
        argv = [*hidden, installed / "podnet-python", "serve", "--socket", servers.socket]
        server = subprocess.Popen(argv)
    try:
        while server and not servers.socket.exists():
            assert server.poll() is None
            time.sleep(0.01)
        result = small.add(conf, before=hidden)
        assert host.addresses("eth0", "c1") == [ip["address"] for ip in result["ips"]]
        assert small.call("CHECK", conf | {"prevResult": result}, before=hidden) == (0, None, "")
        assert small.call("DEL", conf, before=hidden) == (0, None, "")
        assert calls() == [(verb, "c1", warm) for verb in ("ADD", "CHECK", "DEL")]
    finally:
        if server:
            server.terminate()
            assert server.wait(60) == 0


def test_without_python_a_call_without_a_server_is_a_transient_error(
    small: Any, host: Any, conf: dict[str, Any], tmp_path: Path
) -> None:
    install(tmp_path, "--no-python")
    small.path = tmp_path / "bin/podnet"
    code, error, _ = small.call("ADD", conf)
    assert (code, error["code"]) == (1, 11)
    assert "server does not answer" in error["msg"]
    assert "No such file" in error["details"]


def test_calls_go_on_while_it_is_installed_again(
    servers: Any, host: Any, small: Any, installed: Path, conf: dict[str, Any], tmp_path: Path
) -> None:
    small.path = installed / "podnet"
    ended = threading.Event()
    outcomes: list[tuple[int, Any, str]] = []

    def work() -> None:
        while not ended.is_set():
            outcomes.append(small.call("STATUS", conf))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for round_ in range(4):
            bundle = next(installed.glob("*.bundle"))
            script = installed / "podnet-python"
            # What differs in nothing is not placed again: make it another version's.
            listed = json.loads((installed / "podnet-installed.json").read_text())
            other = bundle.with_name(f"podnet-python-{round_:012x}.bundle")
            other.write_bytes(bundle.read_bytes())
            fresh = script.with_name("fresh")
            fresh.write_text(script.read_text().replace(bundle.name, other.name))
            fresh.chmod(0o755)
            fresh.rename(script)
            bundle.unlink()
            digests = listed["files"]
            digests[str(other)] = digests.pop(str(bundle))
            digests[str(script)] = [subprocess.check_output(["sha256sum", script], text=True).split()[0]]
            (installed / "podnet-installed.json").write_text(json.dumps(listed))
            install(tmp_path)
    finally:
        ended.set()
        thread.join()
    assert len(outcomes) > 4
    assert set(map(str, outcomes)) == {str((0, None, ""))}
