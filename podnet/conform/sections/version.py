"""VERSION: what a plugin says about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.conform.model import KNOWN_VERSIONS
from podnet.conform.sections.table import Table

if TYPE_CHECKING:
    from typing import Any

    from podnet.conform.case import Case

__all__ = ["TABLE"]

TABLE = Table("VERSION")
row = TABLE.row


def _answer(case: Case, asked: str) -> dict[str, Any]:
    exchange = case.run("VERSION", config={"cniVersion": asked}, title=f"VERSION, asked in {asked}")
    return case.result_of(case.succeeded(exchange))


@row("V1a", "MUST", "VERSION lists supportedVersions", "SPEC section 5, VERSION Success")
def lists_versions(case: Case) -> str:
    found = _answer(case, case.version).get("supportedVersions")
    fine = isinstance(found, list) and found and all(isinstance(each, str) for each in found)
    case.require(fine, f"supportedVersions is {found!r}")
    known = [each for each in found or [] if each in KNOWN_VERSIONS]
    case.require(known, f"none of {found} was ever published")
    return ", ".join(found or [])


@row("V1b", "MUST", "VERSION returns the cniVersion of the request", "SPEC section 5, VERSION Success")
def echoes(case: Case) -> None:
    for asked in case.subject.versions:
        found = _answer(case, asked).get("cniVersion")
        case.require(found == asked, f"asked in {asked}, answered in {found!r}")


@row("V2a", "library", "VERSION needs nothing but CNI_COMMAND", "skel; runtimes ask before they have a configuration")
def needs_nothing(case: Case) -> None:
    exchange = case.succeeded(case.run("VERSION", title="VERSION, no configuration"))
    found = case.result_of(exchange)
    case.require(isinstance(found.get("cniVersion"), str), f"no cniVersion in {found}")
    case.require(found.get("supportedVersions"), f"no supportedVersions in {found}")


@row("V2b", "MUST", "VERSION changes nothing", "SPEC section 2, VERSION: probe plugin version support")
def changes_nothing(case: Case) -> None:
    before = case.host()
    _answer(case, case.version)
    after = case.host()
    case.require(after == before, f"changed: {sorted(after.lines() ^ before.lines())}")
