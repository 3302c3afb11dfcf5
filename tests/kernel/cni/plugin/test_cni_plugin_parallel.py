"""Many calls at once, in processes of their own (requirement P8), and what a killed one leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel

COUNT = 16


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The plugin as an executable, with its state in the test's folder."""
    path = tmp_path / "podnet-test"
    path.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "from podnet.cni.plugin.main import run\n"
        "from podnet.cni.spec.document import read\n"
        f"code, output = run(os.environ, read, state={str(tmp_path / 'state')!r})\n"
        "os.write(1, output)\n"
        "sys.exit(code)\n"
    )
    path.chmod(0o755)
    return path


def start(plugin: Path, command: str, conf: dict[str, Any], container: str) -> subprocess.Popen[str]:
    environ = os.environ | {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": f"/run/netns/{container}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/nowhere",
    }
    process = subprocess.Popen([plugin], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(conf))
    process.stdin.close()
    process.stdin = None
    return process


def test_p8_sixteen_at_once_share_a_bridge_and_a_range(host: Any, conf: dict[str, Any], plugin: Path) -> None:
    conf["ipam"] = {"type": "host-local", "subnet": "10.1.2.0/27"}
    names = [f"p{i}" for i in range(COUNT)]
    for name in names:
        host.tool("ip", "netns", "add", name)
    try:
        for _ in range(3):  # 48 addresses of 29: released ones are given again
            found = [process.communicate()[0] for process in [start(plugin, "ADD", conf, name) for name in names]]
            results = [json.loads(each) for each in found]
            assert not [each for each in results if "code" in each]
            addresses = {each["ips"][0]["address"].partition("/")[0] for each in results}
            assert len(addresses) == COUNT
            assert len({each["interfaces"][0]["mac"] for each in results}) == 1
            assert host.elements() == addresses
            for name, result in zip(names, results, strict=True):
                assert host.addresses("eth0", name) == [result["ips"][0]["address"]]
            processes = [start(plugin, "DEL", conf, name) for name in names]
            assert [(process.communicate()[0], process.returncode) for process in processes] == [("", 0)] * COUNT
            assert (host.elements(), host.ledger("lease"), host.ledger("holder")) == (set(), [], [])
            assert sorted(each["ifname"] for each in host.ip("link")) == ["br0", "lo"]
    finally:
        for name in names:
            host.tool("ip", "netns", "delete", name)


def test_what_a_killed_add_leaves_is_cleaned_by_del(host: Any, conf: dict[str, Any], plugin: Path) -> None:
    for moment in (0.02, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4):
        process = start(plugin, "ADD", conf, "c1")
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        host.delete(conf)
        assert [each["ifname"] for each in host.ip("link", netns="c1")] == ["lo"]
        assert not any(each["ifname"].startswith("veth") for each in host.ip("link"))
        assert (host.elements(), host.ledger("lease"), host.ledger("holder")) == (set(), [], [])
    assert host.add(conf)["interfaces"][0]["mac"] == host.link("br0")["address"]
