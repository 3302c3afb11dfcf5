"""ARP and neighbour discovery: who answers on a link, who does not, and who should not."""

from __future__ import annotations

import socket
import time

import pytest
from probe_cluster import Cluster, inside, ip
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP
from test_probe_wire import sniffer

from podnet.model.lab import Lab
from podnet.model.probe import Check, Result
from podnet.probe.capture import Capture
from podnet.probe.engine import run
from podnet.probe.expect import derive
from podnet.probe.stamp import Run
from podnet.probe.vantage import Vantage
from podnet.report.json import document
from podnet.report.junit import junit
from podnet.report.text import matrix

pytestmark = pytest.mark.kernel

EACH = pytest.mark.parametrize(("protocol", "version"), [("arp", 4), ("nd", 6)])
ADDRESS = {4: "10.244.1.{}", 6: "fd00:10:1::{}"}


def only(lab: Lab, check: Check, **options: float) -> Result:
    [result] = run(lab, [check], **options)
    return result


def mac(lab: Lab, name: str, device: str = "eth0") -> str:
    target = lab.target(name)
    assert target is not None
    return next(interface.mac for interface in target.interfaces if interface.name == device)


def test_all_on_one_link_answer_with_their_own_address_and_the_reports_say_so(cluster: Cluster) -> None:
    lab = cluster.lab()
    results = run(lab, derive(lab, ("arp", "nd")))
    # On each of two bridges a node and two pods, and both nodes on the switch; IPv4 and IPv6.
    assert len(results) == (2 * 6 + 2) * 2
    for result in results:
        check = result.check
        device = "br0" if check.target.startswith("node") and check.source.startswith("p") else "eth0"
        assert (result.observed, result.passed) == ("reach", True), result
        assert result.detail == f"{mac(lab, check.target, device)} answers"
        assert result.rtt_ms is not None
        assert 0 < result.rtt_ms < 1000
    shown = document(lab, results)["results"]
    [one] = [each for each in shown if (each["from"], each["to"], each["protocol"]) == ("p1-1", "node1", "nd")]
    assert (one["source"], one["family"], one["port"]) == ("fd00:10:1::2", "ipv6", None)
    assert '<testsuite name="cluster.arp.ipv4" tests="14" failures="0" errors="0">' in "".join(junit(lab, results, 1))
    rows = {line.split()[0]: line.split()[1:] for line in matrix(lab, results, color=False, width=120).splitlines()[1:]}
    assert rows["p1-1"] == ["ok", "-", "ok", "-", "-", "-"]


@EACH
def test_one_question_is_on_the_wire_and_one_answer(cluster: Cluster, protocol: str, version: int) -> None:
    lab = cluster.lab()
    with sniffer(cluster.netns("p1-2")) as sock:
        result = only(lab, Check("p1-1", "p1-2", protocol, version))
        seen = []
        while True:
            try:
                data, address = sock.recvfrom(2048)
            except BlockingIOError:
                break
            if version == 4 and address[1] == 0x0806:
                seen.append((address[2], ARP(data)))
            elif version == 6 and address[1] == 0x86DD:
                packet = IPv6(data)
                if ICMPv6ND_NS in packet or ICMPv6ND_NA in packet:
                    seen.append((address[2], packet))
    assert result.passed
    own, asked = (ADDRESS[version].format(number) for number in (2, 3))
    questions = [packet for kind, packet in seen if kind in (socket.PACKET_BROADCAST, socket.PACKET_MULTICAST)]
    answers = [packet for kind, packet in seen if kind == socket.PACKET_OUTGOING]
    if version == 4:
        [question] = [p for p in questions if p.op == 1 and p.psrc == own]
        assert (question.pdst, question.hwsrc) == (asked, mac(lab, "p1-1"))
        [answer] = [p for p in answers if p.op == 2]
        assert (answer.psrc, answer.hwsrc, answer.pdst) == (asked, mac(lab, "p1-2"), own)
    else:
        [question] = [p for p in questions if ICMPv6ND_NS in p and p.src == own]
        assert (question.dst, question.hlim, question[ICMPv6ND_NS].tgt) == ("ff02::1:ff00:3", 255, asked)
        assert question[ICMPv6NDOptSrcLLAddr].lladdr == mac(lab, "p1-1")
        [answer] = [p for p in answers if ICMPv6ND_NA in p]
        assert (answer.dst, answer[ICMPv6ND_NA].tgt) == (own, asked)


