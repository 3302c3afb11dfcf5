"""Layer 3: why a namespace did not send, forward or take a packet."""

from __future__ import annotations

import errno
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

from podnet.diagnose.segment import down, entry_of, missing, of_ports, unresolved

if TYPE_CHECKING:
    from podnet.diagnose.case import Case, Leg
    from podnet.diagnose.cause import Cause
    from podnet.diagnose.walk import Chosen
    from podnet.kernel.fib import Lookup

__all__ = ["diverging", "duplicate", "kept", "taken", "unsent"]

_FRAGMENTATION_NEEDED = {4: (3, 4), 6: (2, 0)}
_REFUSING = {
    errno.EINVAL: ("blackhole-route", "blackhole"),
    errno.EHOSTUNREACH: ("unreachable-route", "unreachable"),
    errno.EACCES: ("prohibit-route", "prohibit"),
}


def unsent(case: Case, leg: Leg) -> Cause | None:
    """Why the sender of a leg sent nothing at all."""
    netns, destination = leg.start, leg.destination
    if case.scene.has(netns, destination) and netns != leg.end:
        return duplicate(case, netns, leg.end, destination)
    if not leg.reply and leg.trail.send_errno == errno.EMSGSIZE:
        # The sender's own device is too small, or somebody told it of a smaller one on the way.
        hops = [step.netns for step in case.way(leg).steps if step.kind in ("send", "forward")]
        found = (_too_large(case, leg, hop, told=hop != netns) for hop in hops)
        return next((cause for cause in found if cause), None)
    answer = case.scene.lookup(netns, destination)
    if answer is None:
        return None
    if answer.errno:
        return _no_way(case, leg, netns, answer)
    return _beyond(case, leg, netns, answer)


def kept(case: Case, leg: Leg, netns: str, dev: str) -> Cause | None:
    """Why a namespace that got a packet by ``dev`` neither took it nor sent it on."""
    destination = leg.destination
    if case.scene.has(netns, destination):
        return None if netns == leg.end else duplicate(case, netns, leg.end, destination)
    if netns == leg.end:
        owner = next((a for a in case.world.owners(destination) if a.netns == netns), None)
        evidence = f"the packet for {destination} came to {case.named(netns)}"
        return missing(case, netns, owner.dev, destination, evidence) if owner else None
    if not any(step.netns == netns and step.kind in ("send", "forward") for step in case.way(leg).steps):
        return diverging(case, leg) or _stray(case, leg, netns)
    if cause := _not_forwarding(case, leg, netns, dev):
        return cause
    incoming = case.scene.lookup(netns, destination, leg.source, dev)
    outgoing = case.scene.lookup(netns, destination)
    if incoming is None or outgoing is None:
        return None
    if incoming.errno and not outgoing.errno:
        return _martian(case, leg, netns, dev)
    if outgoing.errno:
        return _no_way(case, leg, netns, outgoing)
    return _beyond(case, leg, netns, outgoing)


def taken(case: Case, leg: Leg, netns: str, dev: str) -> Cause | None:
    """Why the receiver threw a packet for it away: its routes think that the sender cannot be where it came from."""
    answer = case.scene.lookup(netns, leg.destination, leg.source, dev)
    return _martian(case, leg, netns, dev) if answer is not None and answer.errno else None


def diverging(case: Case, leg: Leg) -> Cause | None:
    """The first namespace on the way whose route to the destination is not the model's."""
    hops = list(dict.fromkeys(s.netns for s in leg.seen if not case.is_port(s.netns, s.dev)))
    for netns in dict.fromkeys((leg.start, *hops)):
        wanted, found = case.world.lookup(netns, leg.destination), case.scene.lookup(netns, leg.destination)
        if wanted.type == "unicast" and found is not None and not found.errno and found.type == "unicast":
            dev = case.scene.name(netns, found.ifindex)
            if cause := _other_hop(case, leg, netns, wanted, dev, found):
                return cause
        if wanted.type == "local":
            break
    return None


def _other_hop(case: Case, leg: Leg, netns: str, wanted: Chosen, dev: str, found: Lookup) -> Cause | None:
    if (wanted.dev, wanted.via) == (dev, found.via):
        return None
    where = case.named(netns)
    # A connected route comes with its address.
    lacking = "" if wanted.via else f"{where} routes {leg.destination} by {dev} instead"
    if lacking and (cause := _missing_on(case, netns, wanted.dev, leg.version, lacking)):
        return cause
    # Connected, where the model goes by a next hop: an address claims too large a network.
    own = [a for d, a in case.scene.addresses(netns) if d == dev and (":" in a) == (leg.version == 6)]
    model = {a.address for a in case.world.addresses.get(netns, ()) if a.dev == dev}
    for address in own:
        right = next((m for m in model if m.partition("/")[0] == address.partition("/")[0] and m != address), "")
        claims = ip_address(leg.destination) in ip_interface(address).network
        if right and claims and not found.via:
            return case.cause(
                "wrong-prefix", netns, address,
                f"{where} has {address} on {dev}, and should have {right}: it thinks {leg.destination} is on the link",
                show=("ip", "address", "show", "dev", dev),
                mend=("sh", "-c", f"ip address add {right} dev {dev}; ip address del {address} dev {dev}"),
            )  # fmt: skip
    real = f"via {found.via}" if found.via else "on the link"
    way = f"via {wanted.via}" if wanted.via else "on the link"
    mend = ("ip", "route", "replace", wanted.prefix, *(("via", wanted.via) if wanted.via else ()), "dev", wanted.dev)
    subject = found.prefix
    if found.prefix != wanted.prefix:
        subject, mend = leg.destination, ("ip", "route", "del", found.prefix)
    return case.cause(
        "wrong-next-hop", netns, found.prefix or leg.destination,
        f"{where} routes {subject} {real} dev {dev}; it should be {way} dev {wanted.dev}",
        f"the route that matches is {found.prefix}, not {wanted.prefix}" if subject == leg.destination else "",
        show=("ip", "route", "get", leg.destination), mend=mend,
    )  # fmt: skip


