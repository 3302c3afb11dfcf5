"""CHECK: quiet on what is as it was made, and an error where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.conform.case import listed, told
from podnet.conform.model import CHAINED, INTERFACE, IPAM, not_applicable
from podnet.conform.observe import added, ip_json, lost, run_tool
from podnet.conform.sections.delete import wipe_state
from podnet.conform.sections.table import Table

if TYPE_CHECKING:
    from podnet.conform.case import Case
    from podnet.conform.model import Kind
    from podnet.conform.subject import Attachment

__all__ = ["TABLE"]

TABLE = Table("CHECK")
row = TABLE.row

_LINKS: tuple[Kind, ...] = (*INTERFACE, *CHAINED)
_MISSING = "SPEC section 2, CHECK: error if an interface, address or route of prevResult is missing"
_UNTRACKED = "SPEC section 2, CHECK: error if other resources (rules, shaping, reservations) are missing"


def _checked(case: Case) -> Attachment:
    """An attachment whose CHECK passes; where it does not, that is K2a's finding and says nothing about damage."""
    case.needs("0.4.0", "CHECK")
    at = case.add()
    exchange = case.run("CHECK", at, title="CHECK, nothing damaged")
    if exchange.code != 0:
        not_applicable(f"CHECK fails already on what is as it was made (see K2a): {told(exchange)}")
    return at


def _notices(case: Case, at: Attachment, what: str) -> str:
    exchange = case.run("CHECK", at, title=f"CHECK, {what}")
    case.refused(exchange, f"CHECK after {what}")
    return told(exchange)


@row("K0", "library", "CHECK of a configuration before 0.4.0 fails with code 1", "skel: CHECK came with 0.4.0")
def too_old(case: Case) -> str:
    old = [version for version in case.subject.versions if version in {"0.3.0", "0.3.1"}]
    if not old:
        not_applicable("neither 0.3.0 nor 0.3.1 is announced")
    at = case.add(version=old[-1])
    exchange = case.run("CHECK", at, version=old[-1], title=f"CHECK, version {old[-1]}")
    case.refused(exchange, f"CHECK in version {old[-1]}", 1)
    return told(exchange)


@row(
    "K1",
    "library",
    "CHECK without prevResult fails",
    "SPEC: must consult the prevResult; reference plugins",
    kinds=_LINKS,
)
def needs_previous_result(case: Case) -> str:
    case.needs_creator()
    at = _checked(case)
    body = case.config(at, "CHECK")
    del body["prevResult"]
    exchange = case.run("CHECK", at, config=body, title="CHECK without prevResult")
    case.refused(exchange, "CHECK without prevResult")
    return told(exchange)


@row(
    "K2a",
    "MUST",
    "CHECK passes immediately after ADD",
    "SPEC section 2, CHECK: must handle being called immediately after an ADD",
    since="0.4.0",
    per_version=True,
)
def passes(case: Case) -> None:
    at = case.add()
    case.succeeded(case.run("CHECK", at))


@row("K2b", "SHOULD", "CHECK fails where the address is gone", _MISSING, kinds=INTERFACE)
def address_gone(case: Case) -> str:
    at = _checked(case)
    if not (at.result or {}).get("ips") or not case.profile.creates:
        not_applicable("the result has no addresses")
    case.tool("ip", "-n", at.sandbox.namespace, "-4", "addr", "flush", "dev", at.ifname)
    return _notices(case, at, "the address was deleted")


@row("K2c", "SHOULD", "CHECK fails where the interface is gone", _MISSING, kinds=INTERFACE)
def interface_gone(case: Case) -> str:
    case.needs_creator()
    at = _checked(case)
    case.tool("ip", "-n", at.sandbox.namespace, "link", "delete", at.ifname)
    return _notices(case, at, "the interface was deleted")


@row("K2d", "SHOULD", "CHECK fails where a route is gone", _MISSING, kinds=INTERFACE)
def route_gone(case: Case) -> str:
    at = _checked(case)
    dsts = [route["dst"] for route in (at.result or {}).get("routes") or []]
    if not dsts or not case.profile.creates:
        not_applicable("the result has no routes")
    case.tool("ip", "-n", at.sandbox.namespace, "route", "delete", dsts[0])
    return _notices(case, at, f"the route to {dsts[0]} was deleted")