@EACH
def test_two_hosts_with_one_address_are_a_finding(cluster: Cluster, protocol: str, version: int) -> None:
    lab = cluster.lab()
    address, nodad = ADDRESS[version].format(3), ["nodad"] if version == 6 else []
    width = {4: 24, 6: 64}[version]
    ip("addr", "add", f"{address}/{width}", "dev", "eth0", *nodad, netns=cluster.netns("p1-1"))
    try:
        # The kernel joins the group of a new address by a work queue, some time later.
        deadline = time.monotonic() + 20
        while version == 6 and "ff02::1:ff00:3" not in ip("maddr", "show", "dev", "eth0", netns=cluster.netns("p1-1")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        result = only(lab, Check("node1", "p1-2", protocol, version))
    finally:
        ip("addr", "del", f"{address}/{width}", "dev", "eth0", netns=cluster.netns("p1-1"))
    assert not result.passed
    assert result.detail.startswith("duplicate address: ")
    assert set(result.detail.split()[2::2]) == {mac(lab, "p1-1"), mac(lab, "p1-2")}


@EACH
def test_who_does_not_answer_drops_and_whose_device_is_down_never_asks(
    cluster: Cluster, protocol: str, version: int
) -> None:
    lab = cluster.lab()
    ip("link", "set", "eth0", "arp", "off", netns=cluster.netns("p1-2"))
    try:
        silent = only(lab, Check("p1-1", "p1-2", protocol, version), timeout=0.3)
        asked = only(lab, Check("p1-1", "p1-2", protocol, version, verdict="drop"), timeout=0.3)
    finally:
        ip("link", "set", "eth0", "arp", "on", netns=cluster.netns("p1-2"))
    assert (silent.observed, silent.passed, silent.detail) == ("drop", False, "arrived, no reply came back")
    assert (asked.observed, asked.passed) == ("drop", True)


@EACH
def test_nobody_answers_for_who_is_on_another_link_but_a_proxy(cluster: Cluster, protocol: str, version: int) -> None:
    lab = cluster.lab()
    result = only(lab, Check("p1-1", "p2-1", protocol, version), timeout=0.3)
    assert (result.observed, result.passed) == ("drop", False)
    assert result.detail == "p2-1 is on no link of p1-1; never arrived"
    assert only(lab, Check("p1-1", "p2-1", protocol, version, verdict="drop"), timeout=0.3).passed
    if version == 4:
        node = cluster.netns("node1")
        inside(node, "sysctl", "-qw", "net.ipv4.conf.br0.proxy_arp=1", "net.ipv4.neigh.br0.proxy_delay=0")
        try:
            # The pods' own links are asked only there: 10.244.2.0/24 leaves by another device.
            result = only(lab, Check("p1-1", "p2-1", protocol, version), timeout=1.0)
        finally:
            inside(node, "sysctl", "-qw", "net.ipv4.conf.br0.proxy_arp=0")
        assert not result.passed
        assert result.detail.startswith(f"{mac(lab, 'node1', 'br0')} answers, which is not p2-1's; never arrived")


@EACH
@pytest.mark.parametrize("deaf", ["p1-1", "p2-1"])
def test_silence_of_a_prober_that_hears_nothing_is_no_verdict(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, protocol: str, version: int, deaf: str
) -> None:
    watch = Vantage.watch

    def watch_or_not(self: Vantage, of: int, this: Run, own: frozenset[bytes]) -> Capture:
        return watch(self, of, Run(this.number ^ 0xFFFFFFFF) if self.netns == cluster.netns(deaf) else this, own)

    monkeypatch.setattr(Vantage, "watch", watch_or_not)
    result = only(cluster.lab(), Check("p1-1", "p2-1", protocol, version, verdict="drop"), timeout=0.1)
    assert (result.observed, result.passed) == ("unproven", False)
    assert f"{deaf} does not hear its own control probe" in result.detail


def test_what_is_of_the_other_ip_version_or_gone_is_unproven(cluster: Cluster) -> None:
    lab = cluster.lab()
    assert only(lab, Check("p1-1", "p1-2", "arp", 6)).detail == "arp is of IPv4"
    targets = tuple(
        t if t.name != "p1-2" else type(t)(t.name, t.kind, "gone", t.interfaces, t.node) for t in lab.targets
    )
    result = only(Lab("lab", (4, 6), targets), Check("p1-1", "p1-2", "arp", 4))
    assert (result.observed, "gone" in result.detail) == ("unproven", True)
