"""VLANs of a bridge's ports (``vlan``, ``vlanTrunk``, ``preserveDefaultVlan``), and the gateway's way into one.

A bridge that tells VLANs apart has its own addresses in none of them. As in the reference plugin, the gateway of VLAN
100 of ``cni0`` is therefore a veth pair: ``cni0.100`` has the addresses, and its other end is a port in that VLAN.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from podnet.cni.spec.errors import UNSUPPORTED_FIELD, CNIError
from podnet.errors import KernelError
from podnet.kernel import vlan
from podnet.kernel.diff import Change
from podnet.kernel.objects import Veth
from podnet.kernel.schedule import schedule
from podnet.model.digest import sha1

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from podnet.cni.plugin.machine import LinkSeen, Machine
    from podnet.cni.plugin.settings import Settings

__all__ = ["filter_off", "filter_on", "lacking", "make_gateway_link", "set_port"]


@contextmanager
def _offered(settings: Settings) -> Iterator[None]:
    """Say what the kernel lacks, instead of that it does not support something."""
    try:
        yield
    except KernelError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        asked = f"vlan: {settings.vlan}" if settings.vlan else f"vlanTrunk: {_shown(settings.trunk)}"
        msg = f"{asked} needs a bridge that filters VLANs, which this kernel cannot make"
        details = f"CONFIG_BRIDGE_VLAN_FILTERING is off (podnet doctor: bridge vlan); {error}"
        raise CNIError(UNSUPPORTED_FIELD, msg, details) from error


def filter_on(machine: Machine, settings: Settings) -> None:
    """Let the bridge tell VLANs apart. Raises ``CNIError`` 2 where the kernel cannot."""
    with _offered(settings):
        machine.send(f"let {settings.bridge} filter VLANs", [vlan.set_filtering(settings.bridge, on=True)])


def filter_off(machine: Machine, bridge: str) -> None:
    """Let the bridge look at no VLAN; no error if it does not, or is gone."""
    seen = machine.link("", bridge)
    if seen is not None and seen.filters_vlans:
        machine.send(f"let {bridge} filter VLANs no longer", [vlan.set_filtering(bridge, on=False)])


def set_port(machine: Machine, settings: Settings, port: str, trunk: Iterable[int]) -> None:
    """Put a port into the VLANs that are wanted, and into no other. Raises ``CNIError`` 2 where the kernel cannot."""
    seen = machine.link("", port)
    if seen is None:
        raise KernelError(f"cannot set the VLANs of {port}: there is no such link", errno.ENODEV)
    wanted = vlan.wanted(settings.vlan, trunk, keep_default=settings.keep_default_vlan)
    there = machine.vlans(seen.number)
    numbers = {each.vid for each in wanted}
    others = [each for each in there if each.vid not in numbers]
    messages = [vlan.delete_vlans(seen.number, others)] if others else []
    if wanted - there:
        messages.append(vlan.add_vlans(seen.number, wanted - there))
    if messages:
        with _offered(settings):
            machine.send(f"set the VLANs of {port}", messages)


def make_gateway_link(machine: Machine, settings: Settings, bridge: LinkSeen) -> None:
    """Make the link that is to have the gateways of a VLAN, and its port of the bridge. Raises ``PodnetError``."""
    name = settings.gateway_link
    port = "veth" + sha1(name.encode(), usedforsecurity=False).hexdigest()[:11]
    near = Veth("", name, "", port, _mac(), bridge.mtu, addrgen=True)
    far = Veth("", port, "", name, _mac(), bridge.mtu, master=settings.bridge)
    machine.apply(schedule([Change("create", each, None, "ADD") for each in (near, far)]))
    set_port(machine, settings, port, ())


def _mac() -> str:
    return "02:" + os.urandom(5).hex(":")


def lacking(machine: Machine, settings: Settings, port: str) -> list[str]:
    """How bridge and port differ from what ``filter_on`` and ``set_port`` make, one reason each."""
    bridge, seen = machine.link("", settings.bridge), machine.link("", port)
    if bridge is None or seen is None:
        return []  # said already
    if not bridge.filters_vlans:
        return [f"bridge {settings.bridge} filters no VLANs"]
    wanted = vlan.wanted(settings.vlan, settings.trunk, keep_default=settings.keep_default_vlan)
    found = machine.vlans(seen.number)
    if found == wanted:
        return []
    return [f"port {port} is in the VLANs {_listed(found)}; it should be in {_listed(wanted)}"]


def _listed(vlans: Iterable[vlan.PortVlan]) -> str:
    return ", ".join(map(str, sorted(vlans))) or "none"


def _shown(trunk: tuple[int, ...]) -> str:
    return str(list(trunk)) if len(trunk) <= 8 else f"[{trunk[0]} ... {trunk[-1]}]"
