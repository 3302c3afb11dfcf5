"""Chaining and delegation: what a plugin gets from others and hands to others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from podnet.conform.case import listed, told
from podnet.conform.model import CHAINED, INTERFACE, not_applicable
from podnet.conform.observe import added
from podnet.conform.sections.table import Table

if TYPE_CHECKING:
    from podnet.conform.case import Case, Delegate
    from podnet.conform.model import Exchange
    from podnet.conform.subject import Attachment

__all__ = ["TABLE"]

TABLE = Table("Chaining and delegation")
row = TABLE.row

_SECTION_4 = "SPEC section 4, Delegated plugin execution procedure"
_DELEGATED = "SPEC section 4: must also execute any delegated plugins"


@row("H2a", "library", "ADD without prevResult fails", "every chained reference plugin", kinds=CHAINED)
def needs_previous_result(case: Case) -> str:
    at = case.attachment()
    body = case.config(at, "ADD")
    del body["prevResult"]
    exchange = case.run("ADD", at, config=body, title="ADD without prevResult")
    case.refused(exchange, "ADD of a chained plugin without prevResult")
    return told(exchange)


@row(
    "H2b", "MUST", "A prevResult without what the plugin changes comes back equivalent", "SPEC section 5", kinds=CHAINED
)
def equivalent(case: Case) -> None:
    at = case.attachment()
    before = case.inside(at.sandbox)
    case.add(at)
    if added(before, case.inside(at.sandbox)):
        not_applicable("ADD changes the container's interface (see A4)")
    result, given = at.result or {}, at.before or {}
    for key in ("ips", "routes"):
        expected = [{k: v for k, v in each.items() if k != "version"} for each in given[key]]
        found = [{k: v for k, v in each.items() if k != "version"} for each in result.get(key) or []]
        case.require(found == expected, f"{key} was {expected}, is {found}")
    names = [each.get("name") for each in result.get("interfaces") or []]
    expected_names = [each["name"] for each in given["interfaces"]]
    case.require(names[: len(expected_names)] == expected_names, f"interfaces were {expected_names}, are {names}")


def _added(case: Case) -> tuple[Delegate, Attachment]:
    delegate = case.delegate()
    delegate.hand_out(2, case.version)
    return delegate, case.add()


@row("H4", "MUST", "ADD fails where the delegate is not in CNI_PATH", _SECTION_4, kinds=INTERFACE)
def delegate_missing(case: Case) -> str:
    delegate, _ = _added(case)
    at = case.attachment()
    delegate.remove()
    exchange = case.run("ADD", at, title="ADD, the delegate is not in CNI_PATH")
    case.refused(exchange, "the delegate is not in CNI_PATH")
    return told(exchange)


@row("H4c", "practice", "ADD whose delegate is not in CNI_PATH leaves nothing behind", "", kinds=INTERFACE)
def delegate_missing_residue(case: Case) -> None:
    delegate, _ = _added(case)
    at = case.attachment()
    delegate.remove()
    before, inside = case.host(), case.inside(at.sandbox)
    exchange = case.run("ADD", at, title="ADD, the delegate is not in CNI_PATH")
    case.failed(exchange, "H4")
    left = case.residue(before) + [f"in the container: {line}" for line in added(inside, case.inside(at.sandbox))]
    case.require(not left, f"ADD failed, and this is left: {listed(left)}")


@row(
    "H4b",
    "SHOULD",
    "Looks for the delegate in each directory of CNI_PATH, also after one that is not there",
    _SECTION_4,
    kinds=INTERFACE,
)
def path_order(case: Case) -> None:
    delegate = case.delegate()
    delegate.hand_out(2, case.version)
    case.cni_path[:0] = ["/run/conform/not-there", ""]
    case.succeeded(case.run("ADD", case.attachment(), title="ADD, CNI_PATH begins with a directory that is not there"))
    case.require(delegate.calls("ADD"), "the delegate was not run")


@row(
    "H5a",
    "MUST",
    "The delegate gets the same CNI variables",
    "SPEC section 4, Delegated Plugin protocol",
    kinds=INTERFACE,
)
def same_environment(case: Case) -> None:
    delegate = case.delegate()
    delegate.hand_out(2, case.version)
    at = case.attachment()
    extra: dict[str, str | None] = {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web", "CONFORM_EXTRA": "yes"}
    case.succeeded(case.run("ADD", at, env=extra))
    calls = delegate.calls("ADD")
    case.require(calls, "the delegate was not run")
    expected = {**case.environment("ADD", at), **extra}
    found = {key: calls[0]["env"].get(key) for key in expected}
    wrong = [key for key, value in expected.items() if found[key] != value]
    case.require(not wrong, "; ".join(f"{key} is {found[key]!r}, not {expected[key]!r}" for key in wrong))


@row(
    "H5b",
    "MUST",
    "The delegate gets the complete configuration",
    "SPEC section 4, Delegated Plugin protocol",
    kinds=INTERFACE,
)
def complete_configuration(case: Case) -> None:
    delegate = case.delegate()
    delegate.hand_out(2, case.version)
    at = case.attachment()
    body = {**case.config(at, "ADD"), "args": {"cni": {"labels": [{"key": "a", "value": "b"}]}}}
    case.succeeded(case.run("ADD", at, config=body))
    calls = delegate.calls("ADD")
    case.require(calls, "the delegate was not run")
    found = json.loads(calls[0]["stdin"])
    wrong = sorted(key for key in body if found.get(key) != body[key])
    case.require(not wrong, f"lost or changed on the way to the delegate: {', '.join(wrong)}")


@row("H6a", "MUST", "DEL runs the delegate's DEL", _DELEGATED, kinds=INTERFACE)
def delegates_delete(case: Case) -> None:
    delegate, at = _added(case)
    case.succeeded(case.run("DEL", at))
    case.require(delegate.calls("DEL"), "the delegate's DEL was not run")


@row("H6b", "MUST", "DEL runs the delegate's DEL also with an empty CNI_NETNS", _DELEGATED, kinds=INTERFACE)
def delegates_delete_without_netns(case: Case) -> None:
    delegate, at = _added(case)
    case.leave(at.sandbox)
    case.succeeded(case.run("DEL", at, env={"CNI_NETNS": ""}))
    case.require(delegate.calls("DEL"), "the delegate's DEL was not run")


@row(
    "H6c", "SHOULD", "CHECK runs the delegate's CHECK, and returns its error", "SPEC section 2, CHECK", kinds=INTERFACE
)
def delegates_check(case: Case) -> str:
    case.needs("0.4.0", "CHECK")
    delegate, at = _added(case)
    delegate.fail("CHECK", 107, "asked for by the conformance suite")
    exchange = case.run("CHECK", at, title="CHECK, the delegate answers 107")
    case.require(delegate.calls("CHECK"), "the delegate's CHECK was not run")
    case.refused(exchange, "the delegate's CHECK failed")
    return told(exchange)


@row("H7", "MUST", "The error of the delegate's ADD is an error of ADD", _SECTION_4, kinds=INTERFACE)
def returns_add_error(case: Case) -> str:
    _, exchange = _delegate_fails(case)
    case.refused(exchange, "the delegate's ADD failed")
    return told(exchange)


@row("A7", "SHOULD", "After the delegate's failed ADD its DEL is run", "SPEC section 4", kinds=INTERFACE)
def delete_after_failed_add(case: Case) -> None:
    delegate, exchange = _delegate_fails(case)
    case.failed(exchange, "H7")
    verbs = [call["verb"] for call in delegate.calls()]
    case.require("DEL" in verbs, f"the delegate was asked {', '.join(verbs)}")


@row("A8", "practice", "ADD whose delegate failed leaves nothing behind", "", kinds=INTERFACE)
def delegate_failed_residue(case: Case) -> None:
    delegate, _ = _added(case)
    delegate.fail("ADD", 107, "asked for by the conformance suite")
    at = case.attachment()
    before, inside = case.host(), case.inside(at.sandbox)
    case.failed(case.run("ADD", at, title="ADD, the delegate answers 107"), "H7")
    left = case.residue(before) + [f"in the container: {line}" for line in added(inside, case.inside(at.sandbox))]
    case.require(not left, f"ADD failed, and this is left: {listed(left)}")


@row("A8b", "practice", "ADD whose delegate gives no address fails and leaves nothing behind", "", kinds=INTERFACE)
def no_address_residue(case: Case) -> str:
    delegate, _ = _added(case)
    delegate.answer("ADD", stdout=json.dumps({"cniVersion": case.version, "dns": {}}))
    at = case.attachment()
    before, inside = case.host(), case.inside(at.sandbox)
    delegate.forget()
    exchange = case.run("ADD", at, title="ADD, the delegate gives no address")
    if exchange.code == 0:
        not_applicable("the plugin accepts that its IPAM gives no address")
    left = case.residue(before) + [f"in the container: {line}" for line in added(inside, case.inside(at.sandbox))]
    case.require(not left, f"ADD failed, and this is left: {listed(left)}")
    case.require(delegate.calls("DEL"), "ADD failed after the delegate's ADD, and the delegate's DEL was not run")
    return told(exchange)


@row(
    "E2",
    "library",
    "The code of the delegate's error arrives unchanged",
    "skel; 11 means: try again later",
    kinds=INTERFACE,
)
def passes_code(case: Case) -> None:
    delegate = case.delegate()
    delegate.fail("ADD", 11, "asked for by the conformance suite")
    exchange = case.run("ADD", case.attachment(), title="ADD, the delegate answers 11")
    case.refused(exchange, "the delegate answers 11", 11)


def _delegate_fails(case: Case) -> tuple[Delegate, Exchange]:
    delegate = case.delegate()
    delegate.fail("ADD", 107, "asked for by the conformance suite")
    return delegate, case.run("ADD", case.attachment(), title="ADD, the delegate answers 107")


@row("D5a", "SHOULD", "The error of the delegate's DEL is returned", "SPEC section 4", kinds=INTERFACE)
def returns_delete_error(case: Case) -> str:
    delegate, at = _added(case)
    delegate.fail("DEL", 107, "asked for by the conformance suite")
    exchange = case.run("DEL", at, title="DEL, the delegate answers 107")
    case.refused(exchange, "the delegate's DEL failed")
    return told(exchange)


@row("D5b", "practice", "Where the delegate's DEL fails, the rest is cleaned all the same", "", kinds=INTERFACE)
def delete_error_cleans(case: Case) -> None:
    case.needs_creator()
    delegate, _ = _added(case)
    delegate.hand_out(3, case.version)
    at = case.attachment()
    before = case.host()
    case.add(at)
    delegate.fail("DEL", 107, "asked for by the conformance suite")
    case.run("DEL", at, title="DEL, the delegate answers 107")
    left = case.residue(before)
    case.require(not left, f"the delegate's DEL failed, and this is left: {listed(left)}")
    case.require(not case.interface(at), f"the delegate's DEL failed, and {at.ifname} is still there")


@row("H6d", "SHOULD", "The delegate's messages on standard error are passed on", _SECTION_4, kinds=INTERFACE)
def passes_stderr(case: Case) -> None:
    delegate = case.delegate()
    delegate.hand_out(2, case.version)
    delegate.answer("DEL", stderr="a message of the delegate\n")
    at = case.add()
    exchange = case.run("DEL", at)
    case.require("a message of the delegate" in exchange.stderr, f"standard error holds {exchange.stderr[:200]!r}")
