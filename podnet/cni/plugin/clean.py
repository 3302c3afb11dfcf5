"""DEL and GC: what an attachment has left, found by its key alone, and taken away."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podnet.cni.plugin import ipam, parts
from podnet.cni.plugin.call import host_end, turn
from podnet.cni.spec.errors import INTERNAL, CNIError
from podnet.kernel.objects import Veth
from podnet.kernel.schedule import Op

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.cni.plugin.call import Call
    from podnet.ipam.book import Book
    from podnet.ipam.ledger import Ledger, Owner

__all__ = ["collect", "delete"]


def delete(call: Call) -> None:
    """DEL: all that there is of this attachment; what is gone already is no error. Raises ``CNIError`` at the end."""
    with turn(call.state, call.owner), call.ledger() as ledger, call.book(ledger) as book:
        call.passed("open")
        steps: list[Callable[[], object]] = [lambda: _clean(call, ledger, book, call.owner)]
        old = call.owner._replace(ifname="")  # as a very old host-local has written it down
        if ledger.holder(old) is not None:
            steps.append(lambda: _clean(call, ledger, book, old))
        if ipam.delegated(call.config):
            # As the reference plugins do: dhcp gives its address back by the container's interface.
            steps.insert(0, lambda: ipam.delegate(call.machine, call.config, call.environ, "DEL"))
        parts.all_of(steps)


def collect(call: Call) -> None:
    """GC: all attachments of this network that are not valid. Raises ``CNIError`` with all that failed, at the end."""
    valid, network = call.config.valid_attachments, call.config.name
    if valid is None:
        raise CNIError(INTERNAL, "GC without the list of valid attachments")
    with call.ledger() as ledger, call.book(ledger) as book:
        known = {each.owner for each in ledger.holders(network)} | {*book.part_owners(network)}
        alive = {*valid, *((container_id, "") for container_id, _ in valid)}
        dead = sorted(each for each in known if (each.container_id, each.ifname) not in alive)
        steps: list[Callable[[], object]] = [lambda owner=owner: _collect(call, ledger, book, owner) for owner in dead]  # type: ignore[misc]
        steps.append(lambda: parts.drop_tables(call.machine, book, network))
        if ipam.delegated(call.config):
            steps.append(lambda: ipam.delegate(call.machine, call.config, call.environ, "GC"))
        parts.all_of(steps)


def _collect(call: Call, ledger: Ledger, book: Book, owner: Owner) -> None:
    with turn(call.state, owner):
        _clean(call, ledger, book, owner)


def _clean(call: Call, ledger: Ledger, book: Book, owner: Owner) -> None:
    """Link and parts, then what is written down of it: a call that is killed can be made again.

    Link and parts at once, because the kernel makes both wait for RCU.
    """
    seen = host_end(call.machine, owner)
    link = (lambda: call.machine.delete_link(seen.name)) if seen is not None else lambda: None
    parts.remove(call.machine, book, owner, meanwhile=link)
    call.passed("removal")
    holder = ledger.holder(owner)
    if holder is not None and not holder.inode:
        _clean_imported(call, ledger, owner)
    elif holder is not None or ledger.leases(owner):
        with ledger.transaction():
            ledger.forget(owner)


def _clean_imported(call: Call, ledger: Ledger, owner: Owner) -> None:
    """What another plugin has made: the container's interface, where it is known, and the reservation."""
    netns, ifname = call.environment.netns, call.environment.ifname
    ours = (owner.container_id, owner.ifname or ifname) == (call.environment.container_id, ifname)
    inode = call.machine.inode(netns) if ours else 0
    if inode and inode != os.stat("/proc/thread-self/ns/net").st_ino:
        seen = call.machine.link(netns, ifname)
        if seen is not None and seen.kind == "veth":
            call.machine.apply([Op("delete", Veth(netns, ifname, "", "", seen.mac))])
    from podnet.ipam.hostlocal import forget

    forget(ledger, owner, call.reservations)
