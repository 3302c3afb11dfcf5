"""podnet installed from its wheel: what pyproject.toml puts into it is all that the plugin's installation needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


def test_the_plugin_is_installed_without_the_checkout(tmp_path: Path) -> None:
    """The files of the wheel, laid out by its table; building one takes a minute and a package registry."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    site = tmp_path / "site"
    for package in wheel["packages"]:
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    for source, target in wheel["force-include"].items():
        shutil.copy(ROOT / source, site / target)
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from podnet.cli import program; program()"
    options = ["--bin-dir", tmp_path / "bin", "--no-conflist", "--systemd-dir", ""]
    command = [sys.executable, "-c", code, site, "cni", "install", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "bin/podnet\n") in done.stdout
    shutil.rmtree(site)
    executable = tmp_path / "bin/podnet"
    assert executable.read_bytes().startswith(b"\x7fELF"), "compiled from the source in the wheel"
    environ = {"CNI_COMMAND": "VERSION", "PODNET_CNI_SOCKET": ""}
    answer = subprocess.run([executable], env=environ, input="{}", capture_output=True, text=True, check=True)
    assert '"supportedVersions"' in answer.stdout
