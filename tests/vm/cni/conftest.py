"""The CNI plugin's hosts, as in ``tests/kernel/cni``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / "kernel/cni"
sys.path.insert(0, str(_FOLDER / "plugin"))

_spec = importlib.util.spec_from_file_location("cni_plugin_hosts", _FOLDER / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_hosts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_hosts)

host, conf = _hosts.host, _hosts.conf
