"""What podnet relies on of a kernel: one table of requirements, for the kernel in memory and the real one."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator

import pytest

from podnet.errors import KernelError
from podnet.kernel.fake import FakeKernel
from podnet.kernel.interface import Kernel
from podnet.kernel.linux import LinuxKernel
from podnet.kernel.objects import (
    Address,
    Bridge,
    KernelObject,
    Loopback,
    Neighbours,
    Netns,
    NftTable,
    Qdisc,
    Route,
    State,
    Sysctl,
    Veth,
    replace,
)
from podnet.kernel.schedule import Op


def neighbour(netns: str, dev: str, address: str, mac: str) -> Neighbours:
    """One permanent neighbour."""
    return Neighbours(netns, dev, 6 if ":" in address else 4, ((address, mac),))


PREFIX = f"pnc{os.getpid()}"
A, B, C = f"{PREFIX}-a", f"{PREFIX}-b", f"{PREFIX}-c"
GROUP = 0x706F1234
RP_FILTER = "net/ipv4/conf/v0/rp_filter"
DISABLE_IPV6 = "net/ipv6/conf/v0/disable_ipv6"
RULES = "chain post {\ntype nat hook postrouting priority 100;\nip saddr 10.0.0.0/24 masquerade\n}"


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.kernel)])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    if request.param == "fake":
        yield FakeKernel()
        return
    real = LinuxKernel()
    try:
        yield real
    finally:
        left = sorted(name for name in real.namespaces() if name.startswith(PREFIX))
        real.apply([Op("delete", Netns(name)) for name in left])
        real.close()


# -- the objects that the tables below are written in -------------------------------------------------------

BRIDGE = Bridge(A, "br0", "02:00:00:00:00:10", 1450, up=True, group=GROUP, altname="podnet.lab.node.br0")
NEAR = Veth(
    A, "v0", B, "eth0", "02:00:00:00:00:01", 1450, up=True, master="br0", hairpin=True, group=GROUP,
    altname="podnet.lab.pod.eth0",
)  # fmt: skip
FAR = Veth(B, "eth0", A, "v0", "02:00:00:00:00:02", 1450, up=True, group=GROUP)
WIRE = Veth(A, "w0", B, "w0", "02:00:00:00:00:03", addrgen=True, group=GROUP)
WIRE_END = Veth(B, "w0", A, "w0", "02:00:00:00:00:04", addrgen=True, group=GROUP)
GATEWAY, GATEWAY6 = Address(A, "br0", "10.0.0.1/24"), Address(A, "br0", "fd00::1/64")
POD, POD6 = Address(B, "eth0", "10.0.0.2/24"), Address(B, "eth0", "fd00::2/64")
DEFAULT, DEFAULT6 = Route(B, "0.0.0.0/0", "10.0.0.1", "eth0"), Route(B, "::/0", "fd00::1", "eth0")
NEIGHBOUR = neighbour(B, "eth0", "10.0.0.1", BRIDGE.mac)
OTHER_NEIGHBOUR = neighbour(B, "eth0", "10.0.0.1", "02:00:00:00:00:99")
NEIGHBOUR6 = neighbour(B, "eth0", "fd00::1", BRIDGE.mac)

SLOW = Qdisc(A, "br0", "tbf", (("rate", 125_000),))
SLOWER = replace(SLOW, settings=(("rate", 12_500),))
FAST = replace(SLOW, settings=(("rate", 12_500_000_000),))  # more than 32 bits hold

NETS = [Op("add", Netns(A)), Op("add", Netns(B))]
LINKS = [
    *NETS,
    Op("add", BRIDGE),
    Op("add", replace(NEAR, up=False), peer=replace(FAR, up=False)),
    *(Op("set", Loopback(name, up=True), ("up",)) for name in (A, B)),
    *(Op("set", each, ("up",)) for each in (FAR, NEAR, BRIDGE)),
]
LAB = [*LINKS] + [
    Op("add", each)
    for each in (GATEWAY, GATEWAY6, POD, POD6, NEIGHBOUR, NEIGHBOUR6, DEFAULT, DEFAULT6)
]  # fmt: skip


def differences(found: State, wanted: State) -> list[str]:
    """What two states differ in, readable."""
    return [f"found {found.get(key)!r}, not {wanted.get(key)!r}" for key in sorted(found.keys() | wanted.keys())
            if found.get(key) != wanted.get(key)]  # fmt: skip


def state(*objects: KernelObject) -> State:
    return {each.key: each for each in objects}


def observed(kernel: Kernel, *also: KernelObject) -> State:
    """All namespaces of the test, with the sysctls and tables in ``also``."""
    sysctls = [(each.netns, each.name) for each in also if isinstance(each, Sysctl)]
    return kernel.observe(
        [A, B, C], sysctls, [each for each in also if isinstance(each, NftTable)], [A, B, C], [A, B, C]
    )


def test_what_was_added_is_observed_in_every_field(kernel: Kernel) -> None:
    kernel.apply(LAB)
    assert observed(kernel) == state(
        Netns(A), Netns(B), Loopback(A, up=True), Loopback(B, up=True), BRIDGE, NEAR, FAR, GATEWAY, GATEWAY6, POD, POD6,
        NEIGHBOUR, NEIGHBOUR6, DEFAULT, DEFAULT6,
    )  # fmt: skip
    assert {A, B} <= kernel.namespaces()


def test_progress_ends_at_the_number_of_operations(kernel: Kernel) -> None:
    told: list[int] = []
    kernel.apply(LAB, told.append)
    assert told[-1] == len(LAB)
    assert told == sorted(told)


def test_observing_names_only_what_was_asked_and_leaves_out_what_is_not_there(kernel: Kernel) -> None:
    kernel.apply(LAB)
    assert {each.netns for each in kernel.observe([B, C]).values()} == {B}
    assert kernel.observe([C], [(C, "net/ipv4/ip_forward")]) == {}


# (what it shows, operations after LINKS, what is then there besides or instead)
ADDED = [
    ("a new namespace has a loopback that is down", [Op("add", Netns(C))], [Netns(C), Loopback(C, up=False)]),
    (
        "links come down, whatever is asked",
        [Op("add", Bridge(A, "br1", "02:00:00:00:00:11", up=True)), Op("add", WIRE, peer=WIRE_END)],
        [Bridge(A, "br1", "02:00:00:00:00:11", up=False), replace(WIRE, up=False), replace(WIRE_END, up=False)],
    ),
    (
        "both ends of a pair keep their marks and settings",
        [
            Op(
                "add",
                replace(WIRE, altname="podnet.lab.a.w0"),
                peer=replace(WIRE_END, altname="podnet.lab.b.w0", addrgen=False),
            )
        ],
        [
            replace(WIRE, altname="podnet.lab.a.w0", up=False),
            replace(WIRE_END, altname="podnet.lab.b.w0", addrgen=False, up=False),
        ],
    ),
    (
        "both ends of a pair may be ports, in two namespaces",
        [
            Op("add", Bridge(B, "br1", "02:00:00:00:00:11")),
            Op("add", replace(WIRE, master="br0"), peer=replace(WIRE_END, master="br1", hairpin=True)),
        ],
        [
            Bridge(B, "br1", "02:00:00:00:00:11", up=False),
            replace(WIRE, master="br0", up=False),
            replace(WIRE_END, master="br1", hairpin=True, up=False),
        ],
    ),
    ("an address without a mark is somebody else's", [Op("add", replace(POD, protocol=0))], [replace(POD, protocol=0)]),
    (
        "one IPv4 address may have two masks",
        [Op("add", POD), Op("add", replace(POD, address="10.0.0.2/16"))],
        [POD, replace(POD, address="10.0.0.2/16")],
    ),
    (
        "routes keep gateway, source, metric, MTU, MSS, scope, type and mark",
        [
            Op("add", POD),
            Op("add", POD6),
            Op("add", Route(B, "10.1.0.0/16", "10.0.0.1", "eth0", src="10.0.0.2", metric=5, mtu=1400)),
            Op("add", Route(B, "fd01::/64", "fd00::1", "eth0", src="fd00::2", metric=5, mtu=1400)),
            Op("add", Route(B, "10.2.0.0/16", dev="eth0", protocol=4)),
            Op("add", Route(B, "10.4.0.0/16", "10.0.0.1", "eth0", mtu=1400, advmss=1300, scope=200)),
            Op("add", Route(B, "10.5.0.0/16", dev="eth0", scope=0)),
            Op("add", Route(B, "fd04::/64", "fd00::1", "eth0", advmss=1300)),
            Op("add", Route(B, "10.3.0.0/16", type="blackhole")),
            Op("add", Route(B, "fd03::/64", type="unreachable")),
            Op("add", Route(B, "10.1.0.0/16", "10.0.0.9", "eth0", table=100)),
        ],
        [
            POD,
            POD6,
            Route(B, "10.1.0.0/16", "10.0.0.1", "eth0", src="10.0.0.2", metric=5, mtu=1400),
            Route(B, "fd01::/64", "fd00::1", "eth0", src="fd00::2", metric=5, mtu=1400),
            Route(B, "10.2.0.0/16", dev="eth0", protocol=4),
            Route(B, "10.4.0.0/16", "10.0.0.1", "eth0", mtu=1400, advmss=1300, scope=200),
            Route(B, "10.5.0.0/16", dev="eth0", scope=0),
            Route(B, "fd04::/64", "fd00::1", "eth0", advmss=1300),
            Route(B, "10.3.0.0/16", type="blackhole"),
            Route(B, "fd03::/64", type="unreachable"),
            Route(B, "10.1.0.0/16", "10.0.0.9", "eth0", table=100),
        ],
    ),
    (
        "a gateway may be reached by a route",
        [Op("add", Route(B, "169.254.1.1/32", dev="eth0")), Op("add", Route(B, "0.0.0.0/0", "169.254.1.1", "eth0"))],
        [Route(B, "169.254.1.1/32", dev="eth0"), Route(B, "0.0.0.0/0", "169.254.1.1", "eth0")],
    ),
    (
        "a link-local gateway needs no address",
        [Op("add", Route(B, "::/0", "fe80::1", "eth0"))],
        [Route(B, "::/0", "fe80::1", "eth0")],
    ),
    (
        "an address on loopback and one of the link's own",
        [Op("add", Address(A, "lo", "192.0.2.1/32")), Op("add", Address(A, "br0", "fe80::1/64"))],
        [Address(A, "lo", "192.0.2.1/32"), Address(A, "br0", "fe80::1/64")],
    ),
    (
        "a neighbour is written over the one that is there",
        [Op("add", POD), Op("add", NEIGHBOUR), Op("add", OTHER_NEIGHBOUR)],
        [POD, OTHER_NEIGHBOUR],
    ),
    (
        "sysctls of a namespace and of a device",
        [Op("set", Sysctl(A, "net/ipv4/ip_forward", "1")), Op("set", Sysctl(A, RP_FILTER, "2"))],
        [Sysctl(A, "net/ipv4/ip_forward", "1"), Sysctl(A, RP_FILTER, "2")],
    ),
    ("an impairment", [Op("add", SLOW)], [SLOW]),
    ("another one, once the first is gone", [Op("add", SLOW), Op("delete", SLOW), Op("add", SLOWER)], [SLOWER]),
    ("a table", [Op("add", NftTable(A, "ip", "podnet", RULES))], [NftTable(A, "ip", "podnet", RULES)]),
    (
        "a table is replaced as a whole",
        [
            Op("add", NftTable(A, "ip", "podnet", "chain old { }")),
            Op("set", NftTable(A, "ip", "podnet", RULES), ("ruleset",)),
        ],
        [NftTable(A, "ip", "podnet", RULES)],
    ),
]


@pytest.mark.parametrize(("ops", "there"), [row[1:] for row in ADDED], ids=[row[0] for row in ADDED])
def test_add(kernel: Kernel, ops: list[Op], there: list[KernelObject]) -> None:
    kernel.apply(LINKS)
    before = observed(kernel, *there)
    kernel.apply(ops)
    assert differences(observed(kernel, *there), before | state(*there)) == []


# (what it shows, operations after LAB, what is then there instead)
CHANGED = [
    (
        "every field of a bridge",
        [Op("set", replace(BRIDGE, mac="02:00:00:00:00:77", mtu=1400, group=7), ("mac", "mtu", "group"))],
        [replace(BRIDGE, mac="02:00:00:00:00:77", mtu=1400, group=7)],
    ),
    (
        "every field of a port",
        [Op("set", replace(NEAR, mac="02:00:00:00:00:77", mtu=1400, group=7, hairpin=False, addrgen=True),
            ("mac", "mtu", "group", "hairpin", "addrgen"))],
        [replace(NEAR, mac="02:00:00:00:00:77", mtu=1400, group=7, hairpin=False, addrgen=True)],
    ),
    ("another altname", [Op("set", replace(NEAR, altname="podnet.lab.b.eth0"), ("altname",))],
     [replace(NEAR, altname="podnet.lab.b.eth0")]),
    ("no altname", [Op("set", replace(BRIDGE, altname=""), ("altname",))], [replace(BRIDGE, altname="")]),
    ("out of the bridge", [Op("set", replace(NEAR, master="", hairpin=False), ("master", "hairpin"))],
     [replace(NEAR, master="", hairpin=False)]),
    (
        "into another bridge, with its flag",
        [Op("add", Bridge(A, "br1", "02:00:00:00:00:11")), Op("set", replace(NEAR, master="br1"), ("master",))],
        [Bridge(A, "br1", "02:00:00:00:00:11", up=False), replace(NEAR, master="br1")],
    ),
    ("another gateway", [Op("set", replace(DEFAULT, via="10.0.0.9"), ("via",))], [replace(DEFAULT, via="10.0.0.9")]),
    ("another IPv6 gateway", [Op("set", replace(DEFAULT6, via="fd00::9"), ("via",))],
     [replace(DEFAULT6, via="fd00::9")]),
    ("a route becomes a blackhole", [Op("set", Route(B, "::/0", type="blackhole"), ("type",))],
     [Route(B, "::/0", type="blackhole")]),
    ("setting a route that is gone makes it", [Op("set", Route(B, "10.5.0.0/16", "10.0.0.1", "eth0"), ("via",))],
     [Route(B, "10.5.0.0/16", "10.0.0.1", "eth0")]),
    ("a neighbour", [Op("set", OTHER_NEIGHBOUR, ("entries",))],
     [OTHER_NEIGHBOUR]),
]  # fmt: skip


@pytest.mark.parametrize(("ops", "there"), [row[1:] for row in CHANGED], ids=[row[0] for row in CHANGED])
def test_set(kernel: Kernel, ops: list[Op], there: list[KernelObject]) -> None:
    kernel.apply(LAB)
    before = observed(kernel)
    kernel.apply(ops)
    assert differences(observed(kernel), before | state(*there)) == []


SECOND = replace(POD, address="10.0.0.3/24")
OTHER_NET = replace(POD, address="10.9.0.1/24")
VIA_SOURCE = Route(B, "10.6.0.0/16", dev="eth0", src="10.9.0.1")
VIA_SOURCE6 = Route(B, "fd06::/64", dev="eth0", src="fd09::1")
ADDRESS9 = Address(B, "eth0", "fd09::1/64")
BLACKHOLE, BLACKHOLE6 = Route(B, "10.7.0.0/16", type="blackhole"), Route(B, "fd07::/64", type="blackhole")
IPV4 = (POD, DEFAULT, NEIGHBOUR)
TABLE = NftTable(A, "ip", "podnet", RULES)

# (what it shows, operations after LAB, the operation, what is gone, what is changed)
TAKEN_ALONG: list[tuple[str, list[Op], Op, tuple[KernelObject, ...], tuple[KernelObject, ...]]] = [
    ("a namespace takes its content and the far ends of its pairs",
     [], Op("delete", Netns(B)),
     (Netns(B), Loopback(B), NEAR, FAR, POD, POD6, DEFAULT, DEFAULT6, NEIGHBOUR, NEIGHBOUR6), ()),
    ("one end of a pair takes the other, and all that is on both",
     [], Op("delete", NEAR), (NEAR, FAR, POD, POD6, DEFAULT, DEFAULT6, NEIGHBOUR, NEIGHBOUR6), ()),
    ("a bridge frees its ports", [], Op("delete", BRIDGE),
     (BRIDGE, GATEWAY, GATEWAY6), (replace(NEAR, master="", hairpin=False),)),
    ("a link that goes down loses routes, neighbours and IPv6",
     [], Op("set", replace(FAR, up=False), ("up",)),
     (POD6, DEFAULT, DEFAULT6, NEIGHBOUR, NEIGHBOUR6), (replace(FAR, up=False),)),
    ("the end of a pair whose other end goes down loses nothing",
     [], Op("set", replace(NEAR, up=False), ("up",)), (), (replace(NEAR, up=False),)),
    ("another MAC drops the neighbours",
     [], Op("set", replace(FAR, mac="02:00:00:00:00:77"), ("mac",)),
     (NEIGHBOUR, NEIGHBOUR6), (replace(FAR, mac="02:00:00:00:00:77"),)),
    ("an MTU too small for IPv6 drops it",
     [], Op("set", replace(FAR, mtu=1000), ("mtu",)),
     (POD6, DEFAULT6, NEIGHBOUR6), (replace(FAR, mtu=1000, addrgen=True),)),
    ("the last IPv4 address takes IPv4 along", [], Op("delete", POD), IPV4, ()),
    ("the last IPv6 address leaves IPv6's routes", [], Op("delete", POD6), (POD6,), ()),
    ("an address of another network leaves the routes", [Op("add", OTHER_NET)], Op("delete", POD), (POD,), ()),
    ("an address takes IPv4 routes that name it as their source",
     [Op("add", OTHER_NET), Op("add", VIA_SOURCE)], Op("delete", OTHER_NET), (OTHER_NET, VIA_SOURCE), ()),
    ("IPv6 routes forget their source",
     [Op("add", ADDRESS9), Op("add", VIA_SOURCE6)], Op("delete", ADDRESS9),
     (ADDRESS9,), (replace(VIA_SOURCE6, src=""),)),
    ("a link takes its impairment along", [Op("add", SLOW)], Op("delete", BRIDGE),
     (SLOW, BRIDGE, GATEWAY, GATEWAY6), (replace(NEAR, master="", hairpin=False),)),
    ("an impairment goes alone", [Op("add", FAST)], Op("delete", FAST), (FAST,), ()),
    ("a link that goes down keeps its impairment", [Op("add", SLOW)], Op("set", replace(BRIDGE, up=False), ("up",)),
     (GATEWAY6,), (replace(BRIDGE, up=False),)),
    ("a later address of a network goes alone", [Op("add", SECOND)], Op("delete", SECOND), (SECOND,), ()),
    ("the first address of a network takes the later ones along",
     [Op("set", Sysctl(B, "net/ipv4/conf/eth0/promote_secondaries", "0"), ("value",)), Op("add", SECOND)],
     Op("delete", POD), (*IPV4, SECOND), ()),
    ("loopback that goes down drops IPv6 blackholes",
     [Op("add", BLACKHOLE), Op("add", BLACKHOLE6)], Op("set", Loopback(B, up=False), ("up",)),
     (BLACKHOLE6,), (Loopback(B, up=False),)),
    ("a table goes alone", [Op("add", TABLE)], Op("delete", TABLE), (TABLE,), ()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ops", "op", "gone", "changed"), [r[1:] for r in TAKEN_ALONG], ids=[r[0] for r in TAKEN_ALONG]
)
def test_what_goes_along(
    kernel: Kernel, ops: list[Op], op: Op, gone: tuple[KernelObject, ...], changed: tuple[KernelObject, ...]
) -> None:
    kernel.apply([*LAB, *ops])
    before = observed(kernel, TABLE)
    kernel.apply([op])
    _settle(kernel, gone)
    left = {key: each for key, each in before.items() if key not in state(*gone)}
    assert differences(observed(kernel, TABLE), left | state(*changed)) == []


def _settle(kernel: Kernel, gone: tuple[KernelObject, ...]) -> None:
    """A namespace is taken apart in the background: the far ends of its pairs go a little later."""
    deadline = time.monotonic() + 30
    while state(*gone).keys() & observed(kernel, TABLE).keys() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_device_takes_its_sysctls_along(kernel: Kernel) -> None:
    kernel.apply([*LAB, Op("set", Sysctl(A, RP_FILTER, "2"), ("value",)), Op("delete", NEAR)])
    assert kernel.observe([A], [(A, RP_FILTER)]).get(("sysctl", A, RP_FILTER)) is None


GONE = [
    Op("delete", each)
    for each in (
        Netns(C), Bridge(A, "br9", "02:00:00:00:00:77"), replace(WIRE), replace(POD, address="10.0.0.99/24"),
        replace(POD, dev="eth9"), Route(B, "10.9.0.0/16", "10.0.0.1", "eth0"), replace(DEFAULT, dev="eth9"),
        neighbour(B, "eth1", "10.0.0.99", BRIDGE.mac), SLOW, replace(SLOW, dev="br9"),
        NftTable(A, "ip", "podnet-9", ""),
    )
]  # fmt: skip


@pytest.mark.parametrize("op", GONE, ids=str)
def test_deleting_what_is_gone_is_no_error(kernel: Kernel, op: Op) -> None:
    kernel.apply(LAB)
    before = observed(kernel)
    kernel.apply([op])
    assert differences(observed(kernel), before) == []


LONG = "a234567890123456"  # 16 bytes
# (operation after LAB, errno)
REFUSED = [
    (Op("add", Netns(A)), errno.EEXIST),
    (Op("add", BRIDGE), errno.EEXIST),
    (Op("add", Bridge(A, "v0", "02:00:00:00:00:77")), errno.EEXIST),
    (Op("add", Bridge(A, "lo", "02:00:00:00:00:77")), errno.EEXIST),
    (Op("add", WIRE, peer=replace(WIRE_END, name="eth0")), errno.EEXIST),
    (Op("add", replace(WIRE, name="v0"), peer=WIRE_END), errno.EEXIST),
    (Op("add", GATEWAY), errno.EEXIST),
    (Op("add", GATEWAY6), errno.EEXIST),
    (Op("add", replace(GATEWAY6, address="fd00::1/80")), errno.EEXIST),
    (Op("add", DEFAULT), errno.EEXIST),
    (Op("add", DEFAULT6), errno.EEXIST),
    (Op("add", replace(DEFAULT, via="10.0.0.9")), errno.EEXIST),
    (Op("add", Bridge(A, LONG, "02:00:00:00:00:77")), errno.ERANGE),
    (Op("add", Bridge(C, "br0", "02:00:00:00:00:77")), errno.ENOENT),
    (Op("add", WIRE, peer=replace(WIRE_END, netns=C)), errno.ENOENT),
    (Op("add", replace(POD, netns=C)), errno.ENOENT),
    (Op("set", Sysctl(C, "net/ipv4/ip_forward", "1"), ("value",)), errno.ENOENT),
    (Op("set", Sysctl(A, "net/ipv4/conf/v9/rp_filter", "1"), ("value",)), errno.ENOENT),
    (Op("set", replace(NEAR, name="v9"), ("up",)), errno.ENODEV),
    (Op("add", replace(WIRE, master="br9"), peer=WIRE_END), errno.ENODEV),
    (Op("set", replace(NEAR, master="br9"), ("master",)), errno.ENODEV),
    (Op("add", replace(POD, dev="eth9")), errno.ENODEV),
    (Op("add", Route(B, "10.5.0.0/16", dev="eth9")), errno.ENODEV),
    (Op("add", replace(NEIGHBOUR, dev="eth9")), errno.ENODEV),
    (Op("add", replace(SLOW, dev="br9")), errno.ENODEV),
    (Op("add", Route(B, "10.5.0.0/16", "10.9.0.1", "eth0")), errno.ENETUNREACH),
    (Op("add", Route(B, "fd05::/64", "fd09::1", "eth0")), errno.EHOSTUNREACH),
    (Op("add", Route(B, "10.5.0.0/16", dev="eth0", src="10.0.0.99")), errno.EINVAL),
    (Op("add", Route(B, "fd05::/64", dev="eth0", src="fd00::99")), errno.EINVAL),
]


@pytest.mark.parametrize(("op", "number"), REFUSED, ids=[f"{op}-{errno.errorcode[n]}" for op, n in REFUSED])
def test_refusals_carry_the_kernels_errno_and_name_the_operation(kernel: Kernel, op: Op, number: int) -> None:
    kernel.apply(LAB)
    before = observed(kernel)
    with pytest.raises(KernelError) as caught:
        kernel.apply([op])
    assert errno.errorcode.get(caught.value.errno) == errno.errorcode[number], str(caught.value)
    assert str(op) in str(caught.value)
    assert differences(observed(kernel), before) == []


def test_a_table_that_is_there_is_set_not_added(kernel: Kernel) -> None:
    """To make sure that none is there takes an RCU wait; nft's refusal carries no errno."""
    kernel.apply([*LAB, Op("add", TABLE)])
    with pytest.raises(KernelError, match=re.escape(f"cannot add {TABLE}")):
        kernel.apply([Op("add", TABLE)])
    assert observed(kernel, TABLE)[TABLE.key] == TABLE


