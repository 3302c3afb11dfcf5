"""Host ports that lead to a container: nftables maps of one table for the whole machine, an element a mapping.

What comes to an address of this machine, from outside or from itself, is looked up by protocol and port; a mapping
with a host address of its own comes first. The container sees the sender's address, except where its answer would
not come back: from its own subnet (itself included) and from 127.0.0.0/8, the sender is masqueraded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.cni.plugin.masquerade import subnet_of
from podnet.cni.plugin.part import Data, Part, Rules, own_ips, section
from podnet.cni.spec.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CNIError
from podnet.errors import KernelError
from podnet.ipam.book import Element, Port, Setting
from podnet.ipam.ranges import family_of
from podnet.kernel.objects import Sysctl
from podnet.model.digest import sha1

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.machine import Machine
    from podnet.cni.spec.config import PortMapping
    from podnet.cni.spec.document import Document
    from podnet.cni.spec.result import Result
    from podnet.ipam.book import Book
    from podnet.ipam.ledger import Owner

__all__ = ["TABLE", "Keys", "PortMap", "parse"]

TABLE = "inet podnet_hostports"

_ANY = {4: "0.0.0.0", 6: "::"}
_BACKENDS = ("", "nftables", "iptables")
_EVERYTHING = "everything"


class Keys(NamedTuple):
    """The keys of the reference portmap plugin, as far as they mean something in nftables.

    Masquerading needs no mark here: ``markMasqBit`` and ``externalSetMarkChain`` are checked, and change nothing.
    ``conditions`` are nftables matches a family, joined.
    """

    snat: bool = True
    everything: bool = False
    conditions: tuple[str, str] = ("", "")


def parse(document: Document) -> Keys:
    """The keys of a configuration. Raises ``CNIError`` 2 for what nftables cannot do, 7 for what cannot be."""
    backend = document.text("backend")
    if backend not in _BACKENDS:
        raise CNIError(INVALID_CONFIG, f'unrecognized backend "{backend[:40]}"')
    bit, chain = document.optional("markMasqBit"), document.text("externalSetMarkChain")
    if bit is not None and chain:
        raise CNIError(INVALID_CONFIG, "Cannot specify externalSetMarkChain and markMasqBit")
    if bit is not None and not 0 <= bit <= 31:
        raise CNIError(INVALID_CONFIG, "MasqMarkBit must be between 0 and 31")
    if backend == "nftables" and chain:
        msg = f"nftables backend was requested but configuration contains iptables-specific options [{chain[:40]}]"
        raise CNIError(INVALID_CONFIG, msg)
    conditions = (_conditions(document, "conditionsV4"), _conditions(document, "conditionsV6"))
    return Keys(document.flag("snat", default=True), document.flag("masqAll"), conditions)


def _conditions(document: Document, key: str) -> str:
    words = document.texts(key)
    if any(each.startswith(("-", "!")) for each in words):
        details = "write them as nftables matches, for example: ip saddr 192.0.2.0/24"
        raise CNIError(UNSUPPORTED_FIELD, f"{document.path(key)}: {list(words)} are iptables matches", details)
    text = " ".join(words)
    if any(each in text for each in "\n;#"):
        raise CNIError(INVALID_CONFIG, f"{document.path(key)}: {text[:80]!r} is more than matches")
    return text


class PortMap(Part):
    """``runtimeConfig.portMappings``.

    Its data: ``mappings`` of (protocol, host address, host port, container's address, container's port),
    ``addresses`` with prefix length, ``masquerade`` (``hairpin``, ``everything`` or empty), ``conditions`` by family,
    and ``device``, by which the container is reached over IPv4 where 127.0.0.1 is to be routed there.
    """

    name = "portmap"

    def wanted(self, call: Call) -> bool:
        keys = parse(section(call, self.name))
        if any(keys.conditions):
            _try(call.machine, keys.conditions)
        return bool(call.config.runtime.port_mappings)

    def data(self, call: Call, result: Result) -> Data:
        keys = parse(section(call, self.name))
        first: dict[int, str] = {}
        for ip in own_ips(call, result):
            first.setdefault(family_of(ip.address), ip.address)
        mappings = list(dict.fromkeys(_mappings(call.config.runtime.port_mappings, first)))
        ports = [(protocol, address, port) for protocol, address, port, *_ in mappings]
        for each in ports:
            if ports.count(each) > 1:
                raise CNIError(INVALID_CONFIG, f"host port {each[2]}/{each[0]} of {each[1]} is to lead to two ports")
        device = ""
        if keys.snat and 4 in first and mappings:
            device = call.settings.bridge if call.settings.mode == "bridge" else call.names[0]
            if call.settings.mode not in ("bridge", "ptp"):
                device = call.machine.route_device(first[4].partition("/")[0])
        return {
            "mappings": [list(each) for each in mappings],
            "addresses": list(first.values()),
            "masquerade": _EVERYTHING if keys.everything and keys.snat else "hairpin" if keys.snat else "",
            "conditions": list(keys.conditions),
            "device": device,
        }

    def ports(self, data: Data) -> tuple[Port, ...]:
        return tuple(Port(protocol, address, port) for protocol, address, port, *_ in data["mappings"])

    def rules(self, owner: Owner, data: Data) -> Rules:
        subnets = {address.partition("/")[0]: subnet_of(address) for address in data["addresses"]}
        elements: list[Element] = []
        for protocol, address, port, inner, inner_port in data["mappings"]:
            family = family_of(inner)
            condition = data["conditions"][family == 6]
            suffix = f"{family}_{_hash(condition)}" if condition else f"{family}"
            target = f"{inner} . {inner_port}"
            if address == _ANY[family]:
                elements.append(Element(TABLE, f"ports{suffix}", f"{protocol} . {port}", target))
            else:
                elements.append(Element(TABLE, f"addressed{suffix}", f"{address} . {protocol} . {port}", target))
            if condition:
                jump = f"jump if_{suffix}"
                elements.append(Element(TABLE, f"conditional{family}", f"{protocol} . {port}", jump))
            if data["masquerade"]:
                chain = _hairpin(subnets[inner]) if data["masquerade"] == "hairpin" else _EVERYTHING
                key = f"{inner} . {protocol} . {inner_port}"
                elements.append(Element(TABLE, f"masquerade{family}", key, f"goto {chain}"))
        return Rules(_skeleton(subnets.values(), data["conditions"]), tuple(dict.fromkeys(elements)))

    def tables(self, network: str) -> tuple[str, ...]:
        return (TABLE,)

    def settings(self, data: Data) -> tuple[Setting, ...]:
        return (Setting(_localnet(data["device"]).name, "1"),) if data["device"] else ()

    def make(self, call: Call, result: Result, data: Data) -> Result:
        ports = {(family_of(inner), port) for protocol, _, port, inner, _ in data["mappings"] if protocol == "udp"}
        if ports:
            _forget_flows(call.machine, ports)
        return result

    def lacking(self, call: Call, result: Result, data: Data) -> list[str]:
        if not data["device"]:
            return []
        wanted = _localnet(data["device"])
        return [] if call.machine.sysctl(wanted.name) == wanted.value else [f"{wanted} is not set"]

    def removed(self, machine: Machine, book: Book, owner: Owner, data: Data) -> None:
        for protocol, _, port, inner, _ in data["mappings"]:
            if protocol == "udp":
                machine.forget_flows(
                    [each for each in machine.udp_flows(family_of(inner), port) if each.replier == inner]
                )


def _try(machine: Machine, conditions: tuple[str, str]) -> None:
    """Raise ``CNIError`` 7 for conditions that nft does not understand: found out in a throw-away namespace."""
    for key, each in zip(("conditionsV4", "conditionsV6"), conditions, strict=True):
        try:
            machine.nft_meaning(_skeleton((), (each, "") if key == "conditionsV4" else ("", each)))
        except KernelError as error:
            reason = str(error).partition("\n")[0].removeprefix("Error: ")
            raise CNIError(INVALID_CONFIG, f"portmap.{key}: nft does not understand {each[:80]!r}: {reason}") from None


def _mappings(asked: Iterable[PortMapping], first: dict[int, str]) -> Iterable[tuple[str, str, int, str, int]]:
    """Each mapping in each family that the container has, or in that of its host address."""
    for each in asked:
        for family, address in first.items():
            if not each.host_ip or family_of(each.host_ip) == family:
                host = each.host_ip or _ANY[family]
                yield each.protocol, host, each.host_port, address.partition("/")[0], each.container_port


def _localnet(device: str) -> Sysctl:
    """Packets from 127.0.0.0/8 may leave by this device, and their answers come back."""
    return Sysctl("", f"net/ipv4/conf/{device}/route_localnet", "1")


def _forget_flows(machine: Machine, ports: Iterable[tuple[int, int]]) -> None:
    """A flow that began before its port was mapped would go on to where it went, as long as it goes on.

    Only flows to this machine: the same port of others is none of ours.
    """
    found = [flow for family, port in ports for flow in machine.udp_flows(family, port)]
    if found:
        local = machine.addresses()
        machine.forget_flows([each for each in found if each.destination in local])


def _hash(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()[:8]


def _hairpin(subnet: str) -> str:
    return "to_" + subnet.replace(".", "_").replace(":", "_").replace("/", "__")


def _skeleton(subnets: Iterable[str], conditions: Iterable[str]) -> str:
    lines = [f'add table {TABLE} {{ comment "host ports of containers" ; }}']
    base = {
        "prerouting": "type nat hook prerouting priority -100 ;",
        "output": "type nat hook output priority -100 ;",
        "postrouting": "type nat hook postrouting priority 100 ;",
        # Routing 127.0.0.0/8 to containers would let them reach what listens on the machine's loopback alone.
        "martians": "type filter hook prerouting priority -300 ;",
    }
    rules: dict[str, list[str]] = {
        "martians": ['iifname != "lo" ip daddr 127.0.0.0/8 drop'],
        "prerouting": ["fib daddr type local jump hostports"],
        # An answer to ::1 is dropped when it comes in by another link, translated or not: no route_localnet for IPv6.
        "output": ["ip6 daddr ::1 return", "fib daddr type local jump hostports"],
        "postrouting": [],
        "hostports": [],
        _EVERYTHING: ["masquerade"],
    }
    for family, nfproto, proto in ((4, "ipv4", "ip"), (6, "ipv6", "ip6")):
        kind = f"{nfproto}_addr"
        lines.append(f"add map {TABLE} masquerade{family} {{ type {kind} . inet_proto . inet_service : verdict ; }}")
        lines.append(f"add map {TABLE} conditional{family} {{ type inet_proto . inet_service : verdict ; }}")
        rules["postrouting"].append(f"ct status dnat {proto} daddr . meta l4proto . th dport vmap @masquerade{family}")
        rules["hostports"].append(f"meta nfproto {nfproto} meta l4proto . th dport vmap @conditional{family}")
    for family, condition in dict.fromkeys([(4, ""), (6, ""), *zip((4, 6), conditions, strict=True)]):
        nfproto, proto = ("ipv6", "ip6") if family == 6 else ("ipv4", "ip")
        suffix = f"{family}_{_hash(condition)}" if condition else f"{family}"
        chain = f"if_{suffix}" if condition else "hostports"
        for name, kind, key in (("addressed", f"{nfproto}_addr . ", f"{proto} daddr . "), ("ports", "", "")):
            types = f"{kind}inet_proto . inet_service : {nfproto}_addr . inet_service"
            lines.append(f"add map {TABLE} {name}{suffix} {{ type {types} ; }}")
            rule = f"{condition} dnat {proto} to {key}meta l4proto . th dport map @{name}{suffix}"
            rules.setdefault(chain, []).append(rule.strip())
    for subnet in subnets:
        source = "ip6 saddr" if ":" in subnet else "ip saddr"
        rules[_hairpin(subnet)] = [f"{source} {subnet} masquerade"]
        if ":" not in subnet:
            rules[_hairpin(subnet)].append("ip saddr 127.0.0.0/8 masquerade")
    lines += [f"add chain {TABLE} {name} {{ {base[name]} }}" for name in base]
    lines += [f"add chain {TABLE} {name}\nflush chain {TABLE} {name}" for name in rules]
    lines += [f"add rule {TABLE} {name} {rule}" for name, each in rules.items() for rule in each]
    return "\n".join(lines) + "\n"
