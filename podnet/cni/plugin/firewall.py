"""Forwarding that a firewall of the machine does not stop, and the ingress policies, in nftables.

No chain of nftables can take back what another one drops. So what a container may send and get is marked before the
``filter`` tables see it, and where iptables has a chain FORWARD of its own, one rule in it accepts what is marked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.cni.plugin.part import Data, Part, Rules, own_ips, section
from podnet.cni.spec.errors import INTERNAL, INVALID_CONFIG, UNSUPPORTED_FIELD, CNIError
from podnet.ipam.book import Element
from podnet.ipam.ranges import family_of

if TYPE_CHECKING:
    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.machine import Machine
    from podnet.cni.spec.document import Document
    from podnet.cni.spec.result import Result
    from podnet.ipam.ledger import Owner

__all__ = ["MARK", "TABLE", "Firewall", "Keys", "parse"]

TABLE, BRIDGE_TABLE = "inet podnet_firewall", "bridge podnet_firewall"
MARK = 0x1000  # Kubernetes has 0x4000 and 0x8000, the reference portmap 0x2000, others the upper half

_POLICIES = ("open", "same-bridge", "isolated")
_IPTABLES = {4: "iptables", 6: "ip6tables"}
_ADMIN = "CNI-ADMIN"
_BASE = ("forward",)


class Keys(NamedTuple):
    """The keys of the reference firewall plugin. ``admin`` is a chain of the table that comes first."""

    policy: str = "open"
    admin: str = _ADMIN


def parse(document: Document) -> Keys:
    """The keys of a configuration. Raises ``CNIError`` 2 for firewalld, 7 for what there is not."""
    backend = document.text("backend")
    if backend not in ("", "nftables", "iptables"):
        details = 'without the key, or with "nftables", the rules are of nftables'
        raise CNIError(UNSUPPORTED_FIELD, f'{document.path("backend")}: "{backend[:40]}" is not supported', details)
    policy = document.text("ingressPolicy") or "open"
    if policy not in _POLICIES:
        raise CNIError(INVALID_CONFIG, f'unknown ingress policy: "{policy[:40]}"')
    admin = document.text("iptablesAdminChainName") or _ADMIN
    plain = admin.isascii() and admin[0].isalpha() and all(c.isalnum() or c in "-_." for c in admin)
    if not plain or len(admin) > 28 or admin in _BASE or admin.startswith(("from_", "to_")):
        where = document.path("iptablesAdminChainName")
        raise CNIError(INVALID_CONFIG, f"{where}: {admin[:40]!r} is no name for a chain of up to 28 letters")
    return Keys(policy, admin)


class Firewall(Part):
    """``firewall``: its data are the ``addresses``, the ``policy``, the ``admin`` chain, ``bridge`` and ``ports``."""

    name = "firewall"

    def wanted(self, call: Call) -> bool:
        parse(section(call, self.name))
        return call.settings.mode == self.name or call.config.document.object(self.name) is not None

    def data(self, call: Call, result: Result) -> Data:
        keys = parse(section(call, self.name))
        if keys.policy != "open" and not (result.interfaces and result.interfaces[0].name):
            msg = f'interface needs to be set for ingress policy "{keys.policy}"'
            raise CNIError(INTERNAL, msg, "the first interface of the result is the bridge that the policy is for")
        outside = [each.name for each in result.interfaces if not each.sandbox]
        return {
            "addresses": [ip.address.partition("/")[0] for ip in own_ips(call, result)],
            "policy": keys.policy,
            "admin": keys.admin,
            "bridge": result.interfaces[0].name if result.interfaces else "",
            "ports": outside[1:],
        }

    def rules(self, owner: Owner, data: Data) -> Rules:
        elements = []
        for each in data["addresses"]:
            family = family_of(each)
            elements.append(Element(TABLE, f"to{family}", each, f"jump to_{data['admin']}"))
            elements.append(Element(TABLE, f"from{family}", each, f"jump from_{data['admin']}"))
        if data["policy"] != "open":
            bridge = f'"{data["bridge"]}"'
            elements.append(Element(TABLE, "bridges", bridge))
            elements.append(Element(TABLE, "same", f"{bridge} . {bridge}"))
        if data["policy"] == "isolated":
            elements += [Element(BRIDGE_TABLE, "isolated", f'"{each}"') for each in data["ports"]]
        skeleton = _skeleton(data["admin"]) + (_BRIDGE_SKELETON if data["policy"] == "isolated" else "")
        return Rules(skeleton, tuple(elements))

    def tables(self, network: str) -> tuple[str, ...]:
        return (TABLE, BRIDGE_TABLE)

    def disposable(self, machine: Machine, table: str) -> bool:
        """Whether the administrator has no rules in it."""
        chains = machine.nft_chains(table)
        own = ("forward", "from_", "to_")
        return not any(body for name, body in chains.items() if not name.rpartition(" ")[2].startswith(own))

    def make(self, call: Call, result: Result, data: Data) -> Result:
        for family in sorted({family_of(each) for each in data["addresses"]}):
            if call.machine.passes_forward(family, MARK) is False:
                call.machine.pass_forward(family, MARK)
        return result

    def lacking(self, call: Call, result: Result, data: Data) -> list[str]:
        return [
            f"firewall: FORWARD of {_IPTABLES[family]} does not accept what is marked {MARK:#x}"
            for family in sorted({family_of(each) for each in data["addresses"]})
            if call.machine.passes_forward(family, MARK) is False
        ]

    def dropped(self, machine: Machine) -> None:
        for family in (4, 6):
            machine.unpass_forward(family, MARK)


def _skeleton(admin: str) -> str:
    marked = f"meta mark set meta mark or {MARK:#x} accept"
    lines = [f'add table {TABLE} {{ comment "containers that may be reached through this machine" ; }}']
    lines += [
        f"add set {TABLE} bridges {{ type ifname ; }}",
        f"add set {TABLE} same {{ type ifname . ifname ; }}",
        f"add chain {TABLE} forward {{ type filter hook forward priority -5 ; }}",
        f"add chain {TABLE} {admin}",
    ]
    rules = {
        "forward": ["iifname @bridges oifname @bridges iifname . oifname != @same drop"],
        # A published port is for everybody; the reference plugin leaves it to the policy of the chain FORWARD.
        f"to_{admin}": [
            f"jump {admin}",
            f"ct state established,related {marked}",
            f"ct status dnat {marked}",
        ],
        f"from_{admin}": [f"jump {admin}", marked],
    }
    for family, proto in ((4, "ip"), (6, "ip6")):
        lines += [f"add map {TABLE} {name}{family} {{ type ipv{family}_addr : verdict ; }}" for name in ("to", "from")]
        rules["forward"] += [f"{proto} daddr vmap @to{family}", f"{proto} saddr vmap @from{family}"]
    lines += [f"add chain {TABLE} {name}\nflush chain {TABLE} {name}" for name in rules]
    lines += [f"add rule {TABLE} {name} {rule}" for name, each in rules.items() for rule in each]
    return "\n".join(lines) + "\n"


# Between two ports of a bridge, no packet passes the machine's IP: the bridge has to drop it.
_BRIDGE_SKELETON = f"""\
add table {BRIDGE_TABLE}
add set {BRIDGE_TABLE} isolated {{ type ifname ; }}
add chain {BRIDGE_TABLE} forward {{ type filter hook forward priority -200 ; }}
flush chain {BRIDGE_TABLE} forward
add rule {BRIDGE_TABLE} forward ether type {{ ip, ip6 }} iifname @isolated drop
add rule {BRIDGE_TABLE} forward ether type {{ ip, ip6 }} oifname @isolated drop
"""
