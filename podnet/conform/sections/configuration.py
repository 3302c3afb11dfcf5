"""The network configuration: versions, names, what cannot be decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.conform.case import told
from podnet.conform.model import KNOWN_VERSIONS, not_applicable
from podnet.conform.results import version_tuple
from podnet.conform.sections.table import Table

if TYPE_CHECKING:
    from podnet.conform.case import Case

__all__ = ["TABLE"]

TABLE = Table("Network configuration")
row = TABLE.row


@row("C1a", "MUST", "An unsupported cniVersion fails with code 1", "SPEC section 5, error code 1")
def unsupported_version(case: Case) -> str:
    at = case.attachment()
    exchange = case.run("ADD", at, config={**case.config(at, "ADD"), "cniVersion": "9.9.9"}, title="ADD, version 9.9.9")
    case.refused(exchange, "cniVersion 9.9.9", 1)
    return told(exchange)


@row("C1b", "MUST", "Refuses each published cniVersion that VERSION does not announce", "SPEC section 2, VERSION")
def unannounced_version(case: Case) -> str:
    others = [version for version in KNOWN_VERSIONS if version not in case.subject.versions]
    if not others:
        not_applicable("all published versions are announced")
    for version in others:
        at = case.attachment()
        exchange = case.run("ADD", at, version=version, title=f"ADD, version {version}")
        case.refused(exchange, f"cniVersion {version}, which is not announced")
    return ", ".join(others)


@row("C1c", "library", "A missing cniVersion means 0.1.0", "libcni and skel")
def missing_version(case: Case) -> str:
    at = case.attachment()
    body = case.config(at, "ADD", "0.1.0")
    del body["cniVersion"]
    exchange = case.run("ADD", at, config=body, title="ADD without cniVersion")
    if "0.1.0" not in case.subject.versions:
        case.refused(exchange, "no cniVersion, and 0.1.0 is not announced", 1)
        return told(exchange)
    result = case.result_of(case.succeeded(exchange))
    case.require(
        result.get("cniVersion", "0.1.0") in {"0.1.0", "0.2.0"}, f"found cniVersion {result.get('cniVersion')}"
    )
    return f"cniVersion {result.get('cniVersion')}"


@row("C1d", "library", "A cniVersion that is no version is an error", "skel")
def broken_version(case: Case) -> str:
    at = case.attachment()
    exchange = case.run("ADD", at, config={**case.config(at, "ADD"), "cniVersion": "one.two"}, title="ADD, no version")
    case.refused(exchange, "cniVersion 'one.two'", 1, 6)
    return told(exchange)


@row("C2a", "MUST", "A missing name is an invalid configuration (code 7)", "SPEC section 1, name; error code 7")
def missing_name(case: Case) -> None:
    at = case.attachment()
    body = case.config(at, "ADD")
    del body["name"]
    case.refused(case.run("ADD", at, config=body, title="ADD without name"), "no name", 7)


@row("C2b", "MUST", "A name with disallowed characters is an invalid configuration (code 7)", "SPEC section 1, name")
def invalid_name(case: Case) -> None:
    at = case.attachment()
    for bad in ("../escape", "-leading", "white space"):
        exchange = case.run("ADD", at, config={**case.config(at, "ADD"), "name": bad}, title=f"ADD, name {bad!r}")
        case.refused(exchange, f"the name {bad!r}", 7)


@row("C3", "MUST", "A configuration that is no JSON fails with code 6", "SPEC section 5, error code 6")
def no_json(case: Case) -> None:
    for verb in ("ADD", "DEL"):
        exchange = case.run(verb, case.attachment(), stdin=b'{"cniVersion": ', title=f"{verb}, half a configuration")
        case.refused(exchange, f"{verb} with half a configuration", 6)


@row(
    "C4",
    "MUST",
    "Handles ADD and DEL in each announced version",
    "SPEC section 2, VERSION: a list of supported specification versions",
    per_version=True,
)
def announced_version(case: Case) -> None:
    at = case.attachment()
    exchange = case.succeeded(case.run("ADD", at))
    at.result = case.result_of(exchange)
    case.succeeded(case.run("DEL", at))


@row(
    "C6",
    "MUST",
    "Does not assume a capability: ADD without runtimeConfig works",
    "SPEC section 3, Deriving runtimeConfig",
)
def no_runtime_config(case: Case) -> None:
    at = case.attachment()
    if not at.runtime_config:
        not_applicable("the configuration uses no runtimeConfig")
    at.runtime_config = {}
    exchange = case.succeeded(case.run("ADD", at, title="ADD without runtimeConfig"))
    at.result = case.result_of(exchange)
    case.succeeded(case.run("DEL", at, title="DEL without runtimeConfig"))


@row(
    "C7",
    "library",
    "DEL accepts a configuration in an older announced version than ADD had",
    "runtimes that are updated while containers run; no prevResult before 0.4.0",
)
def older_delete(case: Case) -> str:
    oldest = case.subject.versions[0]
    if case.profile.kind == "chained" and version_tuple(oldest) < (0, 3, 0):
        oldest = "0.3.1"
    if oldest == case.version:
        not_applicable("only one version is announced")
    before, at = case.controlled()
    case.add(at)
    case.succeeded(case.run("DEL", at, version=oldest, title=f"DEL, version {oldest}"))
    case.clean(before, f"DEL in version {oldest} reported success")
    return f"ADD {case.version}, DEL {oldest}"
