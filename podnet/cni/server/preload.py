"""Everything that a call may import, imported before the first: a thread below another root finds no modules there."""

from __future__ import annotations

import importlib
import pkgutil

__all__ = ["preload"]

_PACKAGES = ("podnet.cni", "podnet.cni.plugin", "podnet.cni.spec", "podnet.ipam")
_MODULES = (
    "podnet.cni.runtime.invoke",
    "podnet.kernel.linux",
    "podnet.kernel.nft",
    # What is imported where it is needed.
    "ctypes",
    "datetime",
    "encodings.ascii",
    "encodings.idna",
    "errno",
    "fcntl",
    "hashlib",
    "ipaddress",
    "json",
    "select",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "traceback",
)


def preload() -> None:
    """Import all modules of the attach path, and load the nftables library."""
    for name in _MODULES:
        importlib.import_module(name)
    for name in _PACKAGES:
        package = importlib.import_module(name)
        for found in pkgutil.iter_modules(package.__path__, f"{name}."):
            if not found.ispkg:
                importlib.import_module(found.name)
    from podnet.kernel import nft

    nft.load()
