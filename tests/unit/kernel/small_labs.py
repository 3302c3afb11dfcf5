"""Small labs as kernel state: drawn by hypothesis, and one with everything in it by hand."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

from podnet.kernel.diff import diff
from podnet.kernel.fake import FakeKernel
from podnet.kernel.objects import (
    Address,
    Bridge,
    KernelObject,
    Loopback,
    Neighbours,
    Netns,
    NftTable,
    Process,
    Route,
    State,
    Sysctl,
    Veth,
)
from podnet.kernel.schedule import schedule


def neighbour(netns: str, dev: str, address: str, mac: str) -> Neighbours:
    """One permanent neighbour."""
    return Neighbours(netns, dev, 6 if ":" in address else 4, ((address, mac),))


GROUP = 0x706F0001
OTHER_GROUP = 7


def state(*objects: KernelObject) -> State:
    found = {each.key: each for each in objects}
    assert len(found) == len(objects), "two objects with one key"
    return found


def pair(near: Veth, **far: object) -> tuple[Veth, Veth]:
    """Both ends of a veth; ``far`` is what the far end has besides its name."""
    other = Veth(near.peer_netns, near.peer, near.netns, near.name, mtu=near.mtu, group=near.group, **far)  # type: ignore[arg-type]
    return near, other


# What others have put onto the machine: every test has it, and every test must leave it alone.
FOREIGN = state(
    Netns("other"),
    Bridge("", "docker0", "02:42:00:00:00:01", group=0),
    Veth("", "veth0a", "other", "eth0", "02:42:00:00:00:02", master="docker0", hairpin=True, addrgen=True),
    Veth("other", "eth0", "", "veth0a", "02:42:00:00:00:03", addrgen=True),
    # A port that somebody hung on podnet's bridge in the machine's namespace, and a pair with another lab's mark.
    Veth("", "tap0", "", "tap1", "02:42:00:00:00:04", group=OTHER_GROUP),
    Veth("", "tap1", "", "tap0", "02:42:00:00:00:05", group=OTHER_GROUP),
    Address("", "docker0", "172.17.0.1/16", protocol=0),
    Address("", "docker0", "fd42::1/64", protocol=0),
    Route("", "172.18.0.0/16", via="172.17.0.9", dev="docker0", protocol=4),
    NftTable("", "ip", "filter", "chain input { }"),
    Sysctl("", "net/ipv4/conf/docker0/rp_filter", "2"),
)


def lab(draw: st.DrawFn) -> State:
    """A lab of up to two nodes and three pods in which everything that can differ is drawn."""
    some = st.integers(0, 3)

    def chance(of: int = 2) -> bool:
        return draw(st.integers(0, of)) == of

    def mac(*parts: int) -> str:
        # The last byte is drawn: a MAC that changes is an update.
        return ":".join(f"{part:02x}" for part in (2, 0, *parts, draw(st.sampled_from((0, 0, 0, 1)))))

    objects: list[KernelObject] = []
    nodes = draw(st.sampled_from((["n1"], ["n1", "n2"], ["", "n2"])))
    for number, node in enumerate(nodes, start=1):
        if node:
            objects += [Netns(node), Loopback(node, up=not chance(5))]
        mtu = draw(st.sampled_from((1500, 1500, 1400)))
        objects.append(
            Bridge(node, "podbr", mac(number, 0, 0), mtu, group=GROUP, altname=f"lab.{node or 'host'}.podbr")
        )
        objects += draw(
            st.permutations(
                [Address(node, "podbr", f"10.{number}.0.1/24"), Address(node, "podbr", f"fd00:{number}::1/64")]
                + [Address(node, "podbr", f"10.{number}.0.{last}/24") for last in (2, 3) if chance()]
            )
        )
        if chance(1):
            objects.append(Sysctl(node, "net/ipv4/ip_forward", "1"))
        if chance(1):
            objects.append(NftTable(node, "inet", "podnet-lab", f"chain post {{ counter {draw(some)} }}"))
        if chance():
            objects.append(Route(node, f"10.{number}.9.0/24", type="blackhole"))
    if len(nodes) == 2 and not chance(4):
        objects += _underlay(nodes, chance(1), chance())
    for number in range(1, 4):
        if chance(4):
            continue
        objects += _pod(draw, number, draw(st.sampled_from(nodes)), nodes)
    return state(*objects)


def _underlay(nodes: list[str], swapped: bool, with_source: bool) -> list[KernelObject]:
    """A wire between two nodes, and each node's route to the other's pods over it."""
    one, two = nodes
    names = ("u1", "u2") if swapped else ("u2", "u1")
    objects: list[KernelObject] = list(
        pair(Veth(one, names[0], two, names[1], "02:00:09:00:00:01", group=GROUP), mac="02:00:09:00:00:02")
    )
    for here, (node, dev, there) in enumerate(((one, names[0], 2), (two, names[1], 1)), start=1):
        own = f"192.168.0.{here}"
        objects += [
            Address(node, dev, f"{own}/24"),
            Address(node, dev, f"fd99::{here}/64"),
            neighbour(node, dev, f"192.168.0.{there}", f"02:00:09:00:00:0{there}"),
            Route(node, f"10.{there}.0.0/24", f"192.168.0.{there}", dev, src=own if with_source else ""),
            Route(node, f"fd00:{there}::/64", f"fd99::{there}", dev, src=f"fd99::{here}" if with_source else ""),
        ]
    return objects


def _pod(draw: st.DrawFn, number: int, node: str, nodes: list[str]) -> list[KernelObject]:
    def of(*values: object) -> object:
        return draw(st.sampled_from(values))

    index = nodes.index(node) + 1
    name, dev = f"p{number}", of("eth0", "eth0", "net1")
    port = of(f"veth{number}", f"veth{number}", f"pod{number}")
    objects: list[KernelObject] = [Netns(name), Loopback(name, up=True)]
    near = Veth(
        node, str(port), name, str(dev), f"02:00:05:00:0{number}:0{of(1, 1, 3)}", int(str(of(1500, 1500, 1400))),
        master="podbr", hairpin=bool(of(True, True, False)), group=GROUP, altname=f"lab.p{number}.eth0",
    )  # fmt: skip
    objects += pair(near, mac=f"02:00:05:00:0{number}:0{of(2, 2, 4)}", addrgen=bool(of(False, False, True)))
    host = of(10, 10, 20)
    addresses = [Address(name, str(dev), f"10.{index}.0.{host}{number}/24")]
    if of(True, False):
        addresses.append(Address(name, str(dev), f"10.{index}.0.{host}{number + 3}/24"))
    if of(True, False):
        addresses.append(Address(name, str(dev), f"10.77.0.{number}/24"))
    objects += draw(st.permutations(addresses))
    objects.append(Address(name, str(dev), f"fd00:{index}::{of(1, 1, 2)}{number}/64"))
    source = addresses[0].address.partition("/")[0] if of(False, False, True) else ""
    objects += [
        Route(name, "0.0.0.0/0", f"10.{index}.0.1", str(dev), src=source, mtu=int(str(of(0, 0, 1400)))),
        Route(name, "::/0", f"fd00:{index}::1", str(dev), metric=int(str(of(0, 0, 50)))),
    ]
    if of(True, False):
        # As some plugins do it: the gateway is in no network of the pod, and a route leads to it.
        objects.append(Route(name, "198.51.100.0/24", "169.254.1.1", str(dev)))
        objects.append(Route(name, "169.254.1.1/32", dev=str(dev)))
    if of(True, False):
        objects += [neighbour(name, str(dev), f"10.{index}.0.1", f"02:00:0{index}:00:00:0{of(0, 1)}")]
        objects += [neighbour(name, str(dev), f"fd00:{index}::1", f"02:00:0{index}:00:00:0{of(0, 1)}")]
    if of(True, False):
        objects.append(Sysctl(name, f"net/ipv4/conf/{dev}/rp_filter", str(of("1", "2"))))
    if of(True, False):
        objects.append(Process(name, f"p{number}/main", ("sleep", str(of("1", "2")))))
    return objects


labs = st.composite(lab)()


def fixed_lab() -> State:
    """Two nodes, three pods, one of every kind of object and more."""
    objects: list[KernelObject] = []
    for number, node in ((1, "n1"), (2, "n2")):
        objects += [
            Netns(node),
            Loopback(node),
            Sysctl(node, "net/ipv4/ip_forward", "1"),
            Bridge(node, "podbr", f"02:00:00:00:0{number}:00", group=GROUP, altname=f"lab.{node}.podbr"),
            Address(node, "podbr", f"10.{number}.0.1/24"),
            Address(node, "podbr", f"10.{number}.0.2/24"),
            Address(node, "podbr", f"fd00:{number}::1/64"),
            Route(node, "10.99.0.0/16", type="blackhole"),
            NftTable(node, "inet", "podnet-lab", "chain post { }"),
        ]
    objects += _underlay(["n1", "n2"], swapped=False, with_source=True)
    for number, node, index in ((1, "n1", 1), (2, "n1", 1), (3, "n2", 2)):
        name = f"p{number}"
        near = Veth(
            node, f"veth{number}", name, "eth0", f"02:00:05:00:0{number}:01", master="podbr", hairpin=True,
            group=GROUP, altname=f"lab.p{number}.eth0",
        )  # fmt: skip
        objects += [
            Netns(name),
            Loopback(name),
            *pair(near, mac=f"02:00:05:00:0{number}:02"),
            Address(name, "eth0", f"10.{index}.0.1{number}/24"),
            Address(name, "eth0", f"fd00:{index}::1{number}/64"),
            Route(name, "0.0.0.0/0", f"10.{index}.0.1", "eth0"),
            Route(name, "::/0", f"fd00:{index}::1", "eth0"),
            neighbour(name, "eth0", f"10.{index}.0.1", f"02:00:00:00:0{index}:00"),
            neighbour(name, "eth0", f"fd00:{index}::1", f"02:00:00:00:0{index}:00"),
            Sysctl(name, "net/ipv4/conf/eth0/rp_filter", "1"),
            Process(name, f"p{number}/main", ("sleep", "9")),
        ]
    return state(*objects)


def namespaces(*states: State) -> set[str]:
    """The machine's own namespace and those that the states name, which are the lab's."""
    return {"", *(each.name for one in states for each in one.values() if isinstance(each, Netns))}


def seen(kernel: FakeKernel, wanted: State, names: Iterable[str]) -> State:
    """What the lab asks of the kernel: its namespaces, its sysctls, its tables."""
    sysctls = [(each.netns, each.name) for each in wanted.values() if isinstance(each, Sysctl)]
    tables = [NftTable(name, "inet", "podnet-lab", "") for name in names]
    return kernel.observe(names, sysctls, tables, names)


def step(kernel: FakeKernel, wanted: State, names: Iterable[str]) -> int:
    """One pass: observe, diff, schedule, apply. Returns how many operations it took."""
    ops = schedule(diff(wanted, seen(kernel, wanted, names), GROUP))
    kernel.apply(ops)
    return len(ops)


def converge(kernel: FakeKernel, wanted: State, names: Iterable[str], at_most: int = 5) -> int:
    """Pass after pass until nothing is left to do; returns how many passes did something."""
    for passes in range(at_most + 1):
        if step(kernel, wanted, names) == 0:
            return passes
    msg = f"still not there after {at_most} passes: {[str(op) for op in kernel.log[-10:]]}"
    raise AssertionError(msg)


def ours(kernel: FakeKernel) -> State:
    """All that is in the kernel but FOREIGN and the machine's own ``lo``, as it stands there."""
    return {
        key: each
        for key, each in kernel.state.items()
        if key not in FOREIGN and key != ("link", "other", "lo") and key != ("link", "", "lo")
    }


def copy(kernel: FakeKernel, fail_at: int | None = None) -> FakeKernel:
    """Another kernel in the same state."""
    return FakeKernel(fail_at, dict(kernel.state))
