"""podnet's own plugin, judged as any other: no requirement fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

EXECUTABLE = Path(__file__).resolve().parents[3] / "cni" / "podnet-python"


PORTS = [{"hostPort": "{{hostPort}}", "containerPort": 8080, "protocol": "tcp"}]
LIMITS = {"ingressRate": 1_000_000, "ingressBurst": 1_000_000, "egressRate": 1_000_000, "egressBurst": 1_000_000}
CONFS = {
    "ptp": {
        "mode": "ptp",
        "ipMasq": True,
        "ipam": {"type": "host-local", "subnet": "{{subnet}}", "dataDir": "{{dataDir}}"},
    },
    "portmap": {"mode": "portmap", "capabilities": {"portMappings": True}, "runtimeConfig": {"portMappings": PORTS}},
    "firewall": {"mode": "firewall"},
    "bandwidth": {"mode": "bandwidth", "capabilities": {"bandwidth": True}, "runtimeConfig": {"bandwidth": LIMITS}},
}


@pytest.mark.parametrize("name", ["podnet", "ptp", "portmap", "firewall", "bandwidth"])
def test_no_requirement_fails(name: str, tmp_path: Path) -> None:
    """In bridge mode as the suite configures it by the executable's name; as ptp; each chained part."""
    plugin = tmp_path / name
    plugin.symlink_to(EXECUTABLE)
    command = [sys.executable, "-m", "podnet", "conform", str(plugin), "-o", "json"]
    if name in CONFS:
        conf = tmp_path / "conf.json"
        conf.write_text(json.dumps(CONFS[name]))
        command += ["--conf", str(conf), "--kind", "interface" if name == "ptp" else "chained"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    report = json.loads(done.stdout)
    failed = [(row["id"], row["evidence"]) for row in report["results"] if row["verdict"] == "fail"]
    assert failed == []
    assert done.returncode == 0, done.stderr
    assert report["summary"]["pass"] > (150 if name in ("podnet", "ptp") else 85)


STATIC = {
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "static", "addresses": [{"address": "10.66.0.7/24", "gateway": "10.66.0.1"}]},
}
# What fails is the delegate's: it reads its keys as they are written only, and has one address for all.
OF_STATIC = {"P7": "Address.ipam.addresses.Address", "A10": "both interfaces got the same address: 10.66.0.7/24"}


def test_no_requirement_fails_with_static_addresses(tmp_path: Path) -> None:
    """The reference ``static`` 1.1.1 hands the addresses out, which knows CNI up to 1.0.0."""
    plugin, conf = tmp_path / "podnet", tmp_path / "conf.json"
    plugin.symlink_to(EXECUTABLE)
    conf.write_text(json.dumps(STATIC | {"bridge": "{{bridge}}"}))
    command = [sys.executable, "-m", "podnet", "conform", str(plugin), "-o", "json", "--conf", str(conf)]
    command += ["--kind", "interface", "--cni-path", "/usr/lib/cni", "--cni-version", "1.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    report = json.loads(done.stdout)
    assert report["versions"][-1] == "1.0.0"
    failed = {row["id"]: row["evidence"] for row in report["results"] if row["verdict"] == "fail"}
    assert failed.keys() == OF_STATIC.keys(), failed
    for each, words in OF_STATIC.items():
        assert words in failed[each]
    assert (report["summary"]["not_measured"], report["summary"]["pass"] > 110) == (0, True)