@pytest.mark.parametrize("dst", ["10.5.0.0/16", "fd05::/64"])
def test_no_route_over_a_link_that_is_down(kernel: Kernel, dst: str) -> None:
    kernel.apply([*NETS, Op("add", BRIDGE)])
    with pytest.raises(KernelError) as caught:
        kernel.apply([Op("add", Route(A, dst, dev="br0"))])
    assert caught.value.errno == errno.ENETDOWN


def test_operations_before_the_refused_one_are_done(kernel: Kernel) -> None:
    kernel.apply(LINKS)
    with pytest.raises(KernelError, match="Nexthop has invalid gateway"):
        kernel.apply([Op("add", POD), Op("add", replace(DEFAULT, via="10.9.0.1")), Op("add", Netns(C))])
    assert observed(kernel)[POD.key] == POD
    assert C not in kernel.namespaces()


@pytest.mark.stress
def test_a_bridge_takes_1023_ports(kernel: Kernel) -> None:
    def wire(number: int) -> Op:
        near = Veth(A, f"x{number}", B, f"x{number}", f"02:01:00:00:{number >> 8:02x}:{number & 255:02x}", master="br0")
        far = Veth(B, f"x{number}", A, f"x{number}", f"02:02:00:00:{number >> 8:02x}:{number & 255:02x}")
        return Op("add", replace(near, up=False), peer=replace(far, up=False))

    kernel.apply([*NETS, Op("add", BRIDGE), *map(wire, range(1023))])
    with pytest.raises(KernelError) as caught:
        kernel.apply([wire(1023)])
    assert caught.value.errno == errno.EXFULL
