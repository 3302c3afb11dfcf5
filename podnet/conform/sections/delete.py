"""DEL: complete, best effort, as often as it is called, and of nothing else."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from podnet.conform.bench import WORK_DIR
from podnet.conform.case import listed, told
from podnet.conform.model import CHAINED, INTERFACE, IPAM, not_applicable
from podnet.conform.observe import added, ip_json, lost, run_tool
from podnet.conform.sections.add import only_address_free
from podnet.conform.sections.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.conform.case import Case
    from podnet.conform.model import Kind
    from podnet.conform.subject import Attachment

    _Damage = Callable[[Case, Attachment], dict[str, str | None]]

__all__ = ["TABLE"]

TABLE = Table("DEL")
row = TABLE.row

_ADDRESSING: tuple[Kind, ...] = (*INTERFACE, *IPAM)
_BEST_EFFORT = "SPEC section 2, DEL: best-effort, even if some resources or state are missing"
_FROM_0_4 = "0.4.0"


@row("D1a", "SHOULD", "DEL removes CNI_IFNAME from the container", "SPEC section 2, DEL", kinds=INTERFACE)
def removes_interface(case: Case) -> None:
    case.needs_creator()
    at = case.add()
    case.succeeded(case.run("DEL", at))
    case.require(not case.interface(at), f"{at.ifname} is still in the container's namespace")


@row("D1b", "SHOULD", "DEL undoes what ADD did on the host", "SPEC section 2, DEL")
def cleans_host(case: Case) -> None:
    before, at = case.steady()
    case.add(at)
    case.succeeded(case.run("DEL", at))
    case.clean(before, "DEL reported success")


@row("D1c", "SHOULD", "DEL undoes what ADD did in the container", "SPEC section 2, DEL", kinds=CHAINED)
def cleans_container(case: Case) -> None:
    at = case.attachment()
    before = case.inside(at.sandbox)
    case.add(at)
    case.succeeded(case.run("DEL", at))
    after = case.inside(at.sandbox)
    left, gone = added(before, after), lost(before, after)
    case.require(not left, f"DEL reported success, and this is left: {listed(left)}")
    case.require(not gone, f"DEL reported success, and this is gone: {listed(gone)}")


@row("D1d", "SHOULD", "DEL releases the address", "SPEC section 2, DEL", kinds=_ADDRESSING)
def releases_address(case: Case) -> None:
    _released(case, _leave_alone)


def _leave_alone(_case: Case, _at: Attachment) -> dict[str, str | None]:
    return {}


def _close(case: Case, at: Attachment) -> dict[str, str | None]:
    """The namespace is gone and the runtime says so, as containerd does after a reboot."""
    case.leave(at.sandbox)
    return {"CNI_NETNS": ""}


def _vanish(case: Case, at: Attachment) -> dict[str, str | None]:
    """The namespace is gone and the runtime does not know."""
    case.leave(at.sandbox)
    return {}


def _unplug(case: Case, at: Attachment) -> dict[str, str | None]:
    """Somebody deleted the interface."""
    run_tool(["ip", "-n", at.sandbox.namespace, "link", "delete", at.ifname])
    return {}


def _released(case: Case, damage: _Damage) -> None:
    case.needs_pool()
    at = case.add(case.attachment(network=case.network("tiny", prefix=30)))
    env = damage(case, at)
    case.succeeded(case.run("DEL", at, env=env))
    only_address_free(case, "DEL")


def _cleaned(case: Case, damage: _Damage) -> None:
    before, at = case.controlled()
    case.add(at)
    env = damage(case, at)
    case.succeeded(case.run("DEL", at, env=env))
    case.clean(before, "DEL reported success")


def _tolerated(case: Case, damage: _Damage) -> None:
    at = case.add()
    env = damage(case, at)
    case.succeeded(case.run("DEL", at, env=env))


@row("D2a", "MUST", "DEL of what was never added succeeds", "SPEC section 2, DEL: return success if ... missing")
def never_added(case: Case) -> None:
    case.succeeded(case.run("DEL", case.attachment(), title="DEL of what was never added"))


@row("D2b", "SHOULD", "DEL succeeds where the namespace of CNI_NETNS is gone", _BEST_EFFORT)
def netns_gone(case: Case) -> None:
    _tolerated(case, _vanish)


@row("D2c", "SHOULD", "DEL succeeds with an empty CNI_NETNS", _BEST_EFFORT)
def netns_empty(case: Case) -> None:
    _tolerated(case, _close)


@row("D2d", "MUST", "DEL succeeds where the interface is gone", _BEST_EFFORT)
def interface_gone(case: Case) -> None:
    case.needs_creator()
    _tolerated(case, _unplug)


@row(
    "D2e",
    "SHOULD",
    "DEL succeeds without prevResult",
    "SPEC section 2, DEL: still return without error if prevResult is empty",
    since=_FROM_0_4,
)
def no_previous_result(case: Case) -> None:
    at = case.add()
    body = case.config(at, "DEL")
    body.pop("prevResult", None)
    case.succeeded(case.run("DEL", at, config=body, title="DEL without prevResult"))


@row("D2f", "SHOULD", "DEL succeeds where the plugin's state on disk is gone", _BEST_EFFORT)
def state_gone(case: Case) -> str:
    at = case.add()
    gone = wipe_state(case)
    if not gone:
        not_applicable("the plugin keeps no state in files that name the container")
    case.succeeded(case.run("DEL", at, title="DEL, state files deleted"))
    return listed(gone)


def wipe_state(case: Case) -> list[str]:
    """Delete the files that name our containers and what is in the data directory; returns the former."""
    lines = sorted(case.host().lines("files"))
    for path in lines:
        shutil.rmtree(path, ignore_errors=True)
        run_tool(["rm", "-f", path])
    shutil.rmtree(f"{WORK_DIR}/data", ignore_errors=True)
    return lines


@row("D2g", "MUST", "DEL succeeds where what ADD made on the host is gone", _BEST_EFFORT, kinds=INTERFACE)
def host_gone(case: Case) -> str:
    before = {each["ifname"] for each in ip_json("", "link")}
    at = case.add()
    made = [each["ifname"] for each in ip_json("", "link") if each["ifname"] not in before]
    if not made:
        not_applicable("ADD makes no interface on the host")
    for name in made:
        run_tool(["ip", "link", "delete", name])
    run_tool(["nft", "flush", "ruleset"])
    case.succeeded(case.run("DEL", at, title=f"DEL, {', '.join(made)} and all rules deleted"))
    return ", ".join(made)


@row("D3a", "SHOULD", "DEL with an empty CNI_NETNS cleans the host", f"{_BEST_EFFORT}; names the bridge plugin")
def netns_empty_cleans(case: Case) -> None:
    _cleaned(case, _close)


@row("D3b", "SHOULD", "DEL cleans the host where the namespace of CNI_NETNS is gone", _BEST_EFFORT)
def netns_gone_cleans(case: Case) -> None:
    _cleaned(case, _vanish)


@row("D3c", "SHOULD", "DEL cleans the host where the interface is gone", _BEST_EFFORT, kinds=INTERFACE)
def interface_gone_cleans(case: Case) -> None:
    case.needs_creator()
    _cleaned(case, _unplug)


@row("D3d", "SHOULD", "DEL with an empty CNI_NETNS releases the address", _BEST_EFFORT, kinds=_ADDRESSING)
def netns_empty_releases(case: Case) -> None:
    _released(case, _close)


@row(
    "D3e",
    "SHOULD",
    "DEL releases the address where the namespace of CNI_NETNS is gone",
    _BEST_EFFORT,
    kinds=_ADDRESSING,
)
def netns_gone_releases(case: Case) -> None:
    _released(case, _vanish)


@row("D3f", "SHOULD", "DEL releases the address where the interface is gone", _BEST_EFFORT, kinds=_ADDRESSING)
def interface_gone_releases(case: Case) -> None:
    case.needs_creator()
    _released(case, _unplug)


@row("D3g", "practice", "DEL without prevResult cleans the host", "a runtime whose cache is lost", since=_FROM_0_4)
def no_previous_result_cleans(case: Case) -> None:
    before, at = case.controlled()
    case.add(at)
    body = case.config(at, "DEL")
    body.pop("prevResult", None)
    case.succeeded(case.run("DEL", at, config=body, title="DEL without prevResult"))
    case.clean(before, "DEL without prevResult reported success")


@row("D4a", "MUST", "DEL succeeds any number of times", "SPEC section 2, DEL: MUST accept multiple DEL calls")
def repeated(case: Case) -> None:
    at = case.add()
    for number in (1, 2, 3):
        case.succeeded(case.run("DEL", at, title=f"DEL number {number}"), f"DEL number {number}")


@row(
    "D4b",
    "MUST",
    "A later DEL does not take away what another container has since",
    "SPEC section 2, DEL",
    kinds=_ADDRESSING,
)
def repeated_later(case: Case) -> None:
    case.needs_pool()
    tiny = case.network("tiny", prefix=30)
    first = case.add(case.attachment(network=tiny))
    case.succeeded(case.run("DEL", first))
    second = case.add(case.attachment(network=tiny))
    before, inside = case.host(), case.inside(second.sandbox)
    case.succeeded(case.run("DEL", first, title="DEL of the first container again"))
    gone = case.missing(before) + lost(inside, case.inside(second.sandbox))
    case.require(not gone, f"the container that has the address now lost: {listed(gone)}")
    third = case.attachment(network=tiny)
    exchange = case.run("ADD", third, title="ADD of a third container, to the pool of one")
    case.refused(exchange, "the second container still has the only address")


@row("D6", "SHOULD", "DEL of one interface leaves the container's others alone", "SPEC section 3: the attachment")
def only_own_interface(case: Case) -> None:
    case.needs_creator()
    first = case.add()
    second = case.attachment(first.sandbox, ifname="net1", network=case.network("second"))
    start, start_inside = case.host(), case.inside(first.sandbox)
    case.add(second)
    case.succeeded(case.run("DEL", second))
    inside = case.inside(first.sandbox)
    gone = case.missing(start) + lost(start_inside, inside)
    gone = [line for line in gone if " net1" not in line]
    case.require(not gone, f"DEL of net1 took from {first.ifname}: {listed(gone)}")


@row(
    "D6b",
    "SHOULD",
    "DEL of one interface leaves the others alone, also in the same network",
    "SPEC section 3: an attachment is (container, interface)",
)
def only_own_interface_same_network(case: Case) -> None:
    case.needs_creator()
    first = case.add()
    second = case.attachment(first.sandbox, ifname="net1")
    start = case.host()
    exchange = case.run("ADD", second)
    if exchange.code != 0:
        not_applicable(f"a container cannot have a second interface (see A10): {told(exchange)}")
    second.result = case.result_of(exchange)
    case.succeeded(case.run("DEL", second))
    gone = case.missing(start)
    case.require(not gone, f"DEL of net1 took from {first.ifname}: {listed(gone)}")
    left = [line for line in case.residue(start) if line not in gone]
    case.require(not left, f"DEL of net1 reported success, and this is left: {listed(left)}")


@row("D6c", "SHOULD", "DEL leaves other containers alone", "SPEC section 2, DEL")
def only_own_container(case: Case) -> None:
    other = case.add()
    start, inside = case.host(), case.inside(other.sandbox)
    at = case.add()
    case.succeeded(case.run("DEL", at))
    gone = case.missing(start) + lost(inside, case.inside(other.sandbox))
    case.require(not gone, f"another container lost: {listed(gone)}")


@row("D7", "practice", "DEL cleans also where the configuration has lost its options since", "operators edit files")
def changed_configuration(case: Case) -> str:
    optional = [key for key in case.profile.conf if key not in {"ipam", "bridge", "master", "capabilities"}]
    if not optional and not case.profile.runtime_config:
        not_applicable("the configuration has no options to lose")
    before, at = case.controlled()
    case.add(at)
    body = {key: value for key, value in case.config(at, "DEL").items() if key not in {*optional, "runtimeConfig"}}
    case.succeeded(case.run("DEL", at, config=body, title="DEL, options gone from the configuration"))
    case.clean(before, "DEL reported success")
    return f"without {', '.join([*optional, *(['runtimeConfig'] if at.runtime_config else [])])}"


@row(
    "D9",
    "MUST",
    "DEL of a chained plugin leaves the interface of the plugin before it",
    "SPEC section 2, DEL",
    kinds=CHAINED,
)
def leaves_interface(case: Case) -> None:
    at = case.add()
    case.succeeded(case.run("DEL", at))
    case.require(case.interface(at), f"{at.ifname}, which another plugin made, is gone")
