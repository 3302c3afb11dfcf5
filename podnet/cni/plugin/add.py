"""ADD: an attachment made, or nothing at all."""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from podnet.cni.plugin import bridge, ipam, parts, plan
from podnet.cni.plugin.call import locked, turn
from podnet.cni.spec import versions
from podnet.cni.spec.errors import INTERNAL, INVALID_NETNS, UNKNOWN_CONTAINER, CNIError, as_cni_error
from podnet.cni.spec.result import Interface, Result, to_json
from podnet.errors import KernelError, PodnetError
from podnet.ipam.ledger import Holder, boot_id
from podnet.kernel.diff import Change
from podnet.kernel.objects import KernelObject, Sysctl
from podnet.kernel.schedule import Op, schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.machine import LinkSeen
    from podnet.ipam.book import Book
    from podnet.ipam.ledger import Ledger

__all__ = ["FORWARDING", "Undo", "add", "check_netns", "undone"]

_DAD_PATIENCE = 5.0  # seconds, as the reference plugin waits
FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


class Undo:
    """What takes back what was done, the last first; each is tried, whatever becomes of the others."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], None]]] = []

    def push(self, what: str, step: Callable[[], None]) -> None:
        """Note how to take back what is done next, or was just done."""
        self._steps.append((what, step))

    def run(self) -> list[str]:
        """Take everything back; returns what could not be."""
        problems = []
        for what, step in reversed(self._steps):
            try:
                step()
            except (PodnetError, OSError) as error:
                problems.append(f"{what}: {error}")
        self._steps.clear()
        return problems


@contextmanager
def undone() -> Iterator[Undo]:
    """What the block has made is taken back where it fails; what could not be is added to the error."""
    undo = Undo()
    try:
        yield undo
    except BaseException as error:
        problems = undo.run()
        if problems and isinstance(error, Exception):
            known = as_cni_error(error)
            details = "; ".join(filter(None, [known.details, "not taken back:", *problems]))
            raise CNIError(known.code, known.msg, details) from error
        raise


def check_netns(call: Call) -> int:
    """The number of the container's namespace. Raises ``CNIError`` 3 where there is none, 8 where it is our own."""
    path = call.environment.netns
    inode = call.machine.inode(path)
    if not inode:
        raise CNIError(UNKNOWN_CONTAINER, f"failed to open netns {path!r}: CNI_NETNS is no network namespace")
    if inode == os.stat("/proc/thread-self/ns/net").st_ino and not call.environment.netns_override:
        raise CNIError(INVALID_NETNS, "plugin's netns and netns from CNI_NETNS should not be the same", path)
    return inode


def add(call: Call) -> dict[str, Any]:
    """Make the attachment; the result in the version of the configuration. Raises ``PodnetError``, leaving nothing."""
    inode = check_netns(call)
    if ipam.own(call.config):
        ipam.ranges_of(call.config)  # what is wrong with the ranges is said before anything is looked at
    parts.wanted(call)
    _refuse_taken(call)
    with (
        turn(call.state, call.owner),
        locked(call.state, call.settings.bridge) as lock,
        call.ledger() as ledger,
        call.book(ledger) as book,
        undone() as undo,
    ):
        call.refuse_abandoned()
        call.passed("lock")
        return _made(call, ledger, book, inode, undo, bridge.Shared(call, ledger, lock))


def _refuse_taken(call: Call) -> None:
    host, label = call.names
    ifname = call.environment.ifname
    if call.machine.link(call.environment.netns, ifname) is not None:
        msg = f'container veth name ("{ifname}") peer provided ("{host}") already exists'
        raise CNIError(INTERNAL, msg, f"in {call.environment.netns}; it is left as it is")
    for name in (host, label):
        if call.machine.link("", name) is not None:
            details = "the attachment was made before: DEL comes before another ADD"
            raise CNIError(INTERNAL, f"host interface {name} already exists", details)


