"""From all that was seen of a packet to its cause. Decides only; where the evidence leaves a choice, it names none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.diagnose.case import Leg
from podnet.diagnose.cause import Diagnosis
from podnet.diagnose.packet import RESET
from podnet.diagnose.routing import diverging, duplicate, kept, taken, unsent
from podnet.diagnose.rules import blamed, changing
from podnet.diagnose.segment import after_out, detached, egress, missing
from podnet.diagnose.trail import IN, OUT
from podnet.model.probe import Check
from podnet.probe.addressing import Sources, described

if TYPE_CHECKING:
    from podnet.diagnose.case import Case
    from podnet.diagnose.cause import Cause
    from podnet.diagnose.trail import Sighting, Trail

__all__ = ["explain"]

_PORT_UNREACHABLE = {4: (3, 3), 6: (1, 4)}
# Reasons that only say that a packet had come to its proper end, or that a bridge flooded it to those it is not for.
_NO_REASONS = {"NOT_SPECIFIED", "OTHERHOST", "SOCKET_FILTER", "UNHANDLED_PROTO"}


def explain(case: Case, trail: Trail) -> Diagnosis:
    """The diagnosis of one trail."""
    if trail.failure and not trail.sightings:
        return _unmeasured(case, trail)
    request = _request(trail)
    if cause := _stranger(case, trail):
        return _told(case, trail, request, cause)
    if trail.arrived is None:
        return _told(case, trail, request, _lost(case, request))
    if cause := _translated(case, trail):
        return _told(case, trail, request, cause)
    reply = _reply(case, trail)
    if _came_back(trail, reply):
        refused = _refused(case, trail) if trail.subject.expected != "refuse" else None
        return _told(case, trail, reply, refused, passed=refused is None)
    return _told(case, trail, reply, _lost(case, reply) if reply.seen else _silent(case, request, reply))


def _unmeasured(case: Case, trail: Trail) -> Diagnosis:
    for netns in (trail.source_netns, trail.target_netns):
        if netns and not case.scene.exists(netns):
            gone = case.cause("namespace-gone", netns, netns, f"namespace {netns} is gone", show=("ip", "netns"))
            return Diagnosis(trail, gone)
    return Diagnosis(trail, None, note=trail.failure)


def _request(trail: Trail) -> Leg:
    return Leg(trail, False, trail.source_netns, trail.target_netns, trail.source, trail.destination, trail.requests)


def _reply(case: Case, trail: Trail) -> Leg:
    """The way back: of an answer, or of the receiver's own ICMP error. NAT cuts it in two: the last part counts."""
    arrived = trail.arrived
    back = arrived.frame.source if arrived else trail.source
    seen = trail.answers or [s for s in _unreachable(trail) if s.frame.source == trail.destination]
    whole = Leg(trail, True, trail.target_netns, trail.source_netns, trail.destination, back, seen)
    if back == trail.source:
        return whole
    middle = next(s.netns for s in trail.requests if s.frame.source == back)
    came = (i for i, s in enumerate(seen) if s.netns == middle and s.way == IN and not case.is_port(s.netns, s.dev))
    first = next(came, None)
    if first is None:
        return whole._replace(end=middle)
    return whole._replace(start=middle, destination=trail.source, seen=seen[first:])


def _unreachable(trail: Trail) -> list[Sighting]:
    return [s for s in trail.errors if s.frame.error[:2] == _PORT_UNREACHABLE[trail.subject.version]]


def _came_back(trail: Trail, reply: Leg) -> bool:
    return any(s.netns == trail.source_netns and s.way == IN and not s.for_others for s in reply.seen)


def _stranger(case: Case, trail: Trail) -> Cause | None:
    """Whether the sender sends under an address that the model does not give it."""
    netns = trail.source_netns
    own = [a for a in case.world.addresses.get(netns, []) if (":" in a.address) == (trail.subject.version == 6)]
    if not trail.source or any(a.address.partition("/")[0] == trail.source for a in own):
        return None
    for owner in case.world.owners(trail.source):
        return duplicate(case, netns, owner.netns, trail.source)
    causes = (missing(case, netns, a.dev, a.address.partition("/")[0], f"it sends as {trail.source}") for a in own)
    return next((cause for cause in causes if cause), None)


def _told(case: Case, trail: Trail, leg: Leg, cause: Cause | None, *, passed: bool = False) -> Diagnosis:
    main = case.main(leg)
    last = f"{main[-1].dev} in {case.named(main[-1].netns)} ({main[-1].way})" if main else ""
    # An echo reply that nobody waits for ends so, and has arrived.
    drops = [d for d in trail.drops if not passed and d.reason not in _NO_REASONS and d.function != "ping_rcv"]
    reasons = [f"{d.function}: {d.reason}" for d in drops]
    note = "" if cause else _why_not(trail, passed=passed)
    return Diagnosis(trail, cause, leg.reply, last, tuple(dict.fromkeys(reasons)), note, passed)


def _why_not(trail: Trail, *, passed: bool) -> str:
    if passed and trail.subject.expected != "reach":
        return f"{trail.subject.expected} is expected, and nothing on the way does it"
    if passed:
        return "it came through when it was replayed"
    if any(drop.reason == "NETFILTER_DROP" for drop in trail.drops):
        return "a netfilter rule drops it that nftables does not know of: iptables-legacy?"
    return "the evidence suffices for no cause"


