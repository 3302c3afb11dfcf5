"""What is really on the wire, and what is left afterwards, seen by tools that are not the engine's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from probe_cluster import Cluster, inside, ip
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6

from podnet.kernel.netns import entered
from podnet.model.probe import Check
from podnet.probe.engine import run
from podnet.probe.expect import derive
from podnet.probe.stamp import STAMP

pytestmark = pytest.mark.kernel


@contextmanager
def sniffer(netns: str) -> Iterator[socket.socket]:
    with entered(netns):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL
    with sock:
        sock.setblocking(False)
        yield sock


def arrivals(sock: socket.socket, version: int) -> Iterator[Any]:
    """Packets of one IP version that came in, decoded by scapy."""
    while True:
        try:
            data, address = sock.recvfrom(2048)
        except BlockingIOError:
            return
        if address[1] == {4: 0x0800, 6: 0x86DD}[version] and address[2] == socket.PACKET_HOST:
            yield (IP if version == 4 else IPv6)(data)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
def test_one_probe_arrives_with_stamp_and_right_checksums(cluster: Cluster, protocol: str, version: int) -> None:
    lab = cluster.lab()
    layer = {"icmp": ICMP if version == 4 else ICMPv6EchoRequest, "tcp": TCP, "udp": UDP}[protocol]
    with sniffer(cluster.netns("p2-1")) as sock:
        [result] = run(lab, [Check("p1-1", "p2-1", protocol, version)])
        requests = [p for p in arrivals(sock, version) if layer in p and (protocol != "tcp" or p[TCP].flags == "S")]
    assert result.passed
    [probe] = requests
    assert (probe.src, probe.dst) == {
        4: ("10.244.1.2", "10.244.2.2"),
        6: ("fd00:10:1::2", "fd00:10:2::2"),
    }[version]
    # scapy computes the checksums anew when they are taken out.
    anew = probe.copy()
    if version == 4:
        del anew.chksum
    field = "cksum" if (protocol, version) == ("icmp", 6) else "chksum"
    delattr(anew[layer], field)
    assert bytes(anew) == bytes(probe)
    if protocol != "tcp":
        payload = bytes(probe[layer].data if field == "cksum" else probe[layer].payload)
        magic, _run, source, target, index = STAMP.unpack(payload)
        names = [t.name for t in lab.targets]
        assert (magic, names[source], names[target], index) == (b"pdnQ", "p1-1", "p2-1", 0)


def test_a_blocked_probe_is_sent_three_times(cluster: Cluster) -> None:
    # A prober that is dead looks like a blocked path; the witness shows that this one sent.
    netns = cluster.netns("p2-1")
    inside(netns, "nft", "add table inet t")
    inside(netns, "nft", "add chain inet t i { type filter hook input priority 0; }")
    inside(netns, "nft", "add rule inet t i ip protocol icmp drop")
    try:
        with sniffer(netns) as sock:
            [result] = run(cluster.lab(), [Check("p1-1", "p2-1", "icmp", 4, verdict="drop")])
            seen = [p for p in arrivals(sock, 4) if ICMP in p]
    finally:
        inside(netns, "nft", "flush", "ruleset")
    assert (result.observed, len(seen)) == ("drop", 3)


def test_a_half_open_connection_is_reset_by_the_sender(cluster: Cluster) -> None:
    with sniffer(cluster.netns("p2-1")) as sock:
        run(cluster.lab(), [Check("p1-1", "p2-1", "tcp", 4)])
        flags = [str(p[TCP].flags) for p in arrivals(sock, 4) if TCP in p]
    assert flags == ["S", "R"]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_open(cluster: Cluster, fails: bool) -> None:
    lab = cluster.lab()
    checks = derive(lab)

    def told(_: int) -> None:
        if fails:
            raise KeyboardInterrupt

    before = sorted(os.listdir("/proc/self/fd"))
    if fails:
        with pytest.raises(KeyboardInterrupt):
            run(lab, checks, progress=told)
    else:
        run(lab, checks, progress=told)
    assert sorted(os.listdir("/proc/self/fd")) == before
    for target in lab.targets:
        states = inside(target.netns, "ss", "-Hna", "-t", "-u", "-w", "-0")
        assert states == "", target.name
        assert ip("netns", "pids", target.netns) == "", target.name
