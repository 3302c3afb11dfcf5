"""The suite itself is judged: a correct plugin passes, and each defect fails exactly the requirements that name it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from podnet.conform.profiles import choose
from podnet.conform.suite import Report, judge, prepare

pytestmark = pytest.mark.kernel

CONFIGURATIONS = {
    "interface": {
        "ipam": {"type": "pool", "subnet": "{{subnet}}", "dataDir": "{{dataDir}}"},
        "capabilities": {"mac": True, "ips": True},
    },
    "ipam": {
        "ipam": {"type": "OWN", "subnet": "{{subnet}}", "dataDir": "{{dataDir}}"},
        "capabilities": {"ips": True},
    },
    "chained": {"role": "chained", "capabilities": {"mark": True}, "runtimeConfig": {"mark": True}},
}

# What each defect of small_plugin.py must be found by, and by nothing else.
DEFECTS = {
    "error-without-version": "P1c",
    "del-talks": "P3",
    "version-fixed": "V1b",
    "version-waits": "P4b",
    "case-sensitive": "P7",
    "missing-one": "N1d",
    "container-id-unnamed": "N2b",
    "ifname-code": "N3b",
    "own-namespace": "N6",
    "name-after-version": "O2",
    "json-code": "C3",
    "replaces-interface": "A2a A2b A11b",
    "sandbox-resolved": "A5a@0.3.0 A5a@0.3.1 A5a@0.4.0 A5a@1.0.0 A5a@1.1.0",
    "new-shape-in-0.4.0": "A3@0.4.0",
    "leaks-address": "A9b A9c",
    "leaks-veth": "A14",
    "no-lock": "P8b",
    "cni-args-win": "A17",
    "ignores-ips": "A16",
    "ignores-mac": "A15",
    "mtu-invented": "A5c",
    "host-interface-unlisted": "A5d",
    "delete-needs-netns": "D2b D2c D3a D3b D3d D3e N1e H6b",
    "delete-once": "A14b D2a D2d D2g D3c D3f D4a D4b",
    "releases-container": "D6b",
    "address-needs-interface": "D3a D3b D3c D3d D3e D3f",
    "rules-need-interface": "D3a D3b D3c",
    "delegate-environment": "H5a",
    "delegate-configuration": "H5b",
    "delegate-stderr": "H6d",
    "delegate-code": "E2",
    "no-delegate-delete": "A7 A8b",
    "delegate-error-stops": "D5b",
    "delegate-error-lost": "D5a",
    "check-any-version": "K0",
    "check-without-previous": "K1",
    "check-ignores-rules": "K3a",
    "check-ignores-mac": "K2f",
    "check-repairs": "K8b",
    "check-strict": "K5",
    "check-ignores-routes": "K2d",
    "check-no-delegate": "H6c",
    "check-ignores-reservation": "K3c",
    "check-talks": "K8c",
    "status-any-version": "S0",
    "status-not-forwarded": "S3a S3b",
    "status-always-ready": "S2",
    "status-talks": "S1b",
    "gc-any-version": "G0",
    "gc-new-key-only": "G3c",
    "gc-no-list-is-empty": "G3b",
    "gc-nothing": "G1a G1b G1c G3a G3c G5 G5b",
    "gc-all": "G6a",
    "gc-by-container": "G1c",
    "gc-all-networks": "G6b",
    "gc-not-forwarded": "G5 G5b",
    "gc-talks": "G7",
}
IPAM_DEFECTS = {"ipam-interfaces": "A3@0.3.0 A3@0.3.1 A3@0.4.0 A3@1.0.0 A3@1.1.0", "twice": "A11", "no-lock": "P8b"}
CHAINED_DEFECTS = {"drops-previous": "A4 H2b", "deletes-interface": "D9 D1c", "chained-alone": "H2a"}

CASES = [
    *(("interface", name, found) for name, found in DEFECTS.items()),
    *(("ipam", name, found) for name, found in IPAM_DEFECTS.items()),
    *(("chained", name, found) for name, found in CHAINED_DEFECTS.items()),
]


def plugin(folder: Path, defect: str = "") -> Path:
    path = folder / (f"plugin--{defect}" if defect else "plugin")
    source = Path(__file__).with_name("small_plugin.py").read_text()
    path.write_text(f"#!{sys.executable} -IS\n{source}")
    path.chmod(0o755)
    return path


def judged(folder: Path, kind: str, defect: str = "", only: tuple[str, ...] = ()) -> Report:
    path = plugin(folder, defect)
    conf = json.dumps(CONFIGURATIONS[kind]).replace("OWN", path.name)
    return judge(prepare(str(path), choose(path.name, conf=conf, kind=kind)), only=only, parallel=4)


def failures(report: Report) -> set[str]:
    return {result.id for result in report.results if result.verdict == "fail"}


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_a_correct_plugin_passes_all_that_applies(kind: str, tmp_path: Path) -> None:
    report = judged(tmp_path, kind)
    wrong = {result.id: result.evidence for result in report.results if result.verdict in {"fail", "not measured"}}
    assert wrong == {}
    assert report.exit_code == 0
    assert report.count("pass") >= 90


@pytest.mark.parametrize(("kind", "defect", "expected"), CASES, ids=[f"{kind}-{name}" for kind, name, _ in CASES])
def test_a_defect_fails_exactly_the_requirements_that_name_it(
    kind: str, defect: str, expected: str, tmp_path: Path
) -> None:
    """PODNET_CONFORM_WHOLE=1 runs all requirements for each defect, which takes half an hour."""
    wanted = set(expected.split())
    near = {each.split("@")[0] for each in wanted} | {"A1a", "D1b", "K2a"}
    whole = os.environ.get("PODNET_CONFORM_WHOLE") == "1"
    report = judged(tmp_path, kind, defect, only=() if whole else tuple(sorted(near)))
    assert failures(report) == wanted
    assert report.exit_code == 1