def _made(call: Call, ledger: Ledger, book: Book, inode: int, undo: Undo, shared: bridge.Shared) -> dict[str, Any]:
    given = _reserve(call, ledger, inode, undo)
    seen = first = None
    if ipam.delegated(call.config):
        # As the reference plugins do: dhcp asks for its address by the container's interface.
        first, seen = _planned(call, Result()), _bridge(call, undo, shared)
        _link(call, first, undo)
        given = ipam.delegate_add(call.machine, call.config, call.environ)
        undo.push("IPAM", lambda: _delegate_del(call))
    call.passed("address")
    if call.config.ipam_type and not given.ips:
        raise CNIError(INTERNAL, "IPAM plugin returned missing IP config")
    if call.settings.mode == "ptp" and not given.ips:
        raise CNIError(INTERNAL, "IPAM plugin returned missing IP config", "ptp needs ipam")
    made = _planned(call, given)
    if first is not None:
        made = plan.beyond_link(made, first.attachment)
    # What this version cannot say is refused before anything is made.
    answer = made.result
    with_mtu = versions.at_least(call.config.version, "1.1.0")
    if not with_mtu:
        answer = answer._replace(interfaces=tuple(each._replace(mtu=0) for each in answer.interfaces))
    to_json(answer, call.config.version)
    machine = call.machine
    if first is None:
        seen = _bridge(call, undo, shared)
    if seen is not None:
        on_host = answer.interfaces[0]._replace(mac=seen.mac, mtu=seen.mtu if with_mtu else 0)
        more: tuple[Interface, ...] = ()
        if made.gateways:
            near = shared.gateway_link(seen, undo)
            shared.gateways(near, made.gateways, undo)
            if near.name != seen.name:
                more = (Interface(near.name, near.mac, near.mtu if with_mtu else 0),)
        answer = answer._replace(interfaces=(on_host, *answer.interfaces[1:], *more))
    call.passed("bridge")
    if first is None:
        _link(call, made, undo)
    else:
        machine.apply(_creating(made.objects))
    for address in made.addresses:
        machine.add_address(address, dad=call.settings.dad, route=call.settings.mode != "ptp")
    for route in made.routes:
        machine.add_route(route)
    if call.settings.dad:
        _wait_for_dad(call)
    call.passed("link")
    answer = parts.add(call, book, inode, answer, undo)
    call.passed("rules")
    # Last, because it is the whole machine's and is never taken back.
    if made.gateways or call.settings.mode == "ptp":
        machine.apply([Op("set", Sysctl("", FORWARDING[each], "1"), ("value",)) for each in made.families])
    return to_json(answer, call.config.version)


def _planned(call: Call, given: Result) -> plan.Plan:
    place = call.environment
    return plan.make(call.settings, given, place.netns, place.ifname, call.names, call.config.mac, random_mac)


def _bridge(call: Call, undo: Undo, shared: bridge.Shared) -> LinkSeen | None:
    return shared.bridge(undo) if call.settings.mode == "bridge" else None


def _link(call: Call, made: plan.Plan, undo: Undo) -> None:
    """Make the link of a plan, with all else that the plan has."""
    machine, host = call.machine, made.attachment.host
    undo.push(f"link {host}", lambda: machine.delete_link(host))
    machine.apply(_creating((*made.objects, *_host_sysctls(host, routed=call.settings.mode == "ptp"))))
    if call.settings.isolated:
        machine.set_isolated(host)
    if call.settings.filters_vlans:
        from podnet.cni.plugin import vlans

        vlans.set_port(machine, call.settings, host, call.settings.trunk)


def _creating(objects: tuple[KernelObject, ...]) -> list[Op]:
    return schedule([Change("create", each, None, "ADD") for each in objects])


def _reserve(call: Call, ledger: Ledger, inode: int, undo: Undo) -> Result:
    """Write the attachment down, and get its addresses where our own ledger has them."""
    before = ledger.holder(call.owner)
    with ledger.transaction():
        ledger.record(Holder(call.owner, call.environment.netns, inode, boot_id()))
        found = ipam.assign(ledger, call.owner, call.config, call.stale) if ipam.own(call.config) else Result()
    undo.push("reservation", lambda: _restore(call, ledger, before))
    return found


def _restore(call: Call, ledger: Ledger, before: Holder | None) -> None:
    """The ledger as it was before: a second ADD of an attachment must not forget what the first has left."""
    with ledger.transaction():
        ledger.forget(call.owner)
        if before is not None:
            ledger.record(before)


def _delegate_del(call: Call) -> None:
    ipam.delegate(call.machine, call.config, call.environ, "DEL")


def _host_sysctls(host: str, *, routed: bool) -> list[Sysctl]:
    if not os.path.exists("/proc/sys/net/ipv6"):
        return []
    values = {"accept_ra": "0"}
    if routed:
        values["accept_dad"] = "0"  # so that its link-local address can be used at once
    return [Sysctl("", f"net/ipv6/conf/{host}/{name}", value) for name, value in values.items()]


def _wait_for_dad(call: Call) -> None:
    netns, ifname = call.environment.netns, call.environment.ifname
    seen = call.machine.link(netns, ifname)
    until = time.monotonic() + _DAD_PATIENCE
    while seen is not None:
        undecided = call.machine.undecided(netns, seen.number)
        failed = [address for address, is_failed in undecided if is_failed]
        if failed:
            raise KernelError(f"duplicate address {failed[0]} on {ifname}: another host has it", errno.EADDRINUSE)
        if not undecided:
            return
        if time.monotonic() > until:
            msg = f"duplicate address detection of {undecided[0][0]} on {ifname} took longer than {_DAD_PATIENCE:g} s"
            raise KernelError(msg, errno.ETIMEDOUT)
        time.sleep(0.02)


def random_mac() -> str:
    """A locally administered MAC that nobody has."""
    return "02:" + os.urandom(5).hex(":")