def _missing_on(case: Case, netns: str, dev: str, version: int, evidence: str) -> Cause | None:
    """The first of a device's addresses of an IP version that is not there."""
    for each in case.world.addresses.get(netns, ()):
        plain = each.address.partition("/")[0]
        if each.dev == dev and (":" in plain) == (version == 6):
            cause = missing(case, netns, dev, plain, evidence)
            if cause is not None:
                return cause
    return None


def _stray(case: Case, leg: Leg, netns: str) -> Cause | None:
    """A packet in a namespace where it has no business, although the routes are right: a MAC led it there."""
    before = case.previous_hop(leg, netns)
    answer = case.scene.lookup(before.netns, leg.destination) if before else None
    if before is None or answer is None or answer.errno:
        return None
    hop = answer.via or leg.destination
    if case.scene.has(netns, hop):
        end = case.world.towards(before.netns, before.dev, hop)
        return duplicate(case, netns, end[0], hop) if end and end[0] != netns else None
    return entry_of(case, before.netns, before.dev, hop, before.frame.destination_mac)


def duplicate(case: Case, netns: str, owner: str, address: str) -> Cause | None:
    """An address in a namespace that the model gives to another one."""
    if netns == owner or not any(a.netns == owner for a in case.world.owners(address)):
        return None
    device = next((d for d, a in case.scene.addresses(netns) if a.partition("/")[0] == address), "")
    full = next((a for _, a in case.scene.addresses(netns) if a.partition("/")[0] == address), address)
    return case.cause(
        "duplicate-address", netns, address,
        f"{case.named(netns)} has {address} on {device}, which is {case.named(owner)}'s address",
        show=("ip", "address", "show", "dev", device), mend=("ip", "address", "del", full, "dev", device),
    )  # fmt: skip


def _not_forwarding(case: Case, leg: Leg, netns: str, dev: str) -> Cause | None:
    if leg.version == 4:
        # The whole namespace's switch sets each device's; a device may have been set apart.
        names = ["net/ipv4/ip_forward", f"net/ipv4/conf/{dev}/forwarding"]
        off = case.scene.sysctl(netns, names[1]) == "0"
        if off and case.scene.sysctl(netns, names[0]) == "1":
            names = names[1:]
    else:
        names = ["net/ipv6/conf/all/forwarding"]
        off = case.scene.sysctl(netns, names[0]) == "0"
    if not off:
        return None
    dotted = names[0].replace("/", ".")
    return case.cause(
        "forwarding-off", netns, dotted, f"{case.named(netns)} does not forward: {dotted} is 0",
        f"the packet came in by {dev} and is for {leg.destination}",
        show=("sysctl", dotted), mend=("sysctl", "-w", f"{dotted}=1"),
    )  # fmt: skip


def _martian(case: Case, leg: Leg, netns: str, dev: str) -> Cause | None:
    """The sender's address is one that this namespace has itself, or would be reached by another device."""
    if netns == leg.start:
        return diverging(case, leg)  # its own packet came back to it
    if case.scene.has(netns, leg.source):
        return duplicate(case, netns, leg.start, leg.source)
    if leg.version == 6:
        return None
    values = {n: case.scene.sysctl(netns, f"net/ipv4/conf/{n}/rp_filter") for n in ("all", dev)}
    strict = max(values, key=lambda name: values[name] or "0")
    if values[strict] not in ("1", "2"):
        return None
    back = case.scene.lookup(netns, leg.source)
    if back is None:
        return None
    other = case.scene.name(netns, back.ifindex) if not back.errno else ""
    if other == dev:
        return None
    dotted = f"net.ipv4.conf.{strict}.rp_filter"
    return case.cause(
        "reverse-path", netns, dotted,
        f"{case.named(netns)} drops what comes from {leg.source} by {dev}: "
        + (f"its own way there is {other}" if other else "it has no way there")
        + f", and {dotted} is {values[strict]}",
        show=("ip", "route", "get", leg.source), mend=("sysctl", "-w", f"{dotted}=0"),
    )  # fmt: skip


