"""CHECK: what the result of ADD says against what is there, each difference named; nothing is repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.cni.attachment import Attachment
from podnet.cni.plugin import ipam, parts, plan
from podnet.cni.plugin.add import FORWARDING, check_netns
from podnet.cni.plugin.part import own_ips
from podnet.cni.spec.errors import INTERNAL, INVALID_CONFIG, CNIError
from podnet.ipam.ranges import family_of, number
from podnet.kernel.diff import diff
from podnet.kernel.objects import Address, Bridge, KernelObject, Route, State, Sysctl, Veth

if TYPE_CHECKING:
    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.plan import Plan
    from podnet.cni.spec.result import Result

__all__ = ["check", "differences"]


_NO_MAC = "00:00:00:00:00:00"


def check(call: Call) -> None:
    """Raise ``CNIError`` 999 with every difference in its details, 7 without ``prevResult``."""
    result = call.config.prev_result
    if result is None:
        raise CNIError(INVALID_CONFIG, "Required prevResult missing")
    check_netns(call)
    if ipam.delegated(call.config):
        ipam.delegate(call.machine, call.config, call.environ, "CHECK")
    problems = _reservations(call, result)
    if _taken_over(call):
        problems += _links(call, result, _outer(result))
    else:
        problems += [*_links(call, result, call.names[0]), *parts.lacking(call, result)]
    if problems:
        owner = call.owner
        msg = f"{owner.ifname} of container {owner.container_id} is not as ADD has made it"
        raise CNIError(INTERNAL, msg, "; ".join(problems))


def _taken_over(call: Call) -> bool:
    """Whether the reference plugins have made the attachment: with names of their own, and rules that are not ours."""
    if not ipam.own(call.config):
        return False
    with call.ledger() as ledger:
        holder = ledger.holder(call.owner)
    return holder is not None and not holder.inode


def _outer(result: Result) -> str:
    return next((each.name for each in result.interfaces if each.name.startswith("veth") and not each.sandbox), "")


def _links(call: Call, result: Result, host: str) -> list[str]:
    netns, ifname = call.environment.netns, call.environment.ifname
    own = next((each for each in result.interfaces if each.name == ifname and each.sandbox == netns), None)
    if own is None:
        return [f"prevResult has no interface {ifname} in sandbox {netns}"]
    outer = next((each for each in result.interfaces if each.name == host and not each.sandbox), None)
    if outer is None:
        return [f"prevResult has no interface {host} on the host"]
    seen = call.machine.link("", host)
    wanted = plan.of_result(
        call.settings,
        result,
        Attachment(
            node_netns="",
            bridge=call.settings.bridge if call.settings.mode == "bridge" else "",
            netns=netns,
            ifname=ifname,
            label=call.names[1],
            addresses=(),
            gateways=(),
            mac=own.mac,
            mtu=own.mtu or call.settings.mtu or plan.DEFAULT_MTU,
            group=0,
            hairpin=call.settings.hairpin,
            host=host,
            host_end_mac=outer.mac or (seen.mac if seen else _NO_MAC),
            up=not call.settings.no_interface,
        ),
    )
    routes = [each for name in ("", netns) for each in call.machine.routes(name)]
    problems = differences(_objects(call, result, wanted), _found(call, wanted), routes)
    if call.settings.isolated and seen is not None and not seen.isolated:
        problems.append(f"port {host} is not isolated")
    if call.settings.filters_vlans:
        from podnet.cni.plugin import vlans

        problems += vlans.lacking(call.machine, call.settings, host)
    return problems


def _objects(call: Call, result: Result, wanted: Plan) -> list[KernelObject]:
    objects: list[KernelObject] = [each for each in wanted.objects if not isinstance(each, Sysctl)]
    objects += [*wanted.addresses, *wanted.routes, *wanted.gateways]
    if call.settings.mode == "bridge":
        name = call.settings.bridge
        mac = next((each.mac for each in result.interfaces if each.name == name and not each.sandbox), "")
        objects.append(Bridge("", name, mac))
    if wanted.gateways or call.settings.mode == "ptp":
        objects += [Sysctl("", FORWARDING[each], "1") for each in wanted.families]
    return objects


def _found(call: Call, wanted: Plan) -> State:
    return call.machine.observe(["", call.environment.netns], [("", FORWARDING[each]) for each in wanted.families])


def differences(wanted: list[KernelObject], found: State, routes: list[Route]) -> list[str]:
    """What of the wanted is missing or different; what others may change since, and what nobody asked for, is not."""
    there: State = {}
    for each in wanted:
        was = _alike(each, found, routes)
        if was is not None:
            there[each.key] = _tolerated(each, was)
    changes = diff({each.key: each for each in wanted}, there, group=0)
    return [f"{change.object} {change.reason}" for change in changes]


def _alike(wanted: KernelObject, found: State, routes: list[Route]) -> KernelObject | None:
    """What is there in the place of a wanted object.

    A route may have moved to another table or metric, and a later one may have made it one of several ways, which
    IPv6 shows as one route without gateway and device of its own.
    """
    if not isinstance(wanted, Route):
        return found.get(wanted.key)
    ways = {(wanted.via, wanted.dev)} | ({("", "")} if ":" in wanted.dst else set())
    place = (wanted.netns, wanted.dst, wanted.type)
    alike = (each for each in routes if (each.netns, each.dst, each.type) == place and (each.via, each.dev) in ways)
    return next(alike, None)


def _tolerated(wanted: KernelObject, was: KernelObject) -> KernelObject:
    """What was found, with the fields that are none of CHECK's business as they are wanted."""
    match wanted, was:
        case Address(), Address():
            return was._replace(protocol=wanted.protocol)
        case Route(), Route():
            return wanted
        case Bridge(), Bridge():
            mac = was.mac if wanted.mac else ""
            return was._replace(mac=mac, mtu=wanted.mtu, group=wanted.group, altname=wanted.altname)
        case Veth(), Veth():
            mac = was.mac if wanted.mac else ""
            return was._replace(mac=mac, addrgen=wanted.addrgen, group=wanted.group, altname=wanted.altname)
        case _:
            return was


def _reservations(call: Call, result: Result) -> list[str]:
    if not ipam.own(call.config):
        return []
    with call.ledger() as ledger:
        held = set(ledger.leases(call.owner))
    hosts = [ip.address.partition("/")[0] for ip in own_ips(call, result)]
    return [f"the reservation of {each} is missing" for each in hosts if (family_of(each), number(each)) not in held]
