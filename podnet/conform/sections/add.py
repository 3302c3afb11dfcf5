"""ADD: what it makes, what its result says, and what is left when it fails."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from podnet.conform import results
from podnet.conform.case import listed, told
from podnet.conform.model import CHAINED, INTERFACE, IPAM, NotMeasuredError, not_applicable, violated
from podnet.conform.observe import added, ip_json
from podnet.conform.sections.table import Table

if TYPE_CHECKING:
    from podnet.conform.case import Case
    from podnet.conform.model import Exchange, Kind
    from podnet.conform.observe import Snapshot
    from podnet.conform.subject import Attachment

__all__ = ["TABLE"]

TABLE = Table("ADD")
row = TABLE.row

_ADDRESSING: tuple[Kind, ...] = (*INTERFACE, *IPAM)


@row("A1a", "MUST", "ADD succeeds with a valid configuration", "SPEC section 2, ADD")
def succeeds(case: Case) -> str:
    exchange = case.succeeded(case.run("ADD", case.attachment()))
    return f"{exchange.seconds * 1000:.0f} ms"


@row("A1b", "SHOULD", "CNI_IFNAME is in CNI_NETNS after ADD", "SPEC section 2, ADD", kinds=INTERFACE)
def makes_interface(case: Case) -> None:
    at = case.add()
    case.require(case.interface(at), f"no interface {at.ifname} in the container's namespace")


@row("A1c", "MUST", "The interface holds the addresses of the result", "SPEC section 5, ips", kinds=INTERFACE)
def holds_addresses(case: Case) -> str:
    at = case.add()
    told_of = results.addresses(at.result or {})
    if not told_of:
        not_applicable("the result has no addresses")
    held = _held(case, at)
    wrong = [address for address in told_of if address not in held]
    case.require(not wrong, f"the result says {', '.join(wrong)}; {at.ifname} holds {', '.join(held) or 'none'}")
    return ", ".join(told_of)


def _held(case: Case, at: Attachment) -> list[str]:
    interface = case.interface(at) or {}
    return [f"{each['local']}/{each['prefixlen']}" for each in interface.get("addr_info", []) if "local" in each]


@row("A1d", "practice", "The interface is up after ADD", "every runtime expects it", kinds=INTERFACE)
def is_up(case: Case) -> None:
    at = case.add()
    interface = case.interface(at)
    case.require(interface and "UP" in interface["flags"], f"{at.ifname} is {'down' if interface else 'not there'}")


@row("A2a", "MUST", "ADD fails where CNI_IFNAME exists", "SPEC section 2, ADD", kinds=INTERFACE)
def name_taken(case: Case) -> str:
    at, _ = _occupied(case)
    exchange = case.run("ADD", at)
    case.refused(exchange, f"an interface {at.ifname} was there before")
    return told(exchange)


@row("A2b", "MUST", "The interface that was there is left as it was", "SPEC section 2, ADD", kinds=INTERFACE)
def name_taken_untouched(case: Case) -> None:
    at, before = _occupied(case)
    case.run("ADD", at)
    after = case.inside(at.sandbox)
    changed = sorted(after.lines() ^ before.lines())
    case.require(not changed, f"the container's namespace changed: {listed(changed)}")


@row("A2c", "practice", "ADD where CNI_IFNAME exists leaves nothing behind", "hosts fill up otherwise", kinds=INTERFACE)
def name_taken_residue(case: Case) -> None:
    case.add()
    at, _ = _occupied(case)
    before = case.host()
    case.failed(case.run("ADD", at), "A2a")
    case.clean(before, "ADD failed")


def _occupied(case: Case) -> tuple[Attachment, Snapshot]:
    case.needs_creator()
    at = case.attachment()
    namespace = at.sandbox.namespace
    case.tool("ip", "-n", namespace, "link", "add", at.ifname, "type", "veth", "peer", "name", "taken")
    case.tool("ip", "-n", namespace, "addr", "add", "192.0.2.1/24", "dev", at.ifname)
    return at, case.inside(at.sandbox)


@row("A3", "MUST", "The result has the shape and the cniVersion of the request", "SPEC section 5", per_version=True)
def shape(case: Case) -> None:
    at = case.attachment()
    result = case.result_of(case.succeeded(case.run("ADD", at)))
    found = results.problems(result, case.version, ipam=case.profile.kind == "ipam")
    if result.get("cniVersion") != case.version:
        found.insert(0, f"cniVersion is {result.get('cniVersion')!r}, the request's is {case.version!r}")
    case.require(not found, "; ".join(found))


@row(
    "A4", "MUST", "prevResult is in the result", "SPEC section 5: must output it, with any modifications", kinds=CHAINED
)
def passes_on(case: Case) -> None:
    at = case.add()
    before = at.before or {}
    after = at.result or {}
    for key, name in (("interfaces", "name"), ("ips", "address"), ("routes", "dst")):
        old, new = [each[name] for each in before[key]], [each.get(name) for each in after.get(key) or []]
        missing = [each for each in old if each not in new]
        case.require(not missing, f"{key} {', '.join(missing)} of prevResult are not in the result")
    links = {each["ifname"]: each["address"] for each in ip_json(at.sandbox.namespace, "link")}
    mac = next(each["mac"] for each in before["interfaces"] if each["name"] == at.ifname)
    told_mac = next(each.get("mac") for each in after["interfaces"] if each["name"] == at.ifname)
    case.require(told_mac in {mac, links[at.ifname]}, f"the result's mac of {at.ifname} is {told_mac}, it was {mac}")


@row(
    "A5a",
    "MUST",
    "interfaces[] holds CNI_IFNAME with sandbox exactly as CNI_NETNS",
    "SPEC section 5, interfaces",
    kinds=INTERFACE,
    since="0.3.0",
    per_version=True,
)
def container_interface(case: Case) -> None:
    at = case.attachment()
    netns = at.sandbox.path.replace("/run/", "/var/run/", 1)  # as many runtimes write it
    result = case.result_of(case.succeeded(case.run("ADD", at, env={"CNI_NETNS": netns})))
    own = [each for each in result.get("interfaces") or [] if each.get("name") == at.ifname and each.get("sandbox")]
    case.require(own, f"no interface {at.ifname} with a sandbox in {result.get('interfaces')}")
    found = [each["sandbox"] for each in own]
    case.require(netns in found, f"sandbox is {found}, CNI_NETNS was {netns!r}")


@row(
    "A5b",
    "MUST",
    "The mac of each interface is the kernel's",
    "SPEC section 5, interfaces",
    kinds=INTERFACE,
    since="0.3.0",
)
def true_mac(case: Case) -> str:
    at = case.add()
    return _compare(case, at, "mac", "address")


@row(
    "A5c",
    "MUST",
    "The mtu of each interface, where given, is the kernel's",
    "SPEC section 5",
    kinds=INTERFACE,
    since="1.1.0",
)
def true_mtu(case: Case) -> str:
    case.needs("1.1.0", "interfaces[].mtu")
    at = case.add()
    return _compare(case, at, "mtu", "mtu")


def _compare(case: Case, at: Attachment, key: str, kernel_key: str) -> str:
    inside = {each["ifname"]: each for each in ip_json(at.sandbox.namespace, "link")}
    host = {each["ifname"]: each for each in ip_json("", "link")}
    seen = []
    for each in (at.result or {}).get("interfaces") or []:
        if not each.get(key):
            continue
        links = inside if each.get("sandbox") else host
        case.require(each["name"] in links, f"the result's interface {each['name']} is not there")
        real = links[each["name"]][kernel_key]
        case.require(
            str(each[key]).lower() == str(real).lower(),
            f"{key} of {each['name']} is {real}, the result says {each[key]}",
        )
        seen.append(f"{each['name']} {real}")
    if not seen:
        not_applicable(f"the result gives no {key}")
    return ", ".join(seen)


@row("A5d", "MUST", "interfaces[] lists each host interface that ADD made", "SPEC section 5: any host-level interfaces")
def host_interfaces(case: Case) -> str:
    case.needs("0.3.0", "interfaces[]")
    if case.profile.kind == "ipam":
        not_applicable("an IPAM plugin makes no interfaces")
    at = case.attachment()
    before = {each["ifname"] for each in ip_json("", "link")}
    case.add(at)
    made = {each["ifname"] for each in ip_json("", "link")} - before
    listed_ones = {each["name"] for each in (at.result or {}).get("interfaces") or [] if not each.get("sandbox")}
    case.require(made <= listed_ones, f"made on the host, not in the result: {', '.join(sorted(made - listed_ones))}")
    return ", ".join(sorted(made)) or "none made"


@row(
    "A6a", "MUST", "ips[].interface is the index of an interface in the container", "SPEC section 5, ips", since="0.3.0"
)
def address_index(case: Case) -> None:
    if case.profile.kind == "ipam":
        not_applicable("an IPAM plugin gives no ips[].interface (see A3)")
    at = case.add()
    result = at.result or {}
    for each in result.get("ips") or []:
        if each.get("interface") is None:
            violated(f"{each.get('address')} has no interface")
        interfaces = result.get("interfaces") or []
        case.require(each["interface"] < len(interfaces), f"{each['interface']} is no index into {len(interfaces)}")
        chosen = interfaces[each["interface"]]
        case.require(chosen.get("sandbox"), f"{each['address']} is said to be on {chosen.get('name')}, on the host")


@row("A6b", "MUST", "The routes of the result are in the container", "SPEC section 5, routes", kinds=INTERFACE)
def holds_routes(case: Case) -> str:
    at = case.add()
    told_of = [route["dst"] for route in results.routes(at.result or {})]
    if not told_of or not case.profile.creates:
        not_applicable("the result has no routes")
    lines = case.inside(at.sandbox).lines("routes")
    for dst in told_of:
        name = "default" if dst in {"0.0.0.0/0", "::/0"} else dst
        case.require(any(f" {name} " in f"{line} " for line in lines), f"no route to {dst} in the container")
    return ", ".join(told_of)


@row("A9a", "library", "ADD with a CNI_NETNS that is not there fails", "every reference plugin", kinds=INTERFACE)
def no_namespace(case: Case) -> str:
    exchange = case.run("ADD", case.attachment(), env={"CNI_NETNS": "/run/netns/not-there"})
    case.refused(exchange, "CNI_NETNS does not exist")
    return told(exchange)


@row("A9b", "practice", "ADD with a CNI_NETNS that is not there leaves nothing behind", "", kinds=INTERFACE)
def no_namespace_residue(case: Case) -> None:
    before, at = case.steady()
    case.failed(case.run("ADD", at, env={"CNI_NETNS": "/run/netns/not-there"}), "A9a")
    case.clean(before, "ADD failed")


@row("A9c", "practice", "ADD with a CNI_NETNS that is not there keeps no address", "", kinds=INTERFACE)
def no_namespace_address(case: Case) -> None:
    case.needs_pool()
    network = case.network("tiny", prefix=30)
    at = case.attachment(network=network)
    case.failed(case.run("ADD", at, env={"CNI_NETNS": "/run/netns/not-there"}), "A9a")
    only_address_free(case, "the failed ADD")


@row(
    "A10",
    "practice",
    "A second interface in the same container",
    "SPEC section 2, ADD: the tuple (container, interface)",
)
def second_interface(case: Case) -> None:
    case.needs_creator()
    first = case.add()
    second = case.attachment(first.sandbox, ifname="net1")
    second.result = case.result_of(case.succeeded(case.run("ADD", second), "ADD of a second interface"))
    both = results.addresses(first.result or {}) + results.addresses(second.result)
    if case.profile.kind != "chained":
        case.require(len(both) == len(set(both)), f"both interfaces got the same address: {', '.join(both)}")
    if case.profile.kind == "interface":
        case.require(case.interface(first) and case.interface(second), "not both interfaces are there")


@row(
    "A11", "library", "A second ADD of the same container and interface fails", "SPEC section 2, ADD", kinds=_ADDRESSING
)
def twice(case: Case) -> str:
    case.needs_creator()
    at = case.add()
    exchange = case.run("ADD", at, title="the same ADD again")
    case.refused(exchange, "the second ADD of the same container and interface")
    return told(exchange)


@row("A11b", "practice", "A refused second ADD leaves the first attachment alone", "", kinds=_ADDRESSING)
def twice_harmless(case: Case) -> None:
    case.needs_creator()
    at = case.add()
    before, inside = case.host(), case.inside(at.sandbox)
    case.failed(case.run("ADD", at, title="the same ADD again"), "A11")
    gone = case.missing(before) + [line for line in inside.lines() if line not in case.inside(at.sandbox).lines()]
    case.require(not gone, f"the first attachment lost: {listed(gone)}")
    case.clean(before, "the second ADD failed")


@row("A13a", "MUST", "ADD fails where no address is left", "SPEC section 2, ADD", kinds=_ADDRESSING)
def exhausted(case: Case) -> str:
    exchange = case.run("ADD", _full(case), title="ADD, no address left")
    case.refused(exchange, "no address is left in the pool of one")
    return told(exchange)


@row("A13b", "practice", "ADD that found no address leaves nothing behind", "", kinds=_ADDRESSING)
def exhausted_residue(case: Case) -> None:
    at = _full(case)
    before, inside = case.host(), case.inside(at.sandbox)
    case.failed(case.run("ADD", at, title="ADD, no address left"), "A13a")
    left = case.residue(before) + [f"in the container: {line}" for line in added(inside, case.inside(at.sandbox))]
    case.require(not left, f"ADD failed, and this is left: {listed(left)}")


def _full(case: Case) -> Attachment:
    case.needs_pool()
    network = case.network("tiny", prefix=30)
    case.add(case.attachment(network=network))
    return case.attachment(network=network)


@row("P8", "MUST", "Parallel ADDs of different containers all succeed", "SPEC section 3: executed concurrently")
def parallel(case: Case) -> str:
    attachments, exchanges = _parallel_adds(case)
    failed = [exchange for exchange in exchanges if exchange.code != 0]
    case.require(not failed, f"{len(failed)} of {len(attachments)} failed: {told(failed[0]) if failed else ''}")
    return f"{len(attachments)} at once"


@row("P8b", "MUST", "Parallel ADDs never hand out an address twice", "SPEC section 3: locking", kinds=_ADDRESSING)
def parallel_addresses(case: Case) -> str:
    case.needs_own_addresses()
    attachments, _ = _parallel_adds(case)
    given = [address for at in attachments for address in results.addresses(at.result or {})]
    if not given or not case.profile.creates:
        not_applicable("the results have no addresses of their own")
    twice_given = sorted({address for address in given if given.count(address) > 1})
    case.require(not twice_given, f"handed out more than once: {', '.join(twice_given)}")
    return f"{len(given)} different addresses"


@row("P8c", "MUST", "Parallel DELs clean all", "SPEC section 3: executed concurrently")
def parallel_deletes(case: Case) -> None:
    case.controlled()
    waiting = [case.attachment() for _ in range(_AT_ONCE)]
    before = case.host()
    attachments, exchanges = _parallel_adds(case, waiting)
    if any(exchange.code for exchange in exchanges):
        msg = "not all ADDs succeeded (see P8)"
        raise NotMeasuredError(msg)
    for exchange in _at_once(case, "DEL", attachments):
        case.succeeded(exchange)
    case.clean(before, f"{len(attachments)} parallel DELs reported success")


_AT_ONCE = 8


def _parallel_adds(case: Case, attachments: list[Attachment] | None = None) -> tuple[list[Attachment], list[Exchange]]:
    attachments = attachments or [case.attachment() for _ in range(_AT_ONCE)]
    exchanges = _at_once(case, "ADD", attachments)
    for at, exchange in zip(attachments, exchanges, strict=True):
        if exchange.code == 0:
            at.result = case.result_of(exchange)
    return attachments, exchanges


def _at_once(case: Case, verb: str, attachments: list[Attachment]) -> list[Exchange]:
    answers: dict[int, Exchange] = {}

    def ask(number: int, at: Attachment) -> None:
        answers[number] = case.run(verb, at)

    threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(attachments)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(answers) < len(attachments):
        violated(f"of {len(attachments)} parallel {verb}s, {len(attachments) - len(answers)} did not end")
    return [answers[number] for number in sorted(answers)]


def only_address_free(case: Case, what: str) -> None:
    """The pool of one must be able to serve another container."""
    at = case.attachment(network=case.network("tiny", prefix=30))
    exchange = case.run("ADD", at, title="ADD of another container, to the pool of one")
    case.require(exchange.code == 0, f"the only address of the pool is not free after {what}: {told(exchange)}")


@row(
    "A14",
    "practice",
    "A failed ADD inside the container leaves nothing on the host",
    "the route is refused",
    kinds=INTERFACE,
)
def route_refused(case: Case) -> str:
    delegate = case.delegate()
    delegate.hand_out(2, case.version)
    case.add()
    delegate.hand_out(3, case.version, routes=[{"dst": "198.51.100.0/24", "gw": "203.0.113.77"}])
    at = case.attachment()
    before, inside = case.host(), case.inside(at.sandbox)
    exchange = case.run("ADD", at, title="ADD, IPAM gives a route through an unreachable gateway")
    if exchange.code == 0:
        not_applicable("the plugin accepts a route through an unreachable gateway")
    left = case.residue(before) + [
        f"in the container: {line}" for line in added(inside, case.inside(at.sandbox), "links")
    ]
    case.require(not left, f"ADD failed ({told(exchange)}), and this is left: {listed(left)}")
    return told(exchange)


@row(
    "A14b",
    "MUST",
    "DEL after a failed ADD succeeds and leaves nothing",
    "SPEC section 3: DEL even if the add fails",
    kinds=INTERFACE,
)
def delete_after_failure(case: Case) -> None:
    delegate = case.delegate()
    delegate.hand_out(2, case.version)
    case.add()
    delegate.hand_out(3, case.version, routes=[{"dst": "198.51.100.0/24", "gw": "203.0.113.77"}])
    at = case.attachment()
    before, inside = case.host(), case.inside(at.sandbox)
    exchange = case.run("ADD", at, title="ADD, IPAM gives a route through an unreachable gateway")
    if exchange.code == 0:
        not_applicable("the plugin accepts a route through an unreachable gateway")
    case.succeeded(case.run("DEL", at, title="DEL after the failed ADD"))
    left = case.residue(before) + [
        f"in the container: {line}" for line in added(inside, case.inside(at.sandbox), "links")
    ]
    case.require(not left, f"DEL after a failed ADD succeeded, and this is left: {listed(left)}")


@row("A15", "library", "The mac of runtimeConfig is the interface's", "CONVENTIONS, capability mac", kinds=INTERFACE)
def mac_capability(case: Case) -> None:
    if not case.profile.conf.get("capabilities", {}).get("mac"):
        not_applicable("the configuration does not declare the capability mac")
    at = case.attachment()
    wanted = "02:00:5e:10:20:30"
    at.runtime_config = {**at.runtime_config, "mac": wanted}
    case.add(at)
    interface = case.interface(at) or {}
    case.require(interface.get("address") == wanted, f"asked for {wanted}, found {interface.get('address')}")


@row(
    "A16",
    "library",
    "The addresses of runtimeConfig ips are assigned",
    "CONVENTIONS, capability ips",
    kinds=_ADDRESSING,
)
def ips_capability(case: Case) -> None:
    case.needs_own_addresses()
    case.needs_pool()
    if not case.profile.conf.get("capabilities", {}).get("ips"):
        not_applicable("the configuration does not declare the capability ips")
    at = case.attachment()
    wanted = f"10.88.{at.network.number}.77/24"
    at.runtime_config = {**at.runtime_config, "ips": [wanted]}
    case.add(at)
    found = results.addresses(at.result or {})
    case.require(found == [wanted], f"asked for {wanted}, got {', '.join(found)}")


@row(
    "A17",
    "MUST",
    "CNI_ARGS IP is ignored where args.cni.ips is given",
    "CONVENTIONS, CNI_ARGS: if the plugin understands args, it must ignore the CNI_ARGS field",
    kinds=_ADDRESSING,
)
def args_before_cni_args(case: Case) -> str:
    case.needs_own_addresses()
    case.needs_pool()
    number = case.network().number
    by_args, by_env = f"10.88.{number}.80", f"10.88.{number}.90"
    plain = case.attachment()
    alone = case.run("ADD", plain, config={**case.config(plain, "ADD"), "args": {"cni": {"ips": [by_args]}}})
    if alone.code != 0 or [a.split("/")[0] for a in results.addresses(case.result_of(alone))] != [by_args]:
        not_applicable("the plugin does not understand args.cni.ips")
    plain.result = case.result_of(alone)
    case.run("DEL", plain)
    at = case.attachment()
    by_args = f"10.88.{number}.81"
    body = {**case.config(at, "ADD"), "args": {"cni": {"ips": [by_args]}}}
    exchange = case.run("ADD", at, config=body, env={"CNI_ARGS": f"IgnoreUnknown=1;IP={by_env}"})
    case.succeeded(exchange)
    found = [address.split("/")[0] for address in results.addresses(case.result_of(exchange))]
    case.require(found == [by_args], f"args ask for {by_args}, CNI_ARGS for {by_env}; got {', '.join(found)}")
    return f"{by_args}, not {by_env}"
