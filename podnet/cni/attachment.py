"""One attachment as kernel objects: the same for a pod of the lab and for a container of any runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.kernel.objects import Address, KernelObject, Route, Veth
from podnet.model.digest import sha1

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Attachment", "host_mac", "host_name", "label_of", "mac_of", "plugin_host_name", "wanted"]

_ALTNAME_BYTES = 127  # ALTIFNAMSIZ without the final zero, linux/if.h


class Attachment(NamedTuple):
    """A container's interface on a node's bridge; with an empty ``bridge``, one that is routed to.

    ``addresses`` and ``gateways`` are text, one of each per IP family, addresses with prefix length. ``label``
    is the readable name of the host end (an altname), up to 127 bytes. ``host`` and ``host_end_mac`` are the host
    end's name and MAC where they are not to be made from label and addresses; ``addrgen`` likewise is whether the
    container's end makes itself an IPv6 link-local address.
    """

    node_netns: str
    bridge: str
    netns: str
    ifname: str
    label: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    mac: str
    mtu: int
    group: int
    hairpin: bool = True
    host: str = ""
    host_end_mac: str = ""
    addrgen: bool | None = None
    up: bool = True


def label_of(network: str, container_id: str, ifname: str) -> str:
    """The altname of a host end: readable where that is unambiguous and not too long, else a hash."""
    parts = (network, container_id, ifname)
    label = ".".join(("podnet", *parts))
    # "a.b" + "c" and "a" + "b.c" would read alike; "/" is in none of them.
    if any("." in part for part in parts) or len(label.encode()) > _ALTNAME_BYTES:
        return "podnet." + sha1("/".join(parts).encode(), usedforsecurity=False).hexdigest()
    return label


def plugin_host_name(label: str) -> str:
    """The host end's name where a runtime names the containers: 44 bits of hash, so that no two meet."""
    return "veth" + sha1(label.encode(), usedforsecurity=False).hexdigest()[:11]


def host_name(label: str) -> str:
    """The host end's interface name: ``veth`` and eight hex digits, always the same for one label."""
    return "veth" + sha1(label.encode(), usedforsecurity=False).hexdigest()[:8]


def mac_of(addresses: Sequence[str]) -> str:
    """A MAC made from an address, so that a reused address never meets a stale neighbour entry.

    ``0a:58`` and the four bytes of the IPv4 address, as Kubernetes' CNI plugins have long done; without IPv4,
    the low four bytes of the IPv6 address.
    """
    return "0a:58:" + _low_bytes(addresses).hex(":")


def host_mac(addresses: Sequence[str]) -> str:
    """The host end's MAC, made in the same way with another first half."""
    return "0a:59:" + _low_bytes(addresses).hex(":")


def _low_bytes(addresses: Sequence[str]) -> bytes:
    from podnet.kernel.rtnl import split

    first = next((a for a in addresses if ":" not in a), addresses[0])
    return split(first)[1][-4:]


def wanted(attachment: Attachment) -> list[KernelObject]:
    """What must be in the kernel for this attachment, the namespace itself apart."""
    a = attachment
    host = a.host or host_name(a.label)
    addrgen = any(":" in address for address in a.addresses) if a.addrgen is None else a.addrgen
    # A host end that is routed to needs a link-local address: without one the kernel asks for no IPv6 neighbour.
    objects: list[KernelObject] = [
        Veth(a.netns, a.ifname, a.node_netns, host, a.mac, a.mtu, a.up, addrgen=addrgen, group=a.group),
        Veth(
            a.node_netns, host, a.netns, a.ifname, a.host_end_mac or host_mac(a.addresses), a.mtu,
            master=a.bridge, hairpin=a.hairpin and bool(a.bridge), addrgen=not a.bridge, group=a.group, altname=a.label,
        ),
    ]  # fmt: skip
    objects += [Address(a.netns, a.ifname, address) for address in a.addresses]
    for gateway in a.gateways:
        objects.append(Route(a.netns, "::/0" if ":" in gateway else "0.0.0.0/0", gateway, a.ifname))
    return objects
