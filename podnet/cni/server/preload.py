"""Everything that a call may import, imported before the first: a thread below another root finds no modules there."""

from __future__ import annotations

import importlib

__all__ = ["preload"]

# What is imported only where it is needed, and with it the rest.
_MODULES = (
    "podnet.cni.plugin.add",
    "podnet.cni.plugin.chained",
    "podnet.cni.plugin.check",
    "podnet.cni.plugin.clean",
    "podnet.cni.plugin.ipam",
    "podnet.cni.plugin.machine",
    "podnet.cni.plugin.main",
    "podnet.cni.plugin.settings",
    "podnet.cni.plugin.vlans",
    "podnet.cni.runtime.invoke",
    "podnet.cni.runtime.tied",
    "podnet.cni.spec.address",
    "podnet.ipam.allocation",
    "podnet.ipam.hostlocal",
    "podnet.kernel.requests",
    "podnet.kernel.tc",
    "encodings.ascii",
    "encodings.idna",
    "errno",
    "fcntl",
    "ipaddress",
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
    from podnet.kernel import nft

    nft.load()
