"""What podnet relies on of a kernel where tunnels are concerned, type by type; for both kernels and both tiers."""

from __future__ import annotations

import errno
import os
from base64 import b64encode
from pathlib import Path
from typing import NamedTuple

import pytest

from podnet.errors import KernelError
from podnet.kernel.interface import Kernel
from podnet.kernel.objects import (
    Address,
    KernelObject,
    Loopback,
    Neighbours,
    Netns,
    Peer,
    Route,
    State,
    Tunnel,
    replace,
)
from podnet.kernel.schedule import Op

A = f"pnt{os.getpid()}-a"
GROUP = 0x706F1234

# Made with "wg genkey" and "wg pubkey", for these tests alone.
PRIVATE = "CF7xJLbfIdXcRrUBagAd+1wh2fH6qjl85d+xXkdBEm8="
PUBLIC = "9aGLzf4sqeewTt8uUZhM6qpmv0L1GVpKrc4Lai4wel8="
OTHER_PRIVATE = "kKzQkT0cufD91LQHb3k/gWO++mX11p1TqzfIUgtox0E="
OTHER_PUBLIC = "v0d8IX2jdof+7c/7ukyaXYlTZAp585cW/7Erz1dHGzE="
PEER_ONE = b64encode(bytes(range(32))).decode()
PEER_TWO = b64encode(bytes(range(100, 132))).decode()


class Case(NamedTuple):
    """One type of tunnel with two peers, and what hangs on it."""

    tunnel: Tunnel
    peers: tuple[Peer, ...] = ()
    moved: tuple[Peer, ...] = ()
    """The first peer elsewhere."""
    others: tuple[KernelObject, ...] = ()
    twin: Tunnel | None = None
    """Another name for the same thing, which the kernel refuses."""


def _vxlan(name: str, local: str, port: str) -> Tunnel:
    options = (("id", "7"), ("local", local), ("port", port))
    return Tunnel(
        A, name, "vxlan", options, "02:00:00:00:00:01", 1430, addrgen=":" in local, group=GROUP,
        altname=f"podnet.lab.node.{name}",
    )  # fmt: skip


def _vxlan_case(local: str, one: str, two: str, port: str) -> Case:
    tunnel = _vxlan("over0", local, port)
    return Case(
        tunnel,
        (
            Peer(A, "over0", "vxlan", "02:00:00:00:00:02", one),
            Peer(A, "over0", "vxlan", "02:00:00:00:00:03", two),
        ),
        (Peer(A, "over0", "vxlan", "02:00:00:00:00:02", two),),
        (
            Neighbours(A, "over0", 4, (("10.2.0.1", "02:00:00:00:00:02"), ("10.3.0.1", "02:00:00:00:00:03"))),
            Route(A, "10.2.0.0/24", "10.2.0.1", "over0", onlink=True),
            Route(A, "fd02::/64", "fe80::2", "over0"),
        ),
        replace(tunnel, name="over1", altname=""),
    )


CASES = {
    "vxlan": _vxlan_case("192.0.2.1", "192.0.2.2", "192.0.2.3", "8472"),
    "vxlan over IPv6": _vxlan_case("fd00::1", "fd00::2", "fd00::3", "4789"),
    "wireguard": Case(
        Tunnel(
            A, "over0", "wireguard", (("port", "51820"), ("public", PUBLIC)), mtu=1420, group=GROUP,
            altname="podnet.lab.node.over0",
        ),
        (
            Peer(A, "over0", "wireguard", PEER_ONE, "192.0.2.2:51820", ("10.2.0.0/24", "fd02::/64")),
            Peer(A, "over0", "wireguard", PEER_TWO, "[fd00::3]:51820", ("10.3.0.0/24",)),
        ),
        (Peer(A, "over0", "wireguard", PEER_ONE, "192.0.2.9:51821", ("10.2.0.0/24", "192.0.2.9/32")),),
        (Route(A, "10.2.0.0/24", dev="over0"), Route(A, "fd02::/64", dev="over0")),
    ),
    "ipip": Case(
        Tunnel(A, "over0", "ipip", (("local", "192.0.2.1"),), mtu=1480, group=GROUP, altname="podnet.lab.node.over0"),
        others=(Route(A, "10.2.0.0/24", "192.0.2.2", "over0", onlink=True),),
        twin=Tunnel(A, "over1", "ipip", (("local", "192.0.2.1"),), group=GROUP),
    ),
}  # fmt: skip


