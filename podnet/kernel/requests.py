"""From operations to the rtnetlink messages that carry them out."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from podnet.errors import KernelError
from podnet.kernel import dump, netns, rtnl
from podnet.kernel.objects import Address, Bridge, Loopback, Neighbours, Peer, Qdisc, Route, Tunnel, Veth

if TYPE_CHECKING:
    from contextlib import ExitStack

    from podnet.kernel.places import Places
    from podnet.kernel.schedule import Op

__all__ = ["Message", "finish", "finish_peer", "maker", "messages"]

Message = tuple[int, int, bytes]


def messages(places: Places, op: Op) -> list[Message]:
    """What changes a thing that is there, makes one that is no link, or deletes one. Raises ``KernelError``."""
    match op.object:
        case Loopback(up=up) if op.verb == "set":
            return [rtnl.set_link("lo", up=up)]
        case Bridge() | Veth() | Tunnel() as link if op.verb == "set":
            return _changed_link(places, link, op.fields)
        case Bridge() | Veth() | Tunnel() as link:
            return [rtnl.delete_link(link.name)]
        case Qdisc() as qdisc:
            return _qdisc(places, qdisc, delete=op.verb == "delete")
        case Peer() as peer:
            return _entry(places, peer, delete=op.verb == "delete")
        case Address() as address if op.verb == "add":
            return [rtnl.add_address(address, places.device(address.netns, address.dev))]
        case Address() as address:
            index = places.find(address.netns, address.dev)
            return [rtnl.delete_address(address, index)] if index else []
        case Route() as route if op.verb == "delete":
            index = places.find(route.netns, route.dev) if route.dev else 0
            return [] if route.dev and not index else [rtnl.delete_route(route, index)]
        case Route() as route:
            index = places.device(route.netns, route.dev) if route.dev else 0
            return [rtnl.add_route(route, index, replace=op.verb == "set")]
        case Neighbours() as neighbours if op.verb == "delete":
            index = places.find(neighbours.netns, neighbours.dev)
            return rtnl.delete_neighbours(neighbours.entries, index) if index else []
        case Neighbours() as neighbours:
            return _neighbours(places, neighbours, replace=op.verb == "set")
        case other:
            msg = f"cannot {op.verb} {other}: not a thing of rtnetlink"
            raise KernelError(msg)


def maker(places: Places, op: Op, stack: ExitStack) -> Message:
    """What makes a link, down; files that it names are open as long as ``stack``. Raises ``KernelError``."""
    if isinstance(op.object, Bridge):
        return rtnl.add_bridge(op.object, places.reserve(op.object))
    if isinstance(op.object, Tunnel):
        return rtnl.add_tunnel(op.object, places.reserve(op.object))
    near, far = op.object, op.peer
    if not isinstance(near, Veth) or far is None:
        msg = "a veth is made with its other end"
        raise KernelError(msg, errno.EINVAL)
    places.wait(far.netns)
    try:
        fd = os.open(netns.path_of(far.netns), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        msg = f"no namespace {far.netns} under {netns.NETNS_DIR}"
        raise KernelError(msg, errno.ENOENT) from None
    stack.callback(os.close, fd)
    master = places.device(near.netns, near.master) if near.master else 0
    return rtnl.add_veth(near, far, fd, master, places.reserve_pair(near, far))


def finish(link: Bridge | Veth | Tunnel) -> list[Message]:
    """What the message that makes a link does not carry, while the link is still down."""
    messages = _altname(link)
    if isinstance(link, Bridge):
        return [*messages, rtnl.set_link(link.name, mtu=link.mtu)]
    hairpin = link.hairpin if isinstance(link, Veth) and link.master and link.hairpin else None
    # Before the link is up: the kernel makes the link-local address when it comes up.
    addrgen = None if link.addrgen else False
    if hairpin is not None or addrgen is not None:
        messages.append(rtnl.set_link(link.name, hairpin=hairpin, addrgen=addrgen))
    return messages


def finish_peer(places: Places, far: Veth) -> list[Message]:
    """The same for the far end of a new pair, which also becomes its bridge's port. Raises ``KernelError``."""
    master = [rtnl.set_link(far.name, master=places.device(far.netns, far.master))] if far.master else []
    return master + finish(far)


def _altname(link: Bridge | Veth | Tunnel) -> list[Message]:
    return [rtnl.add_altname(link.name, link.altname)] if link.altname else []


def _changed_link(places: Places, link: Bridge | Veth | Tunnel, fields: tuple[str, ...]) -> list[Message]:
    messages = []
    values = {name: getattr(link, name) for name in fields if name in {"up", "mac", "mtu", "group", "addrgen"}}
    if "master" in fields and isinstance(link, Veth):
        values["master"] = places.device(link.netns, link.master) if link.master else 0
    if values:
        messages.append(rtnl.set_link(link.name, **values))
    if isinstance(link, Veth) and link.master and {"hairpin", "master"} & set(fields):
        messages.append(rtnl.set_link(link.name, hairpin=link.hairpin))
    if "altname" in fields:
        rows = dump.links(places.socket(link.netns)).values()
        stale = next((row.altname for row in rows if row.name == link.name), "")
        messages += [rtnl.delete_altname(link.name, stale)] if stale else []
        messages += _altname(link)
    return messages


def _qdisc(places: Places, qdisc: Qdisc, *, delete: bool) -> list[Message]:
    from podnet.kernel import impairment, tc

    if delete:
        index = places.find(qdisc.netns, qdisc.dev)
        return [tc.delete_root(index)] if index else []
    return [impairment.add(qdisc, places.device(qdisc.netns, qdisc.dev))]


def _entry(places: Places, peer: Peer, *, delete: bool) -> list[Message]:
    from podnet.kernel import tunnel

    if delete:
        index = places.find(peer.netns, peer.dev)
        return [tunnel.delete_entry(peer, index)] if index else []
    return [tunnel.add_entry(peer, places.device(peer.netns, peer.dev))]


def _neighbours(places: Places, wanted: Neighbours, *, replace: bool) -> list[Message]:
    index = places.device(wanted.netns, wanted.dev)
    stale: list[Message] = []
    if replace:
        names = {index: wanted.dev}
        for was in dump.neighbours(places.socket(wanted.netns), wanted.netns, names):
            if isinstance(was, Neighbours) and was.key == wanted.key:
                kept = {address for address, _ in wanted.entries}
                stale = rtnl.delete_neighbours([e for e in was.entries if e[0] not in kept], index)
    return [*stale, (0, 0, rtnl.add_neighbours(wanted.entries, index))]
