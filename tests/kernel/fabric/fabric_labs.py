"""One lab for every fabric, family and layout of subnets, and what must be seen of it on the underlay's wire.

Frames are captured by tcpdump and decoded by scapy, echoes are sent by ping: nothing of podnet looks at its own work.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lab_cli import Topology, clean, proved, succeeds, write
from lab_kernel import eventually, inside, run

PATTERN = b"podnet looks"  # what an echo carries, again and again
FAMILIES = {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6)}
LAYOUTS = ("one subnet", "two subnets")


class Form(NamedTuple):
    """What a fabric makes of a packet: ``port`` 0 where it is not UDP, ``takes`` by outer IP version."""

    port: int
    takes: dict[int, int]
    tunnel: str


FORMS = {
    "host-gw": Form(0, {4: 0, 6: 0}, ""),
    "vxlan": Form(8472, {4: 50, 6: 70}, "podnet-vxlan"),
    "wireguard": Form(51820, {4: 60, 6: 80}, "podnet-wg"),
    "ipip": Form(0, {4: 20}, "podnet-ipip"),
    "bgp": Form(0, {4: 0, 6: 0}, ""),
}


def topology(fabric: str, family: str, layout: str, **settings: Any) -> Topology:
    """Three nodes with a pod each: web, db and far, of which far's stands behind the router if there is one."""
    versions = FAMILIES[family]

    def cidr(number: int) -> str:
        return ",".join({4: f"198.18.{number}.0/24", 6: f"fd00:198:{number}::/64"}[version] for version in versions)

    networking: dict[str, Any] = {"fabric": fabric, "ipFamily": family}
    if settings:
        networking[fabric] = settings
    lab: Topology = {
        "name": "lab",
        "networking": networking,
        "nodes": [{"name": f"node{i}", "subnet": "left"} for i in (1, 2, 3)],
        "pods": [{"name": name, "node": f"node{i}"} for i, name in enumerate(("web", "db", "far"), start=1)],
        "underlay": {"subnets": [{"name": "left", "cidr": cidr(1)}]},
    }
    if layout == "two subnets":
        lab["underlay"]["subnets"].append({"name": "right", "cidr": cidr(2), "mtu": 1450})
        lab["underlay"]["routers"] = [{"name": "router", "subnets": ["left", "right"]}]
        lab["nodes"][2]["subnet"] = "right"
    return lab


def port_of(node: str) -> str:
    """The underlay's end of a node's cable."""
    rows = json.loads(run("lab.underlay", "ip", "-j", "link"))
    return str(next(row["ifname"] for row in rows if f"podnet.lab.{node}.eth0" in row.get("altnames", ())))


def address(netns: str, dev: str, version: int) -> str:
    rows = json.loads(run(netns, "ip", "-j", f"-{version}", "address", "show", "dev", dev))
    return str(next(info["local"] for row in rows for info in row["addr_info"] if info["scope"] == "global"))


def mtu(netns: str, dev: str) -> int:
    return int(json.loads(run(netns, "ip", "-j", "link", "show", "dev", dev))[0]["mtu"])


@contextmanager
def captured(dev: str, path: Path) -> Iterator[Callable[[], list[Any]]]:
    """Everything that passes a port of the underlay; the function that is given reads what has come so far."""
    from scapy.layers.l2 import Ether
    from scapy.utils import rdpcap

    assert Ether  # without its layers, what scapy reads is bytes

    argv = inside("lab.underlay", "tcpdump", "-i", dev, "--immediate-mode", "-U", "-s", "0", "-w", str(path))
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as tcpdump:
        assert tcpdump.stderr is not None
        for line in tcpdump.stderr:
            if "listening on" in line:
                break
        try:
            yield lambda: list(rdpcap(str(path)))
        finally:
            tcpdump.kill()


def ping(netns: str, to: str, payload: int, *options: str) -> subprocess.CompletedProcess[str]:
    """One echo that must not be fragmented, with that many bytes besides the ICMP header."""
    argv = ["ping", "-c", "1", "-W", "10", "-M", "do", "-p", PATTERN[:16].hex(), "-s", str(payload), *options, to]
    return subprocess.run(inside(netns, *argv), capture_output=True, text=True, check=False)


