"""A lab whose pods CNI plugins have attached: the addresses, from their results and from the kernel; no I/O."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from podnet.cni.spec import result, versions
from podnet.cni.spec.document import Document
from podnet.cni.spec.errors import CNIError
from podnet.kernel.objects import Address, Bridge, Veth
from podnet.model.lab import Interface

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podnet.kernel.objects import State
    from podnet.model.lab import Lab, Target
    from podnet.model.placement import Placement

__all__ = ["misplaced", "plugged"]


def plugged(lab: Lab, results: Mapping[str, Mapping[str, Any]], found: State, mtu: int) -> Lab:
    """The lab with what the plugins gave: pods' addresses by their results, nodes' gateways as the kernel has them.

    ``results`` are by the pod's namespace, ``mtu`` is what an interface has of which neither says it.
    """
    return replace(lab, targets=tuple(_target(each, results, found, mtu) for each in lab.targets))


def _target(target: Target, results: Mapping[str, Mapping[str, Any]], found: State, mtu: int) -> Target:
    if target.kind == "pod" and target.netns in results:
        return replace(target, interfaces=_of_pod(target, results[target.netns], found, mtu))
    if target.kind == "node":
        return replace(target, interfaces=(*target.interfaces, *_of_node(target, found)))
    return target


def _of_pod(target: Target, given: Mapping[str, Any], found: State, mtu: int) -> tuple[Interface, ...]:
    try:
        parsed = result.parse(Document(given), versions.NEWEST)
    except CNIError:
        return ()
    addresses = tuple(ip_interface(each.address) for each in parsed.ips)
    here = next((each for each in parsed.interfaces if each.sandbox), None)
    name = here.name if here is not None and here.name else "eth0"
    link = found.get(("link", target.netns, name))
    known = link if isinstance(link, Bridge | Veth) else None
    mac = known.mac if known is not None else here.mac if here is not None else ""
    return (Interface(name, mac, known.mtu if known is not None else mtu, addresses),)


def _of_node(target: Target, found: State) -> list[Interface]:
    """Interfaces that have addresses and are not the lab's own: a bridge's gateway, or the host end of each pod."""
    own = {interface.name for interface in target.interfaces}
    addresses: dict[str, list[str]] = {}
    seen: set[str] = set()
    for each in found.values():
        if not isinstance(each, Address) or each.netns != target.netns or each.dev in own:
            continue
        # Host ends of ptp have all the same address.
        if each.address not in seen and not each.address.startswith("fe80:"):
            seen.add(each.address)
            addresses.setdefault(each.dev, []).append(each.address)
    shown = []
    for dev, texts in addresses.items():
        link = found.get(("link", target.netns, dev))
        if isinstance(link, Bridge | Veth):
            shown.append(Interface(dev, link.mac, link.mtu, tuple(ip_interface(text) for text in texts)))
    return shown


def misplaced(lab: Lab, placement: Placement) -> list[str]:
    """Addresses that plugins gave and that no other node would send to this one, a line each."""
    if placement.topology.networking.fabric == "none" or len(placement.nodes) < 2:
        return []
    wrong = []
    for pod in lab.of_kind("pod"):
        node = placement.node(pod.node)
        for address in (address for interface in pod.interfaces for address in interface.addresses):
            cidrs = [cidr for cidr in node.pod_cidrs if cidr.version == address.version]
            if not any(address.ip in cidr for cidr in cidrs):
                there = ", ".join(map(str, cidrs)) or "none"
                wrong.append(f"pod {pod.name} got {address}, and {pod.node} has the pod CIDR {there}")
    return wrong