@row(
    "K2e",
    "SHOULD",
    "CHECK fails where the interface is down",
    "SPEC: error if the container is unreachable",
    kinds=INTERFACE,
)
def interface_down(case: Case) -> str:
    at = _checked(case)
    namespace = at.sandbox.namespace
    routes = [line for line in run_tool(["ip", "-n", namespace, "route"]).stdout.splitlines() if line]
    case.tool("ip", "-n", namespace, "link", "set", at.ifname, "down")
    # The kernel removes the routes of a link that goes down; that alone would be noticed as K2d.
    still = run_tool(["ip", "-n", namespace, "route"]).stdout.splitlines()
    outcome = _notices(case, at, "the interface was set down")
    return f"{outcome} ({len(routes) - len(still)} routes went with it)"


@row("K2f", "practice", "CHECK fails where the hardware address is not that of prevResult", "", kinds=INTERFACE)
def mac_changed(case: Case) -> str:
    case.needs_creator()
    at = _checked(case)
    case.tool("ip", "-n", at.sandbox.namespace, "link", "set", at.ifname, "address", "02:00:00:00:be:ef")
    return _notices(case, at, "the hardware address was changed")


@row("K2g", "SHOULD", "CHECK fails where a host interface of prevResult is gone", _MISSING, kinds=INTERFACE)
def host_interface_gone(case: Case) -> str:
    at = _checked(case)
    hosts = [each["name"] for each in (at.result or {}).get("interfaces") or [] if not each.get("sandbox")]
    # Those whose other end is the container's go with it, which is K2c.
    kinds = {each["ifname"]: each.get("linkinfo", {}).get("info_kind") for each in ip_json("", "-d", "link")}
    apart = [name for name in hosts if kinds.get(name) not in {"veth", None}]
    if not apart:
        not_applicable("the result names no host interface but the container's own other end")
    case.tool("ip", "link", "delete", apart[0])
    return _notices(case, at, f"{apart[0]} was deleted")


@row("K3a", "SHOULD", "CHECK fails where the rules that ADD made are gone", _UNTRACKED)
def rules_gone(case: Case) -> str:
    case.needs("0.4.0", "CHECK")
    start, at = case.steady()
    case.add(at)
    made = added(start, case.host(), "firewall")
    if not made:
        not_applicable("ADD makes no firewall rules")
    if case.run("CHECK", at, title="CHECK, nothing damaged").code != 0:
        not_applicable("CHECK fails already on what is as it was made (see K2a)")
    case.tool("nft", "flush", "ruleset")
    for saver, tool in (("iptables-legacy-save", "iptables-legacy"), ("ip6tables-legacy-save", "ip6tables-legacy")):
        tables = [line[1:] for line in _output(saver) if line.startswith("*")]
        for table in tables:
            run_tool([tool, "-t", table, "-F"])
    return _notices(case, at, "all firewall rules were deleted")


def _output(tool: str) -> list[str]:
    try:
        return run_tool([tool]).stdout.splitlines()
    except FileNotFoundError:
        return []


@row("K3b", "SHOULD", "CHECK fails where the shaping that ADD made is gone", _UNTRACKED, kinds=_LINKS)
def shaping_gone(case: Case) -> str:
    case.needs("0.4.0", "CHECK")
    at = case.attachment()
    start = case.host()
    case.add(at)
    made = sorted(case.host().lines("shaping") - start.lines("shaping"))
    if not made:
        not_applicable("ADD shapes no traffic on the host")
    if case.run("CHECK", at, title="CHECK, nothing damaged").code != 0:
        not_applicable("CHECK fails already on what is as it was made (see K2a)")
    for line in made:
        device, kind = line.split()[:2]
        run_tool(["tc", "qdisc", "del", "dev", device, "ingress" if kind == "ingress" else "root"])
    return _notices(case, at, f"queueing was deleted ({listed(made)})")


@row("K3c", "SHOULD", "CHECK fails where the reservation of the address is gone", _UNTRACKED, kinds=(*INTERFACE, *IPAM))
def reservation_gone(case: Case) -> str:
    case.needs_own_addresses()
    at = _checked(case)
    gone = wipe_state(case)
    if not [path for path in gone if "/data/" in path]:
        not_applicable("the plugin keeps no reservations as files below {{dataDir}}")
    return _notices(case, at, "the reservation was deleted")