def _no_way(case: Case, leg: Leg, netns: str, answer: Lookup) -> Cause | None:
    """Routes refuse: is a device or an address missing that the model's route hangs on, or the route itself?"""
    where, destination = case.named(netns), leg.destination
    wanted = case.world.lookup(netns, destination)
    if wanted.type == "local":
        return missing(case, netns, wanted.dev, destination, f"{where} has no route to {destination}")
    if wanted.type == "unicast":
        if cause := down(case, netns, wanted.dev):
            return cause
        if cause := _missing_on(case, netns, wanted.dev, leg.version, f"{where} has no route to {destination}"):
            return cause
    if answer.errno == errno.ENETUNREACH:
        way = ("via", wanted.via) if wanted.via else ()
        mend = ("ip", "route", "add", wanted.prefix, *way, "dev", wanted.dev) if wanted.type == "unicast" else ()
        why = "" if wanted.type == "unicast" else "the topology gives it none"
        if wanted.learned:
            mend, why = (), "its routing daemon has not learned it: 'podnet status' says how its sessions are"
        return case.cause(
            "no-route", netns, wanted.prefix or destination, f"{where} has no route to {destination}", why,
            show=("ip", "route", "get", destination), mend=mend,
        )  # fmt: skip
    if answer.errno not in _REFUSING:
        return None
    kind, word = _REFUSING[answer.errno]
    family = ("-6",) if leg.version == 6 else ()
    prefix = case.scene.refusing(netns, word, destination)
    if not prefix:
        return case.cause(
            kind, netns, destination, f"a rule of {where}'s routing policy refuses {destination}: {word}",
            show=("ip", *family, "rule"),
        )  # fmt: skip
    return case.cause(
        kind, netns, prefix, f"{where} has {_article(word)} {word} route for {prefix}",
        f"the packet is for {destination}",
        show=("ip", *family, "route", "show", "type", word), mend=("ip", *family, "route", "del", word, prefix),
    )  # fmt: skip


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _beyond(case: Case, leg: Leg, netns: str, answer: Lookup) -> Cause | None:
    """The routes are willing: the packet is too large, the device is down, or the next hop's MAC is not known."""
    dev = case.scene.name(netns, answer.ifindex)
    if answer.type != "unicast" or not dev:
        return None
    if cause := down(case, netns, dev):
        return cause
    link, end = case.scene.link(netns, dev), case.world.towards(netns, dev, answer.via or leg.destination)
    if link is not None and link.kind == "bridge" and not link.carrier and end is not None and end[2]:
        # Without a single port that works, a bridge sends nothing: what of the one that should be used?
        return of_ports(case, netns, dev, "", end[2][0].out)
    if leg.length and not leg.reply and (cause := _too_large(case, leg, netns)):
        return cause
    hop = answer.via or leg.destination
    entry = case.scene.neighbour(netns, dev, hop)
    if entry is not None and entry.mac:
        return entry_of(case, netns, dev, hop, entry.mac)
    wanted = case.world.lookup(netns, leg.destination)
    if wanted.type == "unicast" and (cause := _other_hop(case, leg, netns, wanted, dev, answer)):
        return cause
    return unresolved(case, leg, netns, dev, hop)


def _too_large(case: Case, leg: Leg, netns: str, *, told: bool = False) -> Cause | None:
    answer = case.scene.lookup(netns, leg.destination)
    if answer is None or answer.errno:
        return None
    dev = case.scene.name(netns, answer.ifindex)
    link = case.scene.link(netns, dev)
    if link is None or leg.length <= min(link.mtu, answer.mtu or link.mtu):
        return None
    wanted = case.world.links.get((netns, dev))
    seen = any(s.frame.error[:2] == _FRAGMENTATION_NEEDED[leg.version] for s in leg.trail.errors)
    own = netns == leg.start
    kind, telling = "mtu" if told or own or seen else "mtu-silent", _telling(seen=seen, own=own, told=told)
    if answer.mtu and answer.mtu < link.mtu:
        return case.cause(
            kind, netns, answer.prefix,
            f"{case.named(netns)}'s route to {answer.prefix} has MTU {answer.mtu}, and the packet {leg.length} bytes",
            telling, show=("ip", "route", "get", leg.destination),
            mend=("ip", "route", "change", answer.prefix, *(("via", answer.via) if answer.via else ()), "dev", dev),
        )  # fmt: skip
    model = wanted.mtu if wanted is not None else 0
    mend = ("ip", "link", "set", "dev", dev, "mtu", str(model)) if model > link.mtu else ()
    return case.cause(
        kind, netns, dev, f"{dev} in {case.named(netns)} has MTU {link.mtu}, and the packet {leg.length} bytes",
        f"the topology gives it {model}" if model else "", telling, show=("ip", "link", "show", "dev", dev), mend=mend,
    )  # fmt: skip


def _telling(*, seen: bool, own: bool, told: bool) -> str:
    if seen:
        return "the ICMP error that says so was seen"
    if told:
        return "the sender has been told before: its kernel refuses to send the packet"
    return "" if own else "no ICMP error came back"
