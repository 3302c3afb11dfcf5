"""The tests of the second tier share the command line and the looks at the kernel with those of the labs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

for folder in ("lab", "contract", "fabric"):
    sys.path.insert(0, str(Path(__file__).parents[1] / "kernel" / folder))

# When they are loaded, each makes a link of its own (tunl0, sit0, ip6tnl0) in every namespace that there is.
_PRESENT_AT_ONCE = ("ipip", "sit", "ip6_tunnel")


@pytest.fixture(scope="session", autouse=True)
def _what_modules_bring_along_is_no_tests_doing() -> None:
    if os.environ.get("PODNET_VM") == "1":
        subprocess.run(["modprobe", "--all", *_PRESENT_AT_ONCE], check=True)
