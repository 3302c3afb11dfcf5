"""The reference plugins as Debian has them, called as a runtime calls them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

BIN = Path("/usr/lib/cni")


def call(
    command: str, conf: dict[str, Any], container: str = "c1", ifname: str = "eth0", **environ: str
) -> dict[str, Any]:
    """What a plugin prints; the test fails where the plugin does."""
    plugin = BIN / conf["type"]
    if not plugin.exists():
        pytest.skip("the reference plugins are not installed: apt-get install containernetworking-plugins")
    variables = {
        "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": f"/run/netns/{container}",
        "CNI_IFNAME": ifname, "CNI_PATH": str(BIN),
    }  # fmt: skip
    done = subprocess.run(
        [plugin], env=os.environ | variables | environ, input=json.dumps(conf), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout or done.stderr
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return found
