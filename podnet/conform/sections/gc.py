"""GC: what is stale goes, all else stays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from podnet.conform.case import listed, told
from podnet.conform.model import INTERFACE, IPAM, not_applicable
from podnet.conform.observe import lost
from podnet.conform.results import version_tuple
from podnet.conform.sections.table import Table

if TYPE_CHECKING:
    from podnet.conform.case import Case
    from podnet.conform.model import Exchange, Kind
    from podnet.conform.observe import Snapshot
    from podnet.conform.subject import Attachment

__all__ = ["TABLE"]

TABLE = Table("GC")
row = TABLE.row

_ADDRESSING: tuple[Kind, ...] = (*INTERFACE, *IPAM)
_SINCE = "1.1.0"
_SOURCE = "SPEC section 2, GC: remove as many stale resources as possible"
_NEW, _OLD = "cni.dev/valid-attachments", "cni.dev/attachments"


def collect(
    case: Case, at: Attachment, valid: list[Attachment] | None, *, keys: tuple[str, ...] = (_NEW, _OLD)
) -> Exchange:
    """Run GC for the network of an attachment as libcni does; ``None`` leaves the list away."""
    body: dict[str, Any] = case.config(at, "GC")
    if valid is not None:
        body |= {key: [{"containerID": each.sandbox.id, "ifname": each.ifname} for each in valid] for key in keys}
    return case.run("GC", config=body, title=f"GC, {'no list' if valid is None else f'{len(valid)} valid'}")


def _stale(case: Case) -> tuple[Snapshot, Attachment, Attachment]:
    """A valid attachment, and one whose container is gone; with the host as it was before the latter."""
    keep = case.add()
    at = case.attachment()
    before = case.host()
    case.add(at)
    case.leave(at.sandbox)
    return before, keep, at


@row("G0", "library", "GC of a configuration before 1.1.0 fails", "skel: GC came with 1.1.0, code 1")
def too_old(case: Case) -> str:
    case.needs(_SINCE, "GC")
    old = [version for version in case.subject.versions if version_tuple(version) < (1, 1, 0)]
    if not old:
        not_applicable("no version before 1.1.0 is announced")
    exchange = case.run("GC", config={**case.config(version=old[-1]), _NEW: []}, title=f"GC, version {old[-1]}")
    case.refused(exchange, f"GC in version {old[-1]}", 1)
    return told(exchange)


@row("G1a", "SHOULD", "GC removes what a stale attachment has on the host", _SOURCE, since=_SINCE)
def removes_stale(case: Case) -> str:
    before, keep, at = _stale(case)
    had = case.residue_now(before)
    if not had:
        not_applicable("an attachment has nothing on the host")
    case.succeeded(collect(case, at, [keep]))
    case.clean(before, "GC reported success")
    return listed(had)


@row(
    "G1b",
    "SHOULD",
    "GC releases the address of a stale attachment",
    f"{_SOURCE}, for example any IPAM reservations",
    kinds=_ADDRESSING,
    since=_SINCE,
)
def releases_address(case: Case) -> None:
    case.needs_own_addresses()
    case.needs_pool()
    tiny = case.network("tiny", prefix=30)
    at = case.add(case.attachment(network=tiny))
    case.leave(at.sandbox)
    case.succeeded(collect(case, at, []))
    exchange = case.run("ADD", case.attachment(network=tiny), title="ADD of another container, to the pool of one")
    case.require(exchange.code == 0, f"the stale attachment still holds the only address: {told(exchange)}")


@row(
    "G1c",
    "SHOULD",
    "GC decides by container and interface",
    "SPEC section 2, GC: cni.dev/valid-attachments",
    since=_SINCE,
)
def by_interface(case: Case) -> None:
    case.needs_creator()
    if case.profile.kind == "chained":
        not_applicable("the interface that is to go belongs to another plugin")
    keep = case.add()
    second = case.attachment(keep.sandbox, ifname="net1")
    before = case.host()
    case.add(second)
    case.tool("ip", "-n", keep.sandbox.namespace, "link", "delete", "net1") if case.interface(second) else None
    case.succeeded(collect(case, second, [keep]))
    case.clean(before, "GC reported success for a container of whose two interfaces one is valid")


@row("G3a", "SHOULD", "An empty list means that all are stale", "SPEC section 2, GC", since=_SINCE)
def empty_list(case: Case) -> None:
    before, _, at = _stale(case)
    case.succeeded(collect(case, at, []))
    case.clean(before, "GC with an empty list reported success")


@row("G3b", "practice", "Without the list GC removes nothing", "no list is not an empty list", since=_SINCE)
def no_list(case: Case) -> str:
    at = case.add()
    before, inside = case.host(), case.inside(at.sandbox)
    exchange = collect(case, at, None)
    gone = case.missing(before) + lost(inside, case.inside(at.sandbox))
    case.require(not gone, f"a running container lost: {listed(gone)}")
    return "success" if exchange.code == 0 else told(exchange)


@row("G3c", "library", "Takes the list also under the older key alone", "libcni 1.2: cni.dev/attachments", since=_SINCE)
def older_key(case: Case) -> None:
    keep = case.add()
    at = case.attachment()
    before = case.host()
    collect(case, keep, [keep])
    if case.missing(before):
        not_applicable("a valid attachment does not survive a GC that has both keys (see G6a)")
    case.add(at)
    case.leave(at.sandbox)
    collect(case, at, [keep], keys=(_OLD,))
    gone = case.missing(before)
    case.require(not gone, f"a valid attachment lost: {listed(gone)}")
    case.clean(before, "GC was given cni.dev/attachments")


@row(
    "G5",
    "MUST",
    "GC is forwarded to the delegate with the same list",
    "SPEC section 2, GC",
    kinds=INTERFACE,
    since=_SINCE,
)
def forwards(case: Case) -> None:
    delegate = case.delegate()
    delegate.hand_out(2, case.version)
    keep = case.add()
    delegate.forget()
    case.succeeded(collect(case, keep, [keep]))
    calls = delegate.calls("GC")
    case.require(calls, "the delegate was not asked")
    given = json.loads(calls[0]["stdin"])
    wanted = [{"containerID": keep.sandbox.id, "ifname": keep.ifname}]
    case.require(given.get(_NEW) == wanted, f"the delegate was given {given.get(_NEW)}, not {wanted}")


@row("G5b", "SHOULD", "The error of the delegate's GC is returned", "SPEC section 4", kinds=INTERFACE, since=_SINCE)
def returns_error(case: Case) -> str:
    delegate = case.delegate()
    delegate.hand_out(2, case.version)
    keep = case.add()
    delegate.fail("GC", 107, "asked for by the conformance suite")
    exchange = collect(case, keep, [keep])
    case.refused(exchange, "the delegate's GC failed")
    return told(exchange)


@row("G6a", "MUST", "GC leaves valid attachments alone", "SPEC section 2, GC", since=_SINCE)
def leaves_valid(case: Case) -> None:
    keep = case.add()
    before, inside = case.host(), case.inside(keep.sandbox)
    at = case.add()
    case.leave(at.sandbox)
    collect(case, at, [keep])
    gone = case.missing(before) + lost(inside, case.inside(keep.sandbox))
    case.require(not gone, f"a valid attachment lost: {listed(gone)}")


@row("G6b", "MUST", "GC leaves other networks alone", "SPEC section 2, GC: attachments of this network", since=_SINCE)
def leaves_networks(case: Case) -> None:
    other = case.add(case.attachment(network=case.network("other")))
    sound = case.run("CHECK", other, title="CHECK of the container in the other network").code == 0
    before, inside = case.host(), case.inside(other.sandbox)
    at = case.add()
    collect(case, at, [])
    gone = case.missing(before) + lost(inside, case.inside(other.sandbox))
    case.require(not gone, f"a container of another network lost: {listed(gone)}")
    check = case.run("CHECK", other, title="CHECK of the container in the other network again")
    case.require(check.code == 0 or not sound, f"a container of another network is damaged: {told(check)}")


@row("G6c", "MUST", "GC leaves what others made alone", "SPEC section 2, GC", since=_SINCE)
def leaves_others(case: Case) -> None:
    at = case.add()
    case.tool("nft", "add", "table", "inet", "foreign")
    case.tool("nft", "add", "chain", "inet", "foreign", "rules")
    case.tool(
        "nft",
        "add",
        "rule",
        "inet",
        "foreign",
        "rules",
        "ip",
        "saddr",
        "192.0.2.1",
        "counter",
        "comment",
        '"CNI foreign"',
    )
    case.tool("ip", "link", "add", "veth0foreign", "type", "veth", "peer", "name", "veth1foreign")
    before = {line for line in case.host().lines() if "foreign" in line}
    collect(case, at, [])
    gone = before - case.host().lines()
    case.require(not gone, f"gone: {listed(sorted(gone))}")


@row("G7", "library", "A successful GC prints nothing on standard output", "GC has no result type", since=_SINCE)
def silent(case: Case) -> None:
    at = case.add()
    exchange = case.succeeded(collect(case, at, [at]))
    case.require(not exchange.stdout.strip(), f"found {exchange.stdout[:200]!r}")


@row(
    "G8",
    "SHOULD",
    "GC succeeds where there is nothing to do, again and again",
    "SPEC: generally complete without error",
    since=_SINCE,
)
def repeated(case: Case) -> None:
    at = case.attachment()
    for number in (1, 2):
        case.succeeded(collect(case, at, []), f"GC number {number}, of a network without attachments")