@row("K3d", "SHOULD", "CHECK fails where what ADD changed in the container was undone", _UNTRACKED, kinds=CHAINED)
def change_undone(case: Case) -> str:
    case.needs("0.4.0", "CHECK")
    at = case.attachment()
    namespace = at.sandbox.namespace
    before = {each["ifname"]: each for each in ip_json(namespace, "link")}[at.ifname]
    case.add(at)
    after = {each["ifname"]: each for each in ip_json(namespace, "link")}[at.ifname]
    changed = [key for key in ("mtu", "address", "txqlen") if before[key] != after[key]]
    if not changed:
        not_applicable("ADD changes no mtu, address or queue length of the interface")
    if case.run("CHECK", at, title="CHECK, nothing damaged").code != 0:
        not_applicable("CHECK fails already on what is as it was made (see K2a)")
    key = changed[0]
    case.tool("ip", "-n", namespace, "link", "set", at.ifname, key, str(before[key]))
    return _notices(case, at, f"{key} was set back to {before[key]}")


@row(
    "K4",
    "SHOULD",
    "CHECK fails where the host's end is cut off its bridge",
    "SPEC: error if unreachable",
    kinds=INTERFACE,
)
def cut_off(case: Case) -> str:
    at = _checked(case)
    names = {each["name"] for each in (at.result or {}).get("interfaces") or [] if not each.get("sandbox")}
    ports = [each["ifname"] for each in ip_json("", "link") if each.get("master") and each["ifname"] in names]
    if not ports:
        not_applicable("the result names no host interface that is a bridge's port")
    case.tool("ip", "link", "set", ports[0], "nomaster")
    return _notices(case, at, f"{ports[0]} was taken off its bridge")


@row(
    "K5",
    "MUST",
    "CHECK tolerates what a later plugin added",
    "SPEC section 2, CHECK: must allow for a later chained plugin to have modified resources",
    kinds=_LINKS,
)
def tolerates_more(case: Case) -> None:
    at = _checked(case)
    namespace = at.sandbox.namespace
    case.tool("ip", "-n", namespace, "addr", "add", "192.0.2.9/24", "dev", at.ifname)
    case.tool("ip", "-n", namespace, "route", "add", "198.51.100.0/24", "dev", at.ifname)
    case.succeeded(case.run("CHECK", at, title="CHECK, an address and a route more"))


@row("K8a", "MUST", "CHECK changes nothing", "SPEC section 2, CHECK: a way to probe the status")
def changes_nothing(case: Case) -> None:
    at = _checked(case)
    before, inside = case.host(), case.inside(at.sandbox)
    case.run("CHECK", at)
    after = case.inside(at.sandbox)
    changed = added(before, case.host()) + case.missing(before) + added(inside, after) + lost(inside, after)
    case.require(not changed, f"changed by CHECK: {listed(changed)}")


@row("K8b", "MUST", "CHECK does not repair", "SPEC section 2, CHECK: a way to probe the status", kinds=INTERFACE)
def does_not_repair(case: Case) -> None:
    at = _checked(case)
    if not (at.result or {}).get("ips") or not case.profile.creates:
        not_applicable("the result has no addresses")
    case.tool("ip", "-n", at.sandbox.namespace, "-4", "addr", "flush", "dev", at.ifname)
    damaged = case.inside(at.sandbox)
    case.run("CHECK", at, title="CHECK, the address was deleted")
    case.require(case.inside(at.sandbox) == damaged, "CHECK put back the address that was deleted")


@row(
    "K8c",
    "library",
    "A successful CHECK prints nothing on standard output",
    "libcni ignores it; CHECK has no result type",
)
def silent(case: Case) -> None:
    at = _checked(case)
    exchange = case.run("CHECK", at)
    case.require(not exchange.stdout.strip(), f"found {exchange.stdout[:200]!r}")


@row("K9", "SHOULD", "CHECK after DEL fails", _MISSING)
def after_delete(case: Case) -> str:
    case.needs_creator()
    at = _checked(case)
    if case.profile.kind == "chained":
        not_applicable("the interface belongs to another plugin; see K3a to K3d")
    exchange = case.run("DEL", at)
    case.succeeded(exchange)
    return _notices(case, at, "DEL")
