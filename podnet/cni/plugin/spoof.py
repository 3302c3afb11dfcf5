"""Frames that bear another's MAC stay out (``macspoofchk``): one nftables table a network, two elements a port.

The reference plugin makes two chains and four rules a port. Here the rule is one, over the set of the ports that are
watched, and the set of what each may send as.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.cni.plugin.masquerade import table_of
from podnet.cni.plugin.part import Part, Rules
from podnet.cni.spec.errors import INTERNAL, CNIError
from podnet.ipam.book import Element

if TYPE_CHECKING:
    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.part import Data
    from podnet.cni.spec.result import Result
    from podnet.ipam.ledger import Owner

__all__ = ["SpoofCheck"]


def _table(network: str) -> str:
    return "bridge " + table_of(network).rpartition(" ")[2]


def _skeleton(network: str) -> str:
    table = _table(network)
    # Before all else that looks at a bridge's frames, as libvirt's and the reference plugin's rules are.
    return (
        f'add table {table} {{ comment "network {network[:100]}" ; }}\n'
        f"add set {table} ports {{ type ifname ; }}\n"
        f"add set {table} senders {{ type ifname . ether_addr ; }}\n"
        f"add chain {table} spoofed {{ type filter hook prerouting priority -300 ; }}\n"
        f"flush chain {table} spoofed\n"
        f"add rule {table} spoofed iifname @ports iifname . ether saddr != @senders drop\n"
    )


class SpoofCheck(Part):
    """``macspoofchk``; its data are the ``port`` of the bridge and the ``mac`` that may come in by it."""

    name = "macspoofchk"

    def wanted(self, call: Call) -> bool:
        return call.settings.spoof_check

    def data(self, call: Call, result: Result) -> Data:
        own = (call.environment.ifname, call.environment.netns)
        mac = next((each.mac for each in result.interfaces if (each.name, each.sandbox) == own), "")
        if not mac:
            raise CNIError(INTERNAL, f"macspoofchk: the result has no MAC of {own[0]}")
        return {"port": call.names[0], "mac": mac.lower()}

    def rules(self, owner: Owner, data: Data) -> Rules:
        table, port = _table(owner.network), f'"{data["port"]}"'
        elements = (Element(table, "ports", port), Element(table, "senders", f"{port} . {data['mac']}"))
        return Rules(_skeleton(owner.network), elements)

    def tables(self, network: str) -> tuple[str, ...]:
        return (_table(network),)
