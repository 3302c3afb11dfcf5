"""From what namespaces were asked to objects: links with their other ends, tables as they are wanted, containers."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from podnet.kernel import dump, nft
from podnet.kernel.objects import ALTNAME, KernelObject, NftTable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from podnet.kernel.netlink import NetlinkSocket
    from podnet.kernel.process import ProcessStatus

__all__ = ["holds", "links", "pairs", "qdiscs", "tables", "tunnels"]

_TUNNELS = {"vxlan", "wireguard", "ipip"}


def pairs(
    rows: dict[str, dict[int, dump.LinkRow]], nsid: Callable[[str, str], int]
) -> dict[tuple[str, int], tuple[str, str]]:
    """For each veth end (namespace, index) its other end (namespace, name), as far as it is in ``rows``.

    Two ends belong together when each names the other's index, and the kernel's id of the namespace is
    that of the other end's: indexes repeat from namespace to namespace. ``nsid`` is by which id one knows another.
    """
    ends: dict[tuple[int, int], list[tuple[str, dump.LinkRow]]] = {}
    for name, links in rows.items():
        for row in links.values():
            if row.kind == "veth":
                ends.setdefault((row.index, row.peer_index), []).append((name, row))
    found: dict[tuple[str, int], tuple[str, str]] = {}
    # Asked in the order in which the answer is likely to be yes: an altname says whose the other end is.
    named = ((name, row) for near in ends.values() for name, row in near if row.altname)
    others = ((name, row) for near in ends.values() for name, row in near if not row.altname)
    for name, row in chain(named, others):
        if (name, row.index) in found:
            continue
        far = ends.get((row.peer_index, row.index), [])
        for other, end in sorted(far, key=lambda each: not row.altname.startswith(f"{ALTNAME}{each[0]}.")):
            same = (other, end.index) == (name, row.index) or (other, end.index) in found
            if not same and nsid(name, other) == row.peer_nsid:
                found[name, row.index] = (other, end.name)
                found[other, end.index] = (name, row.name)
                break
    return found


def links(
    name: str,
    rows: dict[int, dump.LinkRow],
    devices: dict[int, str],
    peers: dict[tuple[str, int], tuple[str, str]],
) -> list[KernelObject]:
    """The links of a namespace; what podnet has no object for is left out."""
    found: list[KernelObject] = []
    for row in rows.values():
        if row.name == "lo":
            found.append(row.loopback(name))
        elif row.kind == "bridge":
            found.append(row.bridge(name))
        elif row.kind == "veth":
            found.append(row.veth(name, devices.get(row.master, ""), *peers.get((name, row.index), ("?", "?"))))
    return found


def qdiscs(sock: NetlinkSocket, name: str, devices: dict[int, str]) -> list[KernelObject]:
    """The queueing disciplines of a namespace that podnet made."""
    from podnet.kernel import impairment

    return impairment.observe(sock, name, devices)


def tunnels(sock: NetlinkSocket, name: str, rows: dict[int, dump.LinkRow]) -> list[KernelObject]:
    """Tunnels and their peers; nothing of them is imported where there are none."""
    found = [row for row in rows.values() if row.kind in _TUNNELS]
    if not found:
        return []
    from podnet.kernel import tunnel

    return tunnel.observe(sock, name, found)


def tables(wanted: list[NftTable]) -> list[KernelObject]:
    """podnet's tables in the namespaces of ``wanted``, each as it is wanted where nft lists both alike."""
    by_key = {table.key: table for table in wanted}
    found: list[KernelObject] = []
    for name in dict.fromkeys(table.netns for table in wanted):
        for family, title in nft.list_tables(name):
            mine = title == "podnet" or title.startswith("podnet-")
            if not (mine if name else ("nft", name, family, title) in by_key):
                continue  # in the machine's own namespace, podnet's other tables are other labs'
            listing = nft.list_ruleset(name, family, title)
            want = by_key.get(("nft", name, family, title))
            same = want is not None and nft.alike(family, listing, want.ruleset)
            found.append(want if want is not None and same else NftTable(name, family, title, listing))
    return found


def holds(status: ProcessStatus, with_daemons: Collection[str] = ()) -> bool:
    """Whether a container is as it should be: running, or finished with success.

    In the namespaces ``with_daemons`` nothing ever finishes.
    """
    done = status.state == "exited" and status.exit_code == 0 and status.process.netns not in with_daemons
    return done or status.state == "running"
