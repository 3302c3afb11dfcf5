"""Shaping of what a container gets (ingress) and sends (egress), as the reference bandwidth plugin does it.

Ingress goes through a token bucket on the host end. What the container sends comes in by the host end, where nothing
can wait; it is led through an ifb device that has a token bucket, and goes on from there as it came. The ifb's name
is made from the whole attachment, so that two interfaces of a container have one each, which they have not in the
reference plugin.

``unshapedSubnets`` and ``shapedSubnets`` (versions 1.5.0 and 1.5.1 of the reference plugin) choose by the address at
the other end: where ingress comes from, where egress goes to. There, the first looked at the container's own address.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from podnet.cni.attachment import label_of
from podnet.cni.plugin.part import Part
from podnet.cni.plugin.settings import CHAINED
from podnet.cni.spec import versions
from podnet.cni.spec.address import prefix
from podnet.cni.spec.config import Bandwidth, parse_bandwidth
from podnet.cni.spec.errors import INTERNAL, INVALID_CONFIG, CNIError
from podnet.cni.spec.result import Interface
from podnet.errors import KernelError
from podnet.model.digest import sha1

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.machine import LinkSeen, Machine
    from podnet.cni.plugin.part import Data
    from podnet.cni.spec.config import NetworkConfig
    from podnet.cni.spec.result import Result
    from podnet.ipam.ledger import Owner
    from podnet.kernel import tc

__all__ = ["Shaping", "ifb_name", "limits_of"]

_IDLE = ("noqueue", "pfifo_fast", "pfifo", "fq_codel", "mq")  # what a device has without anybody's doing
_LEAST = 8  # bit: the kernel counts in bytes


def limits_of(config: NetworkConfig) -> Bandwidth:
    """What a configuration asks for; its own keys count before the runtime's. Raises ``CNIError`` 7.

    Any of its own keys, also one of 0, puts the runtime's out of force, as in the reference plugin.
    """
    own = parse_bandwidth(config.document)
    found, where = (own, "") if own else (config.runtime.bandwidth or Bandwidth(), "runtimeConfig.bandwidth.")
    for way, rate, burst in (
        ("ingress", found.ingress_rate, found.ingress_burst),
        ("egress", found.egress_rate, found.egress_burst),
    ):
        problem = _problem(rate, burst)
        if problem:
            raise CNIError(INVALID_CONFIG, problem, f"{where}{way}Rate is {rate}, {where}{way}Burst is {burst}")
    if found.unshaped_subnets and found.shaped_subnets:
        raise CNIError(INVALID_CONFIG, "unshapedSubnets and shapedSubnets cannot be specified both")
    return found._replace(
        unshaped_subnets=tuple(_subnet(each, f"{where}unshapedSubnets") for each in found.unshaped_subnets),
        shaped_subnets=tuple(_subnet(each, f"{where}shapedSubnets") for each in found.shaped_subnets),
    )


def _problem(rate: int, burst: int) -> str:
    if rate and not burst:
        return "if rate is set, burst must also be set"
    if burst and not rate:
        return "if burst is set, rate must also be set"
    if burst // 8 >= (1 << 32) - 1:
        return "burst cannot be more than 4GB"
    if rate and min(rate, burst) < _LEAST:
        return f"rate and burst must be {_LEAST} bits at least"
    return ""


def _subnet(text: str, where: str) -> str:
    try:
        return prefix(text)
    except ValueError as error:
        raise CNIError(INVALID_CONFIG, f"{where}: {error}") from None


def host_of(call: Call, result: Result) -> str:
    """The host end of the container's interface, whoever made it. Raises ``CNIError``."""
    if call.settings.mode not in CHAINED:
        return call.names[0]
    listed = versions.at_least(call.config.version, "0.3.0")  # older results have no interfaces
    if listed and not result.interfaces:
        raise CNIError(INTERNAL, "no interfaces provided", "prevResult has none")
    netns, ifname = call.environment.netns, call.environment.ifname
    seen = call.machine.link(netns, ifname)
    if seen is None or seen.kind != "veth" or not seen.peer:
        raise CNIError(INTERNAL, f"container interface {ifname} has no veth peer", f"in {netns}")
    peer = call.machine.link_at(seen.peer)
    named = peer is not None and any(each.name == peer.name and not each.sandbox for each in result.interfaces)
    if peer is None or (listed and not named):
        raise CNIError(INTERNAL, "no veth peer of container interface found in host ns", f"of {ifname} in {netns}")
    return peer.name


def ifb_name(owner: Owner) -> str:
    """The ifb device of an attachment."""
    return "bwp" + sha1(label_of(*owner).encode(), usedforsecurity=False).hexdigest()[:12]


