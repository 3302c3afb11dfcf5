"""podnet's own plugin, judged as any other: no requirement fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

EXECUTABLE = Path(__file__).resolve().parents[3] / "cni" / "podnet-python"


@pytest.mark.parametrize("name", ["podnet", "ptp"])
def test_no_requirement_fails(name: str, tmp_path: Path) -> None:
    """The suite chooses the configuration by the executable's name: the bridge mode, and as the drop-in for ptp."""
    plugin = tmp_path / name
    plugin.symlink_to(EXECUTABLE)
    command = [sys.executable, "-m", "podnet", "conform", str(plugin), "-o", "json"]
    if name == "ptp":
        conf = tmp_path / "ptp.json"
        ipam = {"type": "host-local", "subnet": "{{subnet}}", "dataDir": "{{dataDir}}"}
        conf.write_text(json.dumps({"mode": "ptp", "ipMasq": True, "ipam": ipam}))
        command += ["--conf", str(conf), "--kind", "interface"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    report = json.loads(done.stdout)
    failed = [(row["id"], row["evidence"]) for row in report["results"] if row["verdict"] == "fail"]
    assert failed == []
    assert done.returncode == 0, done.stderr
    assert report["summary"]["pass"] > 150