def form_on_the_wire(fabric: str, family: str, target: str, node: str, path: Path, **settings: Any) -> None:
    """An echo from web to another node's pod looks on the underlay as the fabric says."""
    versions = FAMILIES[family]
    outer = 4 if 4 in versions else 6
    for version in versions:
        with captured(port_of("node1"), path / f"{target}{version}.pcap") as frames:
            done = ping("lab.web", address(f"lab.{target}", "eth0", version), 200)
            assert done.returncode == 0, done.stdout + done.stderr
            inner = {address("lab.web", "eth0", version), address(f"lab.{target}", "eth0", version)}
            ends = {address("lab.node1", "eth0", outer), address(f"lab.{node}", "eth0", outer)}

            def fit(frame: Any, version: int = version, inner: set[str] = inner, ends: set[str] = ends) -> bool:
                return _is(fabric, frame, outer, version, inner, ends, settings)

            eventually(lambda: sum(map(fit, frames())) >= 2)
            found = frames()
        assert sum(map(fit, found)) == 2, f"request and answer, not {[each.summary() for each in found]}"
        for frame in found:
            if PATTERN in bytes(frame):
                assert fabric != "wireguard", "the pods' packets can be read on the wire"
                assert fit(frame)


def _is(
    fabric: str, frame: Any, outer: int, version: int, inner: set[str], ends: set[str], settings: dict[str, Any]
) -> bool:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether
    from scapy.layers.vxlan import VXLAN

    layer = {4: IP, 6: IPv6}

    def between(packet: Any, of: int, who: set[str]) -> bool:
        return layer[of] in packet and {packet[layer[of]].src, packet[layer[of]].dst} == who

    if fabric in {"host-gw", "bgp"}:
        return between(frame, version, inner) and PATTERN in bytes(frame)
    if not between(frame, outer, ends):
        return False
    if fabric == "ipip":
        carried = frame[IP].payload
        return frame[IP].proto == 4 and {carried.src, carried.dst} == inner
    if UDP not in frame or frame[UDP].dport != settings.get("port", FORMS[fabric].port):
        return False
    data = bytes(frame[UDP].payload)
    if fabric == "wireguard":
        return data[:4] == b"\4\0\0\0" and len(data) > 200  # transport data, with the echo in it
    carried = VXLAN(data)
    return (
        carried.vni == settings.get("vni", 1)
        and between(Ether(bytes(carried.payload)), version, inner)
        and PATTERN in data
    )


def sizes(fabric: str, family: str) -> None:
    """A packet as large as the pod's MTU passes undivided; one byte more is refused, and the sender is told the MTU."""
    versions = FAMILIES[family]
    least = min(mtu("lab.node1", "eth0"), mtu("lab.node3", "eth0"))
    carries = least - FORMS[fabric].takes[4 if 4 in versions else 6]
    assert mtu("lab.web", "eth0") == mtu("lab.far", "eth0") == carries
    if FORMS[fabric].tunnel:
        assert mtu("lab.node1", FORMS[fabric].tunnel) == carries
    headers = {4: 28, 6: 48}
    for version in versions:
        done = ping("lab.web", address("lab.far", "eth0", version), carries - headers[version])
        assert done.returncode == 0, done.stdout + done.stderr
    # The pod itself would not send more: let it, so that what stands in the way has to say so.
    port = next(
        row["ifname"]
        for row in json.loads(run("lab.node1", "ip", "-j", "link"))
        if "podnet.lab.web.eth0" in row.get("altnames", ())
    )
    for netns, dev in (("lab.node1", "podnet0"), ("lab.node1", port), ("lab.web", "eth0")):
        run(netns, "ip", "link", "set", dev, "mtu", str(carries + 100))
    for version in versions:
        said = "Frag needed and DF set" if version == 4 else "Packet too big"
        done = ping("lab.web", address("lab.far", "eth0", version), carries - headers[version] + 1)
        assert done.returncode != 0
        told = re.search(rf"{said}:? ?\(?mtu ?= ?(\d+)", done.stdout)
        assert told is not None, done.stdout + done.stderr
        assert int(told[1]) == carries


def holds(fabric: str, family: str, layout: str, path: Path, **settings: Any) -> None:
    """The whole of it: up, all pairs reach each other, packets have their form and their size."""
    file = write(path, topology(fabric, family, layout, **settings))
    succeeds("up", file)
    clean()
    proved()
    form_on_the_wire("host-gw" if settings.get("directRouting") else fabric, family, "db", "node2", path, **settings)
    form_on_the_wire(fabric, family, "far", "node3", path, **settings)
    sizes(fabric, family)
