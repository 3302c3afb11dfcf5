"""What is found on the reference plugins of Debian is what docs/conformance.md records, no more and no less."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from podnet.conform.profiles import choose
from podnet.conform.suite import judge, prepare

pytestmark = pytest.mark.kernel

BIN = Path("/usr/lib/cni")
RECORD = Path(__file__).parents[3] / "docs" / "conformance.md"
JUDGED_VERSION = "1.1.1"


def recorded() -> dict[str, set[str]]:
    """The table of findings: plugin, and the ids of its failures."""
    rows = re.findall(r"^\| `([a-z-]+)` \| \d+ \| \d+ \| (.*?) \|$", RECORD.read_text(), re.MULTILINE)
    return {plugin: set(re.findall(r"`([A-Z]\d+[a-z]?(?:@[\d.]+)?)`", ids)) for plugin, ids in rows}


FINDINGS = recorded()


def lacking() -> str:
    if not (BIN / "bridge").exists():
        return "the reference plugins are not installed: apt-get install containernetworking-plugins"
    if shutil.which("iptables") is None:
        return "the reference plugins need iptables: apt-get install iptables"
    done = subprocess.run(
        ["dpkg-query", "-Wf", "${Version}", "containernetworking-plugins"], capture_output=True, text=True
    )
    if not done.stdout.startswith(f"{JUDGED_VERSION}+"):
        here = done.stdout or "no Debian package"
        return f"the findings are recorded for {JUDGED_VERSION}, here is {here}"
    return ""


def test_the_record_names_the_plugins() -> None:
    assert {"bridge", "ptp", "host-local", "portmap", "bandwidth", "firewall", "tuning"} <= FINDINGS.keys()


@pytest.mark.parametrize("plugin", FINDINGS)
def test_findings(plugin: str) -> None:
    if why := lacking():
        pytest.skip(why)
    report = judge(prepare(str(BIN / plugin), choose(plugin)), parallel=4)
    found = {result.id: result.evidence for result in report.results if result.verdict == "fail"}
    assert found.keys() == FINDINGS[plugin], found
    assert report.exit_code == 1
