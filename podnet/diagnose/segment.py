"""Layer 2: why a frame did not get from one device to the next, and why nobody answers for a next hop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.diagnose.rules import blamed, changing
from podnet.diagnose.trail import IN, OUT
from podnet.kernel.objects import Bridge, Veth

if TYPE_CHECKING:
    from podnet.diagnose.case import Case, Leg
    from podnet.diagnose.cause import Cause
    from podnet.diagnose.trail import Sighting
    from podnet.diagnose.walk import Step

__all__ = ["after_out", "detached", "down", "egress", "entry_of", "missing", "of_ports", "unresolved"]


# gc_thresh2 and gc_thresh3 as the kernel has them from the start (net/ipv4/arp.c).
_LIMITS = (512, 1024)


def down(case: Case, netns: str, dev: str) -> Cause | None:
    """What is wrong with a device itself, or with the other end of its cable."""
    link = case.scene.link(netns, dev)
    where = case.named(netns)
    if link is None:
        if (netns, dev) not in case.world.links:
            return None
        return case.cause("link-gone", netns, dev, f"{dev} in {where} is gone", show=("ip", "link"))
    if not link.up:
        return case.cause(
            "link-down", netns, dev, f"{dev} in {where} is down",
            show=("ip", "link", "show", dev), mend=("ip", "link", "set", dev, "up"),
        )  # fmt: skip
    wanted = case.world.links.get((netns, dev))
    if not link.carrier and isinstance(wanted, Veth):
        far = case.scene.link(wanted.peer_netns, wanted.peer)
        if far is not None and not far.up:
            peer = f"{wanted.peer} in {case.named(wanted.peer_netns)}"
            return case.cause(
                "link-down", wanted.peer_netns, wanted.peer, f"{peer}, the other end of {dev} in {where}, is down",
                f"{dev} in {where} has no carrier",
                show=("ip", "link", "show", wanted.peer), mend=("ip", "link", "set", wanted.peer, "up"),
            )  # fmt: skip
    return None


def detached(case: Case, netns: str, dev: str) -> Cause | None:
    """A port that should be in a bridge, and is in none or in another."""
    wanted = case.world.links.get((netns, dev))
    master = wanted.master if isinstance(wanted, Veth) else ""
    found = case.scene.master(netns, dev)
    if not master or found == master or case.scene.link(netns, dev) is None:
        return None
    return case.cause(
        "port-detached", netns, dev,
        f"{dev} in {case.named(netns)} is {f'in bridge {found}' if found else 'in no bridge'}, not in {master}",
        show=("ip", "link", "show", dev), mend=("ip", "link", "set", dev, "master", master),
    )  # fmt: skip


def after_out(case: Case, leg: Leg, last: Sighting) -> Cause | None:
    """Why a frame that left a device was not seen on the next one."""
    link = case.scene.link(last.netns, last.dev)
    if link is not None and link.kind == "bridge":
        port = _translated_at(case, leg, last)
        return egress(case, leg, last.netns, last.dev, port, last.frame.destination_mac)
    wanted = case.world.links.get((last.netns, last.dev))
    if not isinstance(wanted, Veth):
        return None
    if cause := down(case, last.netns, last.dev) or down(case, wanted.peer_netns, wanted.peer):
        return cause
    far = case.scene.link(wanted.peer_netns, wanted.peer)
    came = any((s.netns, s.dev, s.way) == (wanted.peer_netns, wanted.peer, IN) for s in leg.seen)
    if not came and far is not None and leg.length > far.mtu:
        where = case.named(wanted.peer_netns)
        return case.cause(
            "mtu-silent", wanted.peer_netns, wanted.peer,
            f"{wanted.peer} in {where} has MTU {far.mtu}, and takes no packet of {leg.length} bytes",
            show=("ip", "link", "show", wanted.peer), mend=("ip", "link", "set", wanted.peer, "mtu", str(leg.length)),
        )  # fmt: skip
    if not came:
        return None
    return detached(case, wanted.peer_netns, wanted.peer) or wrong_mac(case, leg, last.frame.destination_mac)


def _translated_at(case: Case, leg: Leg, last: Sighting) -> str:
    """The port by which a packet came in whose address netfilter then replaced inside the bridge; empty if none did.

    Such a packet (net.bridge.bridge-nf-call-iptables) is bridged on, as if it had never been routed.
    """
    if changing(leg.trail.rules, last.netns, ("dnat",)) is None:
        return ""
    ports = (s.dev for s in leg.seen if s.netns == last.netns and s.way == IN and case.is_port(s.netns, s.dev))
    return next(ports, "")


def egress(
    case: Case, leg: Leg, netns: str, bridge: str, port: str, mac: str, length: int | None = None
) -> Cause | None:
    """Why a bridge did not pass a frame on that came in by ``port`` (empty: from the bridge's own namespace).

    ``length`` is the frame's where it is not the leg's packet.
    """
    size = leg.length if length is None else length
    link = case.scene.link(netns, bridge)
    if link is not None and mac == link.mac and port:
        return of_ports(case, netns, bridge, port, "", size)
    path = _path(case, netns, bridge, mac)
    if not path:
        return of_ports(case, netns, bridge, port, "", size) or wrong_mac(case, leg, mac)
    out = path[0].out
    pinned = case.scene.pinned_port(netns, bridge, mac)
    if pinned and out and pinned != out:
        return case.cause(
            "port-wrong", netns, pinned,
            f"bridge {bridge} in {case.named(netns)} has {mac} pinned at {pinned}; it is behind {out}",
            show=("bridge", "fdb", "show", "br", bridge), mend=("bridge", "fdb", "del", mac, "dev", pinned, "master"),
        )  # fmt: skip
    return of_ports(case, netns, bridge, port, out, size)


def _path(case: Case, netns: str, bridge: str, mac: str) -> tuple[Step, ...]:
    """From a bridge to who has a MAC on its segment, as the cables should be."""
    holders = case.macs.get(mac, [])
    ends = case.world.segment(netns, bridge)
    return next((steps for where, dev, steps in ends if (where, dev) in holders and steps), ())


def of_ports(case: Case, netns: str, bridge: str, port: str, out: str, length: int = 0) -> Cause | None:
    """What is wrong with a bridge, and with the ports by which a frame of ``length`` bytes comes in and goes out."""
    where = case.named(netns)
    if cause := down(case, netns, bridge):
        return cause
    for name in filter(None, (port, out)):
        if cause := down(case, netns, name) or detached(case, netns, name):
            return cause
        link = case.scene.link(netns, name)
        if link is not None and link.port_state not in ("forwarding", ""):
            return case.cause(
                "port-disabled", netns, name, f"port {name} of {bridge} in {where} is {link.port_state}",
                show=("bridge", "-d", "link", "show", "dev", name),
                mend=("bridge", "link", "set", "dev", name, "state", "3"),
            )  # fmt: skip
    first, second = case.scene.link(netns, port), case.scene.link(netns, out)
    if second is None:
        return None
    if first is not None and first.isolated and second.isolated:
        return case.cause(
            "port-isolated", netns, out, f"ports {port} and {out} of {bridge} in {where} are both isolated",
            show=("bridge", "-d", "link", "show", "dev", out),
            mend=("bridge", "link", "set", "dev", out, "isolated", "off"),
        )  # fmt: skip
    if port == out and not second.hairpin:
        return case.cause(
            "hairpin-off", netns, out, f"port {out} of {bridge} in {where} has hairpin off",
            "the frame has to leave by the port that it came in by",
            show=("bridge", "-d", "link", "show", "dev", out),
            mend=("bridge", "link", "set", "dev", out, "hairpin", "on"),
        )  # fmt: skip
    if length > second.mtu:
        return case.cause(
            "mtu-silent", netns, out, f"port {out} of {bridge} in {where} has MTU {second.mtu}",
            f"the packet has {length} bytes; a bridge drops what is too large and tells nobody",
            show=("ip", "link", "show", out), mend=("ip", "link", "set", out, "mtu", str(length)),
        )  # fmt: skip
    return None


def wrong_mac(case: Case, leg: Leg, mac: str) -> Cause | None:
    """A MAC that nobody has on the segment: whose neighbour entry it is from."""
    sent = next((s for s in leg.seen if s.frame.destination_mac == mac and s.way == OUT), None)
    if sent is None:
        return None
    here = {(where, dev) for where, dev, _ in case.world.segment(sent.netns, sent.dev)}
    answer = case.scene.lookup(sent.netns, leg.destination)
    if here & set(case.macs.get(mac, [])) or answer is None or answer.errno:
        return None
    return entry_of(case, sent.netns, sent.dev, answer.via or leg.destination, mac)


def entry_of(case: Case, netns: str, dev: str, hop: str, mac: str) -> Cause | None:
    """The neighbour entry that leads to a MAC, where the model says that the next hop has another."""
    entry = case.scene.neighbour(netns, dev, hop)
    end = case.world.towards(netns, dev, hop)
    if entry is None or entry.mac != mac or end is None:
        return None
    owner = case.scene.link(*end[:2])
    if owner is None or owner.mac == mac:
        return None
    return case.cause(
        "wrong-mac", netns, hop, f"{case.named(netns)} sends what is for {hop} to {mac}; {hop} has {owner.mac}",
        f"the neighbour entry is {entry.state}",
        show=("ip", "neigh", "show", hop, "dev", dev),
        mend=("ip", "neigh", "replace", hop, "lladdr", owner.mac, "dev", dev, "nud", "stale"),
    )  # fmt: skip


def unresolved(case: Case, leg: Leg, netns: str, dev: str, hop: str) -> Cause | None:
    """Why a next hop's MAC is not known, as far as the model knows who should have answered."""
    entry = case.scene.neighbour(netns, dev, hop)
    if entry is not None and entry.mac:
        return None
    end = case.world.towards(netns, dev, hop)
    if end is None:
        return None
    asked = [s for s in leg.trail.asked if s.frame.asked == hop]
    questions = [s for s in asked if not s.frame.told]
    if not any((s.netns, s.dev, s.way) == (netns, dev, OUT) for s in questions):
        if leg.trail.overflowed and entry is None:
            return _full(case, leg.version, f"{case.named(netns)} gets no entry for {hop}")
        return down(case, netns, dev)
    owner, face, steps = end
    if rule := blamed(case, leg.trail.asking_rules(hop), leg.trail.subject):
        return rule
    came = any((s.netns, s.dev, s.way) == (owner, face, IN) for s in questions)
    if not came:
        return _along(case, leg, questions, (netns, dev), steps)
    if not case.scene.has(owner, hop):
        return missing(
            case, owner, face, hop, f"{case.named(netns)} asks for {hop} and {case.named(owner)} keeps silent"
        )
    answers = [s for s in asked if s.frame.told]
    if not any(s.netns == owner and s.way == OUT for s in answers):
        if leg.trail.overflowed:
            return _full(
                case, leg.version, f"{case.named(owner)} does not answer {case.named(netns)}'s question for {hop}"
            )
        return _ignored(case, leg, owner, face)
    back = case.world.towards(owner, face, _address_on(case, netns, dev, leg.version))
    return _along(case, leg, answers, (owner, face), back[2] if back else ())


def _full(case: Case, version: int, evidence: str) -> Cause:
    """The table that all namespaces share takes no entry more; the mend is a limit that the kernel would take."""
    folder = f"net/ipv{version}/neigh/default"
    limit = int(case.scene.sysctl("", f"{folder}/gc_thresh3") or 0)
    second, third = _LIMITS if limit < _LIMITS[1] else (limit, 2 * limit)
    dotted = folder.replace("/", ".")
    return case.cause(
        "neighbour-table-full", "", f"{dotted}.gc_thresh3",
        f"the kernel's neighbour table, one for all namespaces, is full: {dotted}.gc_thresh3 is {limit}",
        evidence,
        show=("sysctl", f"{dotted}.gc_thresh3"),
        mend=("sysctl", "-w", f"{dotted}.gc_thresh2={second}", f"{dotted}.gc_thresh3={third}"),
    )  # fmt: skip


def _address_on(case: Case, netns: str, dev: str, version: int) -> str:
    found = (a.address.partition("/")[0] for a in case.world.addresses.get(netns, []) if a.dev == dev)
    return next((address for address in found if (":" in address) == (version == 6)), "")


def _along(
    case: Case, leg: Leg, frames: list[Sighting], start: tuple[str, str], steps: tuple[Step, ...]
) -> Cause | None:
    """Where a question, or its answer, got stuck along the bridges that the model predicts."""
    seen = {(s.netns, s.dev, s.way) for s in frames}
    macs = {s.frame.destination_mac for s in frames}
    mac = next((m for m in sorted(macs) if m and not int(m[:2], 16) & 1), "")  # none: it was for all
    link = case.world.links.get(start)
    if isinstance(link, Veth) and (link.peer_netns, link.peer, IN) not in seen:
        return down(case, *start) or down(case, link.peer_netns, link.peer)
    for step in steps:
        came = not step.dev or (step.netns, step.dev, IN) in seen
        left = (step.netns, step.out, OUT) in seen if step.out else (step.netns, step.via, IN) in seen
        if came and not left:
            if mac and step.out:
                return egress(case, leg, step.netns, step.via, step.dev, mac, 0)
            return of_ports(case, step.netns, step.via, step.dev, step.out)
        if came and step.out:
            there = case.world.links.get((step.netns, step.out))
            if isinstance(there, Veth) and (there.peer_netns, there.peer, IN) not in seen:
                return down(case, step.netns, step.out) or down(case, there.peer_netns, there.peer)
    return None


def missing(case: Case, netns: str, dev: str, address: str, evidence: str = "") -> Cause | None:
    """An address that the model gives to a device, and that is not there."""
    wanted = next((a for a in case.world.owners(address) if (a.netns, a.dev) == (netns, dev)), None)
    if wanted is None or case.scene.has(netns, address):
        return None
    link = case.scene.link(netns, dev)
    if link is None or not link.up:
        return down(case, netns, dev)
    kind = "bridge " if isinstance(case.world.links.get((netns, dev)), Bridge) else ""
    return case.cause(
        "address-missing", netns, dev, f"{kind}{dev} in {case.named(netns)} lacks its address {wanted.address}",
        evidence,
        show=("ip", "address", "show", "dev", dev), mend=("ip", "address", "add", wanted.address, "dev", dev),
    )  # fmt: skip


def _ignored(case: Case, leg: Leg, netns: str, dev: str) -> Cause | None:
    if leg.version == 6:
        return None
    for name in (f"net/ipv4/conf/{dev}/arp_ignore", "net/ipv4/conf/all/arp_ignore"):
        value = case.scene.sysctl(netns, name)
        if value not in ("", "0"):
            dotted = name.replace("/", ".")
            return case.cause(
                "arp-ignored", netns, dotted, f"{case.named(netns)} does not answer ARP: {dotted}={value}",
                show=("sysctl", dotted), mend=("sysctl", "-w", f"{dotted}=0"),
            )  # fmt: skip
    return None
