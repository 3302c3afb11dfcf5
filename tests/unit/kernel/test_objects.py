"""Kernel objects: keys that say what is the same thing, texts that people read, marks that say what is podnet's."""

from __future__ import annotations

import pytest
from small_labs import neighbour

from podnet.kernel.objects import (
    PROTOCOL,
    Address,
    Attached,
    Bridge,
    KernelObject,
    Key,
    Loopback,
    Netns,
    NftTable,
    Process,
    Route,
    Sysctl,
    Veth,
    owned,
    replace,
)

GROUP = 9
MAC = "02:00:00:00:00:01"

# (object, its key, its text)
OBJECTS: list[tuple[KernelObject, Key, str]] = [
    (Netns("n"), ("netns", "n"), "namespace n"),
    (Loopback("n"), ("link", "n", "lo"), "link lo in n"),
    (Loopback(""), ("link", "", "lo"), "link lo in the machine"),
    (Bridge("n", "br0", MAC), ("link", "n", "br0"), "bridge br0 in n"),
    (Bridge("", "br0", MAC), ("link", "", "br0"), "bridge br0 in the machine"),
    (Veth("n", "v0", "p", "eth0", MAC), ("link", "n", "v0"), "veth v0 in n"),
    (Veth("n", "v0", "p", "eth0", MAC, altname="lab.p.eth0"), ("link", "n", "v0"), "veth v0 (lab.p.eth0) in n"),
    (Address("n", "v0", "10.0.0.1/24"), ("address", "n", "v0", "10.0.0.1/24"), "address 10.0.0.1/24 on v0 in n"),
    (Route("n", "::/0", "fd00::1", "v0"), ("route", "n", "254", "::/0", "0"), "route ::/0 via fd00::1 dev v0 in n"),
    (Route("n", "10.0.0.0/8", dev="v0", metric=5, table=7), ("route", "n", "7", "10.0.0.0/8", "5"),
     "route 10.0.0.0/8 dev v0 in n"),
    (Route("", "10.0.0.0/8", type="blackhole"), ("route", "", "254", "10.0.0.0/8", "0"),
     "route blackhole 10.0.0.0/8 in the machine"),
    (neighbour("n", "v0", "10.0.0.1", MAC), ("neighbours", "n", "v0", "4"), "permanent IPv4 neighbours of v0 in n"),
    (Sysctl("n", "net/ipv4/ip_forward", "1"), ("sysctl", "n", "net/ipv4/ip_forward"),
     "sysctl net.ipv4.ip_forward=1 in n"),
    (NftTable("n", "inet", "podnet", ""), ("nft", "n", "inet", "podnet"), "nftables table inet podnet in n"),
    (Process("n", "web/main", ("sleep", "1")), ("process", "n", "web/main"), "container web/main in n"),
    (Attached("p", "eth0", "n", "net", "{}", "/bin"), ("attachment", "p", "eth0"),
     "attachment of eth0 in p to CNI network net"),
]  # fmt: skip


@pytest.mark.parametrize(("each", "key", "text"), OBJECTS, ids=[row[2] for row in OBJECTS])
def test_key_and_text(each: KernelObject, key: Key, text: str) -> None:
    assert each.key == key
    assert str(each) == text
    assert each.netns == key[1]


def test_a_link_has_one_key_whatever_its_kind() -> None:
    """A veth that stands where a bridge should be is found, not overlooked."""
    assert Bridge("n", "x", MAC).key == Veth("n", "x", "p", "y", MAC).key


def test_the_ends_of_a_pair_point_at_each_other() -> None:
    near, far = Veth("n", "v0", "p", "eth0", MAC), Veth("p", "eth0", "n", "v0", MAC)
    assert (near.peer_key, far.peer_key) == (far.key, near.key)


ROUTE = Route("n", "10.0.0.0/8", "10.0.0.1", "v0")
# (what may differ, whether it is still the same route)
ROUTES = [
    ({"via": "10.0.0.2"}, True), ({"dev": "v1"}, True), ({"type": "blackhole"}, True), ({"protocol": 4}, True),
    ({"mtu": 1400}, True), ({"metric": 5}, False), ({"table": 7}, False), ({"dst": "10.0.0.0/9"}, False),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "same"), ROUTES, ids=[next(iter(row[0])) for row in ROUTES])
def test_a_route_is_known_by_prefix_metric_and_table_as_in_the_kernel(fields: dict[str, object], same: bool) -> None:
    assert (replace(ROUTE, **fields).key == ROUTE.key) is same  # type: ignore[arg-type]


# (object, whether podnet may delete it)
OWNED = [
    (Bridge("", "br0", MAC, group=GROUP), True),
    (Bridge("", "br0", MAC), False),
    (Bridge("", "br0", MAC, group=GROUP + 1), False),
    (Veth("", "v0", "p", "eth0", MAC, group=GROUP), True),
    (Veth("", "v0", "p", "eth0", MAC), False),
    (Address("", "v0", "10.0.0.1/24"), True),
    (Address("", "v0", "10.0.0.1/24", protocol=0), False),
    (Route("", "10.0.0.0/8", dev="v0", protocol=PROTOCOL), True),
    (Route("", "10.0.0.0/8", dev="v0", protocol=4), False),
    (neighbour("", "v0", "10.0.0.1", MAC), True),
    (NftTable("", "inet", "podnet", ""), True),
    (NftTable("", "inet", "podnet-lab", ""), True),
    (NftTable("", "inet", "podnetwork", ""), False),
    (NftTable("", "inet", "filter", ""), False),
    (Netns("n"), True),
    (Process("n", "web/main", ("true",)), True),
    (Sysctl("", "net/ipv4/ip_forward", "1"), False),
    (Loopback("n"), False),
]


@pytest.mark.parametrize(("each", "mine"), OWNED, ids=[f"{row[0]}-{row[1]}" for row in OWNED])
def test_what_is_podnets_carries_a_mark(each: KernelObject, mine: bool) -> None:
    assert owned(each, GROUP) is mine
