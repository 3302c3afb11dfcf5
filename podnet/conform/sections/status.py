"""STATUS: whether ADD can be served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.conform.case import told
from podnet.conform.model import INTERFACE, IPAM, not_applicable
from podnet.conform.results import version_tuple
from podnet.conform.sections.table import Table

if TYPE_CHECKING:
    from podnet.conform.case import Case
    from podnet.conform.model import Kind

__all__ = ["TABLE"]

TABLE = Table("STATUS")
row = TABLE.row

_ADDRESSING: tuple[Kind, ...] = (*INTERFACE, *IPAM)
_SINCE = "1.1.0"


@row("S0", "library", "STATUS of a configuration before 1.1.0 fails", "skel: STATUS came with 1.1.0, code 1")
def too_old(case: Case) -> str:
    case.needs(_SINCE, "STATUS")
    old = [version for version in case.subject.versions if version_tuple(version) < (1, 1, 0)]
    if not old:
        not_applicable("no version before 1.1.0 is announced")
    exchange = case.run("STATUS", version=old[-1], title=f"STATUS, version {old[-1]}")
    case.refused(exchange, f"STATUS in version {old[-1]}", 1)
    return told(exchange)


@row("S1", "MUST", "STATUS succeeds where ADD can be served", "SPEC section 2, STATUS", since=_SINCE)
def ready(case: Case) -> None:
    case.succeeded(case.run("STATUS"))


@row(
    "S1b", "library", "A successful STATUS prints nothing on standard output", "STATUS has no result type", since=_SINCE
)
def silent(case: Case) -> None:
    exchange = case.run("STATUS")
    case.require(not exchange.stdout.strip(), f"found {exchange.stdout[:200]!r}")


@row("S1c", "MUST", "STATUS changes nothing", "SPEC section 2, STATUS: purely informational", since=_SINCE)
def changes_nothing(case: Case) -> None:
    case.add()
    before = case.host()
    case.run("STATUS")
    changed = case.residue_now(before) + case.missing(before)
    case.require(not changed, f"changed by STATUS: {changed}")


@row(
    "S2",
    "SHOULD",
    "STATUS fails with code 50 or 51 where no address is left",
    "SPEC section 2, STATUS: if those resources are exhausted",
    kinds=_ADDRESSING,
    since=_SINCE,
)
def exhausted(case: Case) -> str:
    case.needs_own_addresses()
    case.needs_pool()
    tiny = case.network("tiny", prefix=30)
    case.add(case.attachment(network=tiny))
    at = case.attachment(network=tiny)
    if case.run("ADD", at, title="ADD, no address left").code == 0:
        not_applicable("the pool of one still serves ADD")
    exchange = case.run("STATUS", config=case.config(at, "STATUS"), title="STATUS, no address left")
    case.refused(exchange, "STATUS where ADD fails for lack of an address", 50, 51)
    return told(exchange)


@row("S3a", "MUST", "STATUS asks the delegate", "SPEC section 2, STATUS", kinds=INTERFACE, since=_SINCE)
def asks_delegate(case: Case) -> None:
    delegate = case.delegate()
    case.run("STATUS")
    case.require(delegate.calls("STATUS"), "the delegate was not asked")


@row(
    "S3b", "SHOULD", "STATUS returns the error of the delegate", "SPEC section 2, STATUS", kinds=INTERFACE, since=_SINCE
)
def returns_error(case: Case) -> str:
    delegate = case.delegate()
    delegate.fail("STATUS", 50, "asked for by the conformance suite")
    exchange = case.run("STATUS", title="STATUS, the delegate answers 50")
    case.refused(exchange, "STATUS where the delegate's fails")
    return told(exchange)


@row(
    "S4",
    "MUST",
    "ADD and DEL work also after a failed STATUS",
    "SPEC section 2, STATUS: expect other operations",
    kinds=INTERFACE,
    since=_SINCE,
)
def works_after(case: Case) -> None:
    delegate = case.delegate()
    delegate.fail("STATUS", 50, "asked for by the conformance suite")
    delegate.hand_out(2, case.version)
    case.run("STATUS", title="STATUS, the delegate answers 50")
    at = case.attachment()
    exchange = case.succeeded(case.run("ADD", at))
    at.result = case.result_of(exchange)
    case.succeeded(case.run("DEL", at))