def keys(folder: Path) -> str:
    """A folder with the private keys of the cases."""
    from base64 import b64decode

    from podnet.kernel.wireguard import key_file

    for public, private in ((PUBLIC, PRIVATE), (OTHER_PUBLIC, OTHER_PRIVATE)):
        Path(key_file(str(folder), public)).write_bytes(b64decode(private))
    return str(folder)


def observed(kernel: Kernel) -> State:
    found = kernel.observe([A], (), (), [A])
    # Some modules put a tunnel of their own into every namespace.
    return {key: each for key, each in found.items() if getattr(each, "name", "") != "tunl0"}


def _there(*objects: KernelObject) -> State:
    return {each.key: each for each in (Netns(A), Loopback(A), *objects)}


def build(kernel: Kernel, case: Case) -> None:
    kernel.apply(
        [
            Op("add", Netns(A)),
            Op("set", Loopback(A), ("up",)),
            Op("add", Address(A, "lo", "192.0.2.1/32")),
            Op("add", case.tunnel),
            Op("set", case.tunnel, ("up",)),
            *(Op("add", each) for each in (*case.peers, *case.others)),
        ]
    )


def base(case: Case) -> tuple[KernelObject, ...]:
    return (case.tunnel, *case.peers, *case.others, Address(A, "lo", "192.0.2.1/32"))


def observed_in_every_field(kernel: Kernel, case: Case) -> None:
    build(kernel, case)
    assert observed(kernel) == _there(*base(case))


def every_field_that_can_change(kernel: Kernel, case: Case) -> None:
    build(kernel, case)
    new = replace(case.tunnel, mtu=1400, group=7)
    fields = ["mtu", "group"]
    if case.tunnel.type == "wireguard":
        new = replace(new, options=(("port", "51999"), ("public", OTHER_PUBLIC)))
        fields.append("options")
    kernel.apply([Op("set", new, tuple(fields))])
    assert observed(kernel) == _there(*base(case)) | {new.key: new}


def a_peer_moves_and_another_goes(kernel: Kernel, case: Case) -> None:
    build(kernel, case)
    kernel.apply([Op("set", case.moved[0], ("endpoint",)), Op("delete", case.peers[1])])
    left = {key: each for key, each in _there(*base(case)).items() if key != case.peers[1].key}
    assert observed(kernel) == left | {case.moved[0].key: case.moved[0]}
    kernel.apply([Op("delete", case.peers[1])])  # gone already: no error


def going_down_takes_routes_and_neighbours_but_no_peers(kernel: Kernel, case: Case) -> None:
    build(kernel, case)
    down = replace(case.tunnel, up=False)
    kernel.apply([Op("set", down, ("up",))])
    assert observed(kernel) == _there(down, *case.peers, Address(A, "lo", "192.0.2.1/32"))


def going_takes_everything_along(kernel: Kernel, case: Case) -> None:
    build(kernel, case)
    kernel.apply([Op("delete", case.tunnel)])
    assert observed(kernel) == _there(Address(A, "lo", "192.0.2.1/32"))
    kernel.apply([Op("delete", case.tunnel), *(Op("delete", each) for each in case.peers)])


def what_is_there_is_refused(kernel: Kernel, case: Case) -> None:
    build(kernel, case)
    refused = [(Op("add", case.tunnel), errno.EEXIST)]
    if case.twin is not None:
        refused.append((Op("add", case.twin), errno.EEXIST))
    refused += [(Op("add", replace(each, dev="over9")), errno.ENODEV) for each in case.peers[:1]]
    for op, number in refused:
        with pytest.raises(KernelError) as caught:
            kernel.apply([op])
        assert errno.errorcode.get(caught.value.errno) == errno.errorcode[number], str(caught.value)
        assert str(op) in str(caught.value)
        assert observed(kernel) == _there(*base(case))


REQUIREMENTS = [
    observed_in_every_field, every_field_that_can_change, a_peer_moves_and_another_goes,
    going_down_takes_routes_and_neighbours_but_no_peers, going_takes_everything_along, what_is_there_is_refused,
]  # fmt: skip


def rows(*names: str) -> list[tuple[str, str]]:
    """(type, requirement) of those that there are."""
    return [
        (name, each.__name__)
        for name in names
        for each in REQUIREMENTS
        if CASES[name].peers or each is not a_peer_moves_and_another_goes
    ]


def hold(kernel: Kernel, name: str, requirement: str) -> None:
    next(each for each in REQUIREMENTS if each.__name__ == requirement)(kernel, CASES[name])
