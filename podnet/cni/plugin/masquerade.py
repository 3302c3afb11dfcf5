"""Masquerading of pods by nftables: one table a network, a chain a subnet, an element a pod address.

An address that leaves its subnet is masqueraded; multicast is not. Addresses come and go as elements of a map, each
in one transaction, and nothing else of the table changes for it.
"""

from __future__ import annotations

from hashlib import sha1
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.ipam.ranges import number, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.cni.plugin.machine import Machine

__all__ = ["add", "lacking", "remove", "remove_table", "subnet_of", "table_of"]

_FAMILIES = ((4, "ip", "ipv4_addr", "224.0.0.0/4"), (6, "ip6", "ipv6_addr", "ff00::/8"))


def table_of(network: str) -> str:
    """The name of a network's table; a hash, because a network's name may be longer than a table's."""
    return "podnet_cni_" + sha1(network.encode(), usedforsecurity=False).hexdigest()[:12]


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


def _elements(table: str, addresses: Sequence[str]) -> str:
    lines = []
    for each in addresses:
        host, chain = each.partition("/")[0], _chain(subnet_of(each))
        lines.append(f"add element inet {table} pods{_family(each)} {{ {host} : goto {chain} }}\n")
    return "".join(lines)


def _skeleton(network: str, addresses: Sequence[str]) -> str:
    """The table with the chains of these addresses' subnets; the same again where it is there already."""
    table = table_of(network)
    lines = [f'add table inet {table} {{ comment "network {network[:100]}" ; }}']
    lines += [f"add map inet {table} pods{v} {{ type {kind} : verdict ; }}" for v, _, kind, _ in _FAMILIES]
    lines += [
        f"add chain inet {table} postrouting {{ type nat hook postrouting priority 100 ; }}",
        f"flush chain inet {table} postrouting",
    ]
    for version, proto, _, multicast in _FAMILIES:
        lines.append(f"add rule inet {table} postrouting {proto} daddr {multicast} return")
        lines.append(f"add rule inet {table} postrouting {proto} saddr vmap @pods{version}")
    for subnet in sorted({subnet_of(each) for each in addresses}):
        proto = "ip6" if ":" in subnet else "ip"
        lines += [
            f"add chain inet {table} {_chain(subnet)}",
            f"flush chain inet {table} {_chain(subnet)}",
            f"add rule inet {table} {_chain(subnet)} {proto} daddr != {subnet} masquerade",
        ]
    return "\n".join(lines) + "\n"


def add(machine: Machine, network: str, addresses: Sequence[str]) -> None:
    """Masquerade these addresses (with prefix length). Raises ``KernelError``; nothing has changed then."""
    elements = _elements(table_of(network), addresses)
    try:
        machine.nft(elements)
    except KernelError:
        # The first of its network or subnet, or one that a crash has left with another subnet.
        remove(machine, network, addresses)
        machine.nft(_skeleton(network, addresses) + elements)


def remove(machine: Machine, network: str, addresses: Sequence[str]) -> None:
    """Masquerade these addresses no longer; no error if they are not. Raises ``KernelError``."""
    table = table_of(network)
    for each in addresses:
        element = f"element inet {table} pods{_family(each)} {{ {each.partition('/')[0]} }}"
        try:
            machine.nft(f"delete {element}\n")
        except KernelError:
            if _has(machine, element):
                raise


def _has(machine: Machine, element: str) -> bool:
    try:
        machine.nft(f"get {element}\n")
    except KernelError:
        return False
    return True


def remove_table(machine: Machine, network: str) -> None:
    """Delete a network's table; no error if there is none."""
    table = table_of(network)
    machine.nft(f"add table inet {table}\ndelete table inet {table}\n")


def lacking(machine: Machine, network: str, addresses: Sequence[str]) -> list[str]:
    """Those of the addresses that are not masqueraded as ``add`` would have it, one reason each."""
    table = table_of(network)
    problems = []
    for each in addresses:
        host, chain = each.partition("/")[0], _chain(subnet_of(each))
        try:
            found = machine.nft(f"get element inet {table} pods{_family(each)} {{ {host} }}\n")
            # One at a time: nft resolves the second list of a transaction before it has read the first.
            rules = machine.nft(f"list chain inet {table} {chain}\n")
            rules += machine.nft(f"list chain inet {table} postrouting\n")
        except KernelError:
            problems.append(f"masquerade of {host} is missing")
            continue
        if f"goto {chain}" not in found or "masquerade" not in rules or f"@pods{_family(each)}" not in rules:
            problems.append(f"masquerade of {host} is missing: the rules of table {table} differ")
    return problems
