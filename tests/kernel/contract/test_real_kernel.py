"""The real kernel, seen with iproute2 and nft: it has what was asked for, and gives it back after any failure."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podnet.kernel.diff import diff
from podnet.kernel.linux import LinuxKernel
from podnet.kernel.objects import (
    PROTOCOL,
    Address,
    Bridge,
    KernelObject,
    Loopback,
    Neighbours,
    Netns,
    NftTable,
    Route,
    State,
    Sysctl,
    Veth,
)
from podnet.kernel.schedule import Op, schedule

pytestmark = pytest.mark.kernel


def neighbour(netns: str, dev: str, address: str, mac: str) -> Neighbours:
    """One permanent neighbour."""
    return Neighbours(netns, dev, 6 if ":" in address else 4, ((address, mac),))


PREFIX = f"pnr{os.getpid()}"
NODE, POD = f"{PREFIX}-node", f"{PREFIX}-pod"
GROUP = 0x706F4321
BRIDGE_MAC, PORT_MAC, POD_MAC = "02:00:00:00:01:10", "02:00:00:00:01:01", "02:00:00:00:01:02"
RULES = "chain post {\ntype nat hook postrouting priority srcnat;\nip saddr 10.0.0.0/24 counter masquerade\n}"


def lab() -> State:
    objects: list[KernelObject] = [
        Netns(NODE), Netns(POD), Loopback(NODE), Loopback(POD),
        Sysctl(NODE, "net/ipv4/ip_forward", "1"),
        Sysctl(POD, "net/ipv4/conf/eth0/rp_filter", "2"),
        Bridge(NODE, "br0", BRIDGE_MAC, 1450, group=GROUP, altname="podnet.lab.node.br0"),
        Veth(NODE, "pod0", POD, "eth0", PORT_MAC, 1450, master="br0", hairpin=True, group=GROUP,
             altname="podnet.lab.pod.eth0"),
        Veth(POD, "eth0", NODE, "pod0", POD_MAC, 1450, group=GROUP),
        Address(NODE, "br0", "10.0.0.1/24"), Address(NODE, "br0", "fd00::1/64"),
        Address(POD, "eth0", "10.0.0.2/24"), Address(POD, "eth0", "fd00::2/64"),
        Route(POD, "0.0.0.0/0", "10.0.0.1", "eth0"), Route(POD, "::/0", "fd00::1", "eth0"),
        Route(NODE, "10.9.0.0/16", type="blackhole"),
        neighbour(POD, "eth0", "10.0.0.1", BRIDGE_MAC), neighbour(POD, "eth0", "fd00::1", BRIDGE_MAC),
        NftTable(NODE, "inet", "podnet", RULES),
    ]  # fmt: skip
    return {each.key: each for each in objects}


@pytest.fixture
def kernel() -> Iterator[LinuxKernel]:
    real = LinuxKernel()
    try:
        yield real
    finally:
        names = sorted(name for name in real.namespaces() if name.startswith(PREFIX))
        real.apply([Op("delete", Netns(name)) for name in names])
        real.close()


def changes(kernel: LinuxKernel, wanted: State) -> list[Op]:
    sysctls = [(each.netns, each.name) for each in lab().values() if isinstance(each, Sysctl)]
    tables = [each for each in lab().values() if isinstance(each, NftTable)]
    return schedule(diff(wanted, kernel.observe([NODE, POD], sysctls, tables, [NODE, POD]), GROUP))


def ip(netns: str, *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(["ip", "-j", "-d", "-n", netns, *arguments], capture_output=True, text=True, check=True)
    return [row for row in json.loads(done.stdout or "[]") if row]


def link(netns: str, name: str) -> dict[str, Any]:
    (row,) = ip(netns, "link", "show", "dev", name)
    return row


def addresses(netns: str, name: str) -> set[tuple[str, int]]:
    (row,) = ip(netns, "address", "show", "dev", name)
    return {(each["local"], each["prefixlen"]) for each in row["addr_info"]}


def marks(netns: str) -> set[int | None]:
    """The protocol numbers (IFA_PROTO) of global addresses, which older iproute2 does not print."""
    from pyroute2 import IPRoute
    from pyroute2 import netns as namespaces

    namespaces.pushns(netns)
    try:
        with IPRoute() as there:
            return {row.get_attr("IFA_PROTO") for row in there.get_addr(scope=0)}
    finally:
        namespaces.popns()


@pytest.fixture
def built(kernel: LinuxKernel) -> LinuxKernel:
    kernel.apply(changes(kernel, lab()))
    return kernel


@pytest.mark.usefixtures("built")
class TestIproute2SeesWhatWasAskedFor:
    def test_bridge(self) -> None:
        row = link(NODE, "br0")
        assert (row["address"], row["mtu"], row["group"], row["altnames"]) == (
            BRIDGE_MAC, 1450, str(GROUP), ["podnet.lab.node.br0"],
        )  # fmt: skip
        assert "UP" in row["flags"]
        info = row["linkinfo"]["info_data"]
        assert (info["stp_state"], info["forward_delay"]) == (0, 0)

    def test_port(self) -> None:
        row = link(NODE, "pod0")
        assert (row["address"], row["mtu"], row["group"], row["altnames"], row["master"]) == (
            PORT_MAC, 1450, str(GROUP), ["podnet.lab.pod.eth0"], "br0",
        )  # fmt: skip
        assert row["linkinfo"]["info_slave_data"]["hairpin"] is True
        assert (row["inet6_addr_gen_mode"], "UP" in row["flags"]) == ("none", True)
        assert row["link_netnsid"] >= 0

    def test_pod_end(self) -> None:
        row = link(POD, "eth0")
        assert (row["address"], row["mtu"], row["group"]) == (POD_MAC, 1450, str(GROUP))
        assert (row["inet6_addr_gen_mode"], "LOWER_UP" in row["flags"]) == ("none", True)

    @pytest.mark.parametrize(("netns", "dev"), [(NODE, "pod0"), (POD, "eth0")])
    def test_one_queue_from_the_start(self, netns: str, dev: str) -> None:
        """Others would be made and taken away again, which the kernel waits for RCU for."""
        (row,) = ip(netns, "-d", "link", "show", dev)
        assert (row["num_tx_queues"], row["num_rx_queues"]) == (1, 1)

    def test_addresses_and_no_others(self) -> None:
        assert addresses(POD, "eth0") == {("10.0.0.2", 24), ("fd00::2", 64)}
        # The bridge keeps the kernel's link-local address: it answers IPv6 neighbours.
        assert {a for a in addresses(NODE, "br0") if a[0][:4] != "fe80"} == {("10.0.0.1", 24), ("fd00::1", 64)}
        assert addresses(NODE, "pod0") == set(), "no link-local address either"
        assert (marks(POD), marks(NODE)) == ({PROTOCOL}, {PROTOCOL})

    def test_routes(self) -> None:
        default, default6 = ip(POD, "route", "show", "default"), ip(POD, "-6", "route", "show", "default")
        assert [(r["gateway"], r["dev"], r["protocol"]) for r in default] == [("10.0.0.1", "eth0", "112")]
        assert [(r["gateway"], r["dev"], r["protocol"]) for r in default6] == [("fd00::1", "eth0", "112")]
        (hole,) = ip(NODE, "route", "show", "10.9.0.0/16")
        assert (hole["type"], hole["protocol"]) == ("blackhole", "112")

    def test_neighbours(self) -> None:
        rows = {row["dst"]: row for row in [*ip(POD, "neigh", "show", "nud", "permanent")]}
        assert {(dst, row["lladdr"], row["dev"]) for dst, row in rows.items()} == {
            ("10.0.0.1", BRIDGE_MAC, "eth0"), ("fd00::1", BRIDGE_MAC, "eth0"),
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("netns", "name", "value"), [(NODE, "ip_forward", "1"), (POD, "conf/eth0/rp_filter", "2")], ids=["node", "pod"]
    )
    def test_sysctls(self, netns: str, name: str, value: str) -> None:
        command = ["ip", "netns", "exec", netns, "cat", f"/proc/sys/net/ipv4/{name}"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == value

    def test_table(self) -> None:
        command = ["ip", "netns", "exec", NODE, "nft", "-j", "list", "ruleset"]
        rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["nftables"]
        assert [row["table"]["name"] for row in rows if "table" in row] == ["podnet"]
        (chain,) = (row["chain"] for row in rows if "chain" in row)
        assert (chain["type"], chain["hook"], chain["prio"]) == ("nat", "postrouting", 100)
        (rule,) = (row["rule"] for row in rows if "rule" in row)
        assert "masquerade" in {key for part in rule["expr"] for key in part}

    def test_packets_pass(self) -> None:
        for address in ("10.0.0.1", "fd00::1"):
            command = ["ip", "netns", "exec", POD, "ping", "-c1", "-W10", "-n", address]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


def test_a_second_pass_has_nothing_to_do(built: LinuxKernel) -> None:
    assert [str(op) for op in changes(built, lab())] == []


def _wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)


def _traces() -> tuple[object, ...]:
    rows = subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout
    names = subprocess.run(["ip", "-j", "netns"], capture_output=True, text=True, check=True).stdout
    mounts = sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return json.loads(rows), json.loads(names or "[]"), mounts


@pytest.mark.parametrize("end", ["up", "down"])
@pytest.mark.parametrize("start", ["up", "down"])
def test_stopped_after_any_operation_the_next_up_or_down_completes(kernel: LinuxKernel, start: str, end: str) -> None:
    """``start`` is stopped after N operations, for every N; another process then runs ``end``."""
    first: State = lab() if start == "up" else {}
    total = 1
    number = 0
    while number < total:
        before = _traces()
        if start == "down":
            kernel.apply(changes(kernel, lab()))
        ops = changes(kernel, first)
        total = len(ops)
        kernel.apply(ops[:number])

        fresh = LinuxKernel()  # it knows nothing of what the other one did
        try:
            if end == "up":
                fresh.apply(changes(fresh, lab()))
                assert [str(op) for op in changes(fresh, lab())] == [], f"after {number} operations"
                assert link(POD, "eth0")["address"] == POD_MAC
            kernel.close()
            fresh.apply(changes(fresh, {}))
        finally:
            fresh.close()
        _wait(lambda before=before: _traces() == before)  # type: ignore[misc]
        assert _traces() == before
        number += 1
    assert total >= (10 if start == "up" else 2)