class Shaping(Part):
    """``bandwidth``; its data are the ``host`` end, the ``ifb`` (empty without egress) and the limits.

    ``stays`` is whether the host end is another plugin's, and outlives the shaping.
    """

    name = "bandwidth"

    def wanted(self, call: Call) -> bool:
        limits = limits_of(call.config)
        return bool(limits.ingress_rate or limits.egress_rate)

    def data(self, call: Call, result: Result) -> Data:
        limits = limits_of(call.config)
        return {
            "host": host_of(call, result),
            "stays": call.settings.mode in CHAINED,
            "ifb": ifb_name(call.owner) if limits.egress_rate else "",
            "ingress": [limits.ingress_rate, limits.ingress_burst],
            "egress": [limits.egress_rate, limits.egress_burst],
            "unshaped": limits.unshaped_subnets,
            "shaped": limits.shaped_subnets,
        }

    def make(self, call: Call, result: Result, data: Data) -> Result:
        from podnet.kernel import tc

        machine, host, ifb = call.machine, data["host"], data["ifb"]
        port = machine.link("", host)
        if port is None:
            raise KernelError(f"cannot shape {host}: there is no such link", errno.ENODEV)
        if call.settings.mode in CHAINED:
            _refuse_shaped(machine, port)
        messages = _through(port.number, data, "ingress") if data["ingress"][0] else []
        if ifb:
            machine.send(f"make ifb {ifb}", [tc.add_ifb(ifb, port.mtu)])
            block = machine.link("", ifb)
            if block is None:
                raise KernelError(f"ifb {ifb} was deleted while it was made", errno.ENODEV)
            messages += [
                tc.set_alias(block.number, call.names[1]),
                *_through(block.number, data, "egress"),
                tc.add_ingress(port.number),
                tc.add_redirect(tc.Redirect(port.number, block.number)),
            ]
            mtu = block.mtu if versions.at_least(call.config.version, "1.1.0") else 0
            result = result._replace(interfaces=(*result.interfaces, Interface(ifb, block.mac, mtu)))
        machine.send(f"shape {host}", messages)
        return result

    def lacking(self, call: Call, result: Result, data: Data) -> list[str]:
        from podnet.kernel import tc

        problems = []
        if data["ingress"][0]:
            problems += _lacking(call.machine, data, data["host"], "ingress")
        if data["ifb"]:
            problems += _lacking(call.machine, data, data["ifb"], "egress")
            port, block = call.machine.link("", data["host"]), call.machine.link("", data["ifb"])
            if port and block and tc.Redirect(port.number, block.number) not in call.machine.redirects(port.number):
                problems.append(f"bandwidth: what comes in by {data['host']} is not led through {data['ifb']}")
        return problems

    def unmake(self, machine: Machine, owner: Owner, data: Data) -> None:
        from podnet.kernel import tc

        # With the host end, which is deleted meanwhile, its disciplines go too.
        port = machine.link("", data["host"]) if data["stays"] else None
        block = machine.link("", data["ifb"]) if data["ifb"] else None
        here = machine.qdiscs(port.number) if port is not None else []
        if port is not None and any(each.root and each.own for each in here):
            machine.send(f"shape {port.name} no longer", [tc.delete_root(port.number)])
        if port is not None and block is not None and any(each.kind == "ingress" for each in here):
            leads = machine.redirects(port.number)
            if not leads or tc.Redirect(port.number, block.number) in leads:  # without any, the last step is missing
                machine.send(f"lead {port.name} no longer through {block.name}", [tc.delete_ingress(port.number)])
        if block is not None:
            machine.delete_link(block.name)


def _refuse_shaped(machine: Machine, port: LinkSeen) -> None:
    """Raise ``CNIError`` where another has shaped a host end already, whose shaping must stay."""
    kinds = [each.kind for each in machine.qdiscs(port.number) if each.kind not in _IDLE]
    if kinds:
        msg = f"{port.name} is shaped already, by another plugin: it has the queueing disciplines {', '.join(kinds)}"
        raise CNIError(INTERNAL, msg)


def _bucket(data: Data, way: str) -> tc.Bucket:
    from podnet.kernel import tc

    rate, burst = data[way]
    return tc.Bucket.of(rate // 8, burst // 8)


def _through(index: int, data: Data, way: str) -> list[tc.Message]:
    """What makes a device send through a token bucket, all of it or what goes to or comes from some subnets."""
    from podnet.kernel import tc

    bucket = _bucket(data, way)
    subnets: Sequence[str] = data["unshaped"] or data["shaped"]
    if not subnets:
        return [tc.add_bucket(index, bucket)]
    default, chosen = (tc.SHAPED, tc.UNSHAPED) if data["unshaped"] else (tc.UNSHAPED, tc.SHAPED)
    matches = [tc.add_match(index, each, chosen, source=way == "ingress") for each in subnets]
    return [*tc.add_classes(index, bucket, default), *matches]


def _lacking(machine: Machine, data: Data, device: str, way: str) -> list[str]:
    seen = machine.link("", device)
    if seen is None:
        return [f"bandwidth: {way} device {device} is missing"]
    wanted = _bucket(data, way)
    if data["unshaped"] or data["shaped"]:
        from podnet.kernel.tc import SHAPED

        found = machine.classes(seen.number).get(SHAPED)
        wanted = wanted._replace(limit=0)
    else:
        found = next((each.bucket for each in machine.qdiscs(seen.number) if each.root), None)
    if found is None:
        return [f"bandwidth: {way} of {device} is not limited"]
    problems = []
    if found.rate != wanted.rate:
        problems.append(f"bandwidth: {way} rate of {device} is {found.rate * 8} bit/s, should be {wanted.rate * 8}")
    elif found.buffer != wanted.buffer:
        problems.append(f"bandwidth: {way} burst of {device} is {found.burst * 8} bit, should be {wanted.burst * 8}")
    if found.limit != wanted.limit:
        problems.append(f"bandwidth: {way} limit of {device} is {found.limit} bytes, should be {wanted.limit}")
    return problems