def _lost(case: Case, leg: Leg) -> Cause | None:
    """Why a leg ended where it was seen last."""
    if cause := blamed(case, [m for m in leg.trail.rules if m.reply == leg.reply], leg.trail.subject):
        return cause
    main = case.main(leg)
    if not main:
        return unsent(case, leg)
    if _goes_round(case, main):
        return diverging(case, leg)
    last = main[-1]
    if last.way == OUT:
        return after_out(case, leg, last)
    if case.is_port(last.netns, last.dev):
        bridge = case.scene.master(last.netns, last.dev)
        return egress(case, leg, last.netns, bridge, last.dev, last.frame.destination_mac)
    if last.dev == "lo" and last.netns == leg.start:
        return unsent(case, leg)
    return detached(case, last.netns, last.dev) or kept(case, leg, last.netns, last.dev)


def _goes_round(case: Case, main: list[Sighting]) -> bool:
    """Whether the packet left one device twice with different TTLs."""
    ttls: dict[tuple[str, str], set[int]] = {}
    for each in main:
        if each.way == OUT and not case.is_port(each.netns, each.dev):
            ttls.setdefault((each.netns, each.dev), set()).add(each.frame.ttl)
    return any(len(values) > 1 for values in ttls.values())


def _translated(case: Case, trail: Trail) -> Cause | None:
    """Whether the receiver saw another sender's address than it should."""
    arrived, subject = trail.arrived, trail.subject
    if arrived is None or subject.seen == "any":
        return None
    seen = arrived.frame.source
    check = Check(subject.source, subject.target, subject.protocol, subject.version, seen=subject.seen)
    if Sources(case.lab).fits(check, seen):
        return None
    expected = f"{subject.target} saw {seen}; it should see {described(subject.seen)}"
    if seen == trail.source:
        return _untranslated(case, trail, expected)
    first = next(s for s in trail.requests if s.frame.source == seen)
    rule = changing(trail.rules, first.netns)
    if rule is None:
        return case.cause(
            "nat-unexpected", first.netns, "",
            f"{case.named(first.netns)} changes the source from {trail.source} to {seen}",
            expected, show=("nft", "list", "ruleset"),
        )  # fmt: skip
    t = rule.trace
    return case.cause(
        "nat-unexpected", first.netns, f"{t.family} {t.table} {t.chain}",
        f"{case.named(first.netns)} changes the source from {trail.source} to {seen}: {rule.text}", expected,
        show=("nft", "-a", "list", "chain", t.family, t.table, t.chain),
        mend=("nft", "delete", "rule", t.family, t.table, t.chain, "handle", str(t.handle)),
    )  # fmt: skip


def _untranslated(case: Case, trail: Trail, expected: str) -> Cause | None:
    source = case.lab.target(trail.subject.source)
    node = case.lab.target(source.node) if source is not None and source.node else None
    if node is None:
        return None
    return case.cause(
        "nat-missing", node.netns, "masquerade",
        f"{node.name} lets {trail.source} out unchanged: no masquerade rule took it", expected,
        show=("nft", "list", "ruleset"),
    )  # fmt: skip


def _silent(case: Case, request: Leg, reply: Leg) -> Cause | None:
    """The request arrived, and the receiver answered nothing."""
    trail = request.trail
    if cause := blamed(case, trail.rules, trail.subject):
        return cause
    netns, arrived = trail.target_netns, trail.arrived
    if not case.scene.has(netns, trail.destination):
        return kept(case, request, netns, arrived.dev if arrived else "")
    if arrived is not None and arrived.dev != "lo" and (cause := taken(case, request, netns, arrived.dev)):
        return cause
    if trail.subject.protocol == "icmp":
        name = "net/ipv4/icmp_echo_ignore_all" if request.version == 4 else "net/ipv6/icmp/echo_ignore_all"
        if case.scene.sysctl(netns, name) == "1":
            dotted = name.replace("/", ".")
            return case.cause(
                "icmp-ignored", netns, dotted, f"{case.named(netns)} does not answer ICMP echo: {dotted} is 1",
                show=("sysctl", dotted), mend=("sysctl", "-w", f"{dotted}=0"),
            )  # fmt: skip
    return unsent(case, reply)


def _refused(case: Case, trail: Trail) -> Cause | None:
    """A reset, or an ICMP error of the receiver's own: a rule's doing, or nobody listens."""
    resets = trail.of(RESET)
    unreachable = _unreachable(trail)
    if not resets and not unreachable:
        return None
    if cause := blamed(case, trail.rules, trail.subject):
        return cause
    subject, first = trail.subject, min([*resets, *unreachable], key=lambda sighting: sighting.at)
    if first.netns != trail.target_netns or not subject.port:
        return None
    if case.scene.listens(trail.target_netns, subject.protocol, subject.port):
        return None
    return case.cause(
        "port-closed", trail.target_netns, f"{subject.protocol}/{subject.port}",
        f"nobody in {subject.target} listens on {subject.protocol} port {subject.port}",
        f"{subject.target} itself answered with {'a TCP reset' if resets else 'ICMP port unreachable'}",
        show=("ss", "-lntu"),
    )  # fmt: skip
