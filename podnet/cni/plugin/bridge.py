"""The bridge of a network: made by whoever comes first, shared by all that follow, taken back only by the last."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from podnet.cni.plugin.plan import DEFAULT_MTU
from podnet.cni.spec.errors import INTERNAL, CNIError
from podnet.errors import KernelError
from podnet.ipam.ranges import number
from podnet.kernel import rtnl
from podnet.kernel.objects import Address, Bridge, Sysctl, Veth
from podnet.kernel.schedule import Op

if TYPE_CHECKING:
    from podnet.cni.plugin.add import Undo
    from podnet.cni.plugin.call import Call, Lock
    from podnet.cni.plugin.machine import LinkSeen
    from podnet.ipam.ledger import Ledger

__all__ = ["Shared", "conflicting"]


def conflicting(wanted: Address, there: Address) -> bool:
    """Whether an address of the bridge cannot stand beside a wanted one, as the reference plugin judges it.

    There may be several IPv6 addresses, whose networks do not overlap, but one IPv4 address.
    """
    if (":" in wanted.address) != (":" in there.address) or wanted.address == there.address:
        return False
    if ":" not in wanted.address:
        return True
    (one, _, length), (two, _, other) = wanted.address.partition("/"), there.address.partition("/")
    rest = 128 - min(int(length), int(other))
    return number(one) >> rest == number(two) >> rest


class Shared:
    """What an ADD makes that other attachments use too."""

    def __init__(self, call: Call, ledger: Ledger, lock: Lock) -> None:
        self._call, self._ledger, self._lock = call, ledger, lock

    def bridge(self, undo: Undo) -> LinkSeen:
        """The bridge, made where there is none; it is up. Raises ``PodnetError``."""
        settings, machine = self._call.settings, self._call.machine
        name = settings.bridge
        seen = machine.link("", name)
        if seen is None:
            seen = self._make(undo)
        elif settings.filters_vlans and not seen.filters_vlans and seen.kind == "bridge":
            undo.push(f"VLANs of {name}", self._filter_off)
        if seen.kind != "bridge" or seen.name != name:
            raise CNIError(INTERNAL, f'"{name}" already exists but is not a bridge')
        if settings.filters_vlans and not seen.filters_vlans:
            from podnet.cni.plugin import vlans

            vlans.filter_on(machine, settings)
        # Also without an address on it: a bridge made by hand takes the lowest of its ports' MACs.
        machine.pin_mac(seen)
        if not seen.up:
            machine.apply([Op("set", Bridge("", name, seen.mac), ("up",))])
        if settings.promisc:
            machine.set_promiscuous(name)
        return seen

    def _make(self, undo: Undo) -> LinkSeen:
        settings, machine = self._call.settings, self._call.machine
        wanted = Bridge("", settings.bridge, "02:" + os.urandom(5).hex(":"), settings.mtu or DEFAULT_MTU, up=False)
        undo.push(f"bridge {wanted.name}", lambda: self._take_bridge_back(wanted))
        try:
            machine.apply([Op("add", wanted)])
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
        if os.path.exists("/proc/sys/net/ipv6"):
            machine.apply([Op("set", Sysctl("", f"net/ipv6/conf/{wanted.name}/accept_ra", "0"), ("value",))])
        seen = machine.link("", wanted.name)
        if seen is None:
            msg = f"bridge {wanted.name} was deleted while it was made"
            raise KernelError(msg, errno.ENODEV)
        return seen

    def _take_bridge_back(self, made: Bridge) -> None:
        """Delete the bridge if this call has made it, and no other has come to use it."""
        machine = self._call.machine
        seen = machine.link("", made.name)
        if seen is None or seen.mac != made.mac or not self._lock.alone():
            return
        ports = [e for e in machine.observe([""]).values() if isinstance(e, Veth) and e.master == made.name]
        if not ports:
            machine.delete_link(made.name)

    def _filter_off(self) -> None:
        if self.alone():
            from podnet.cni.plugin import vlans

            vlans.filter_off(self._call.machine, self._call.settings.bridge)

    def gateway_link(self, bridge: LinkSeen, undo: Undo) -> LinkSeen:
        """The link that has the gateways' addresses: the bridge itself, or its way into the VLAN."""
        settings, machine = self._call.settings, self._call.machine
        name = settings.gateway_link
        if not settings.vlan:
            return bridge
        if machine.link("", name) is None:
            from podnet.cni.plugin import vlans

            undo.push(f"link {name}", lambda: self._take_link_back(name))
            try:
                vlans.make_gateway_link(machine, settings, bridge)
            except KernelError as error:
                if error.errno != errno.EEXIST:
                    raise
        seen = machine.link("", name)
        if seen is None:
            raise KernelError(f"link {name} was deleted while it was made", errno.ENODEV)
        machine.send(f"set {name} up", [rtnl.set_link(name, up=True)])
        return seen

    def _take_link_back(self, name: str) -> None:
        if self.alone():
            self._call.machine.delete_link(name)

    def gateways(self, seen: LinkSeen, wanted: tuple[Address, ...], undo: Undo) -> None:
        """Put the gateways' addresses on their link. Raises ``CNIError`` where others stand in their way."""
        if not wanted:
            return
        settings, machine = self._call.settings, self._call.machine
        name = seen.name
        there = machine.addresses_of(seen)
        texts = {each.address for each in there}
        for each in wanted:
            if each.address in texts:
                continue
            others = [old for old in there if conflicting(each, old) and old.address not in {w.address for w in wanted}]
            if others and not settings.force_address:
                msg = f'"{name}" already has an IP address different from {each.address}'
                raise CNIError(INTERNAL, msg, f"it has {', '.join(old.address for old in others)}")
            for old in others:
                undo.push(f"{old}", lambda old=old: self._put_back(old))  # type: ignore[misc]
                machine.apply([Op("delete", old)])
                there.remove(old)
            undo.push(f"{each}", lambda each=each: self._take_back(each))  # type: ignore[misc]
            try:
                machine.apply([Op("add", each)])
            except KernelError as error:
                if error.errno != errno.EEXIST:
                    raise

    def alone(self) -> bool:
        """Whether no other attachment of the network counts on the bridge."""
        holders = self._ledger.holders(self._call.config.name)
        return self._lock.alone() and all(each.owner == self._call.owner for each in holders)

    def _take_back(self, address: Address) -> None:
        if self.alone() and self._call.machine.link("", address.dev) is not None:
            self._call.machine.apply([Op("delete", address)])

    def _put_back(self, address: Address) -> None:
        try:
            self._call.machine.apply([Op("add", address)])
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
