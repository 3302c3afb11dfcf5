"""Masquerading of pods by nftables: one table a network, a chain a subnet, an element a pod address.

An address that leaves its subnet is masqueraded; multicast is not. Addresses come and go as elements of a map, each
in one transaction, and nothing else of the table changes for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.cni.plugin.part import Data, Part, Rules, own_ips
from podnet.ipam.book import Element
from podnet.ipam.ranges import number, text
from podnet.model.digest import sha1

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.cni.plugin.call import Call
    from podnet.cni.spec.result import Result
    from podnet.ipam.ledger import Owner

__all__ = ["Masquerade", "subnet_of", "table_of"]

_FAMILIES = ((4, "ip", "ipv4_addr", "224.0.0.0/4"), (6, "ip6", "ipv6_addr", "ff00::/8"))


def table_of(network: str) -> str:
    """A network's table with its family; a hash, because a network's name may be longer than a table's."""
    return "inet podnet_cni_" + sha1(network.encode(), usedforsecurity=False).hexdigest()[:12]


def subnet_of(address: str) -> str:
    """The network of an address with prefix length."""
    host, _, length = address.partition("/")
    family, bits = (6, 128) if ":" in host else (4, 32)
    rest = bits - int(length)
    return f"{text(family, number(host) >> rest << rest)}/{length}"


def _chain(subnet: str) -> str:
    return "from_" + subnet.replace(".", "_").replace(":", "_").replace("/", "__")


def _family(address: str) -> int:
    return 6 if ":" in address else 4


def _skeleton(network: str, addresses: Sequence[str]) -> str:
    """The table with the chains of these addresses' subnets; the same again where it is there already."""
    table = table_of(network)
    lines = [f'add table {table} {{ comment "network {network[:100]}" ; }}']
    lines += [f"add map {table} pods{v} {{ type {kind} : verdict ; }}" for v, _, kind, _ in _FAMILIES]
    lines += [
        f"add chain {table} postrouting {{ type nat hook postrouting priority 100 ; }}",
        f"flush chain {table} postrouting",
    ]
    for version, proto, _, multicast in _FAMILIES:
        lines.append(f"add rule {table} postrouting {proto} daddr {multicast} return")
        lines.append(f"add rule {table} postrouting {proto} saddr vmap @pods{version}")
    for subnet in sorted({subnet_of(each) for each in addresses}):
        proto = "ip6" if ":" in subnet else "ip"
        lines += [
            f"add chain {table} {_chain(subnet)}",
            f"flush chain {table} {_chain(subnet)}",
            f"add rule {table} {_chain(subnet)} {proto} daddr != {subnet} masquerade",
        ]
    return "\n".join(lines) + "\n"


class Masquerade(Part):
    """``ipMasq``; its data are the ``addresses`` with prefix length."""

    name = "masquerade"

    def wanted(self, call: Call) -> bool:
        return call.settings.masquerade

    def data(self, call: Call, result: Result) -> Data:
        return {"addresses": [ip.address for ip in own_ips(call, result)]}

    def rules(self, owner: Owner, data: Data) -> Rules:
        table = table_of(owner.network)
        elements = tuple(
            Element(table, f"pods{_family(each)}", each.partition("/")[0], f"goto {_chain(subnet_of(each))}")
            for each in data["addresses"]
        )
        return Rules(_skeleton(owner.network, data["addresses"]), elements)

    def tables(self, network: str) -> tuple[str, ...]:
        return (table_of(network),)
