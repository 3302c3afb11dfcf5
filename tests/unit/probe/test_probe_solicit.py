"""ARP and neighbour discovery as bytes, as filters, and as questions: who shares a link with whom."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from probe_labs import lab, target
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP
from test_probe_filter import accepts

from podnet.model.lab import Lab
from podnet.model.topology import Expectation
from podnet.probe import filter as packet_filter
from podnet.probe.expect import derive
from podnet.probe.onlink import neighbours, question
from podnet.probe.solicit import advertised, asked, solicitation, who_has

MAC, OTHER = bytes.fromhex("0a580af40002"), bytes.fromhex("0a580af40003")
STAMP = bytes(range(16))


def packed(text: str) -> bytes:
    return ip_address(text).packed


def test_a_request_is_arp_as_scapy_reads_it_with_its_stamp_behind() -> None:
    packet = who_has(MAC, packed("10.0.0.2"), packed("10.0.0.3"), STAMP)
    read = ARP(packet)
    assert (read.op, read.hwsrc, read.psrc, read.hwdst, read.pdst) == (
        1, "0a:58:0a:f4:00:02", "10.0.0.2", "00:00:00:00:00:00", "10.0.0.3",
    )  # fmt: skip
    assert bytes(read.payload) == STAMP
    message = asked(packet)
    assert message is not None
    assert (message.answer, message.sender, message.target, message.mac, message.stamp) == (
        False, packed("10.0.0.2"), packed("10.0.0.3"), MAC, STAMP,
    )  # fmt: skip


def test_an_answer_of_arp_says_who_has_what() -> None:
    answer = bytes(ARP(op=2, hwsrc="0a:58:0a:f4:00:03", psrc="10.0.0.3", hwdst="0a:58:0a:f4:00:02", pdst="10.0.0.2"))
    message = asked(answer)
    assert message is not None
    assert (message.answer, message.sender, message.target, message.mac) == (
        True, packed("10.0.0.3"), packed("10.0.0.2"), OTHER,
    )  # fmt: skip


def test_a_solicitation_is_neighbour_discovery_as_scapy_reads_it() -> None:
    packet = solicitation(MAC, packed("fd00::2"), packed("fd00::12:3456"), STAMP)
    read = IPv6(packet)
    assert (read.src, read.dst, read.hlim, read.plen) == ("fd00::2", "ff02::1:ff12:3456", 255, len(packet) - 40)
    assert read[ICMPv6ND_NS].tgt == "fd00::12:3456"
    assert read[ICMPv6NDOptSrcLLAddr].lladdr == "0a:58:0a:f4:00:02"
    anew = read.copy()
    del anew[ICMPv6ND_NS].cksum
    assert bytes(anew)[42:44] == packet[42:44]
    message = advertised(packet)
    assert message is not None
    assert (message.answer, message.sender, message.target, message.mac, message.stamp) == (
        False, packed("fd00::2"), packed("fd00::12:3456"), MAC, STAMP,
    )  # fmt: skip


def advertisement(about: str, to: str, hops: int = 255) -> bytes:
    layers = IPv6(src=about, dst=to, hlim=hops) / ICMPv6ND_NA(tgt=about, S=1)
    return bytes(layers / ICMPv6NDOptDstLLAddr(lladdr="0a:58:0a:f4:00:03"))


def test_an_advertisement_says_who_has_what_and_is_not_believed_from_afar() -> None:
    message = advertised(advertisement("fd00::3", "fd00::2"))
    assert message is not None
    assert (message.answer, message.sender, message.target, message.mac) == (
        True, packed("fd00::3"), packed("fd00::2"), OTHER,
    )  # fmt: skip
    assert advertised(advertisement("fd00::3", "fd00::2", hops=254)) is None  # RFC 4861, 7.1.2


@given(st.binary(max_size=120))
def test_any_bytes_are_read_without_an_error(data: bytes) -> None:
    asked(data)
    advertised(data)
    advertised(IPV6_HEAD + data)


IPV6_HEAD = advertisement("fd00::3", "fd00::2")[:41]


@pytest.mark.parametrize("others", [0, 3, 40])
def test_only_what_is_about_an_own_address_passes(others: int) -> None:
    def own(address: str) -> list[bytes]:
        width = len(packed(address))
        return [packed(address), *(bytes([7] * (width - 1) + [number]) for number in range(others))]

    few = others < 10  # decoding looks at many by itself
    four = packet_filter.neighbours(4, own("10.0.0.3"))
    assert accepts(four, who_has(MAC, packed("10.0.0.2"), packed("10.0.0.3"), STAMP))
    assert accepts(four, who_has(MAC, packed("10.0.0.2"), packed("10.0.0.4"), STAMP)) is not few
    six = packet_filter.neighbours(6, own("fd00::3"))
    assert accepts(six, solicitation(MAC, packed("fd00::2"), packed("fd00::3"), STAMP))
    assert accepts(six, solicitation(MAC, packed("fd00::2"), packed("fd00::4"), STAMP)) is not few
    assert accepts(six, advertisement("fd00::2", "fd00::3"))
    assert accepts(six, advertisement("fd00::2", "fd00::4")) is not few
    other = bytearray(advertisement("fd00::2", "fd00::3"))
    other[40] = 128  # an echo
    assert not accepts(six, bytes(other))


TWO_NODES = (
    target("node1", "node", "192.168.0.1/24", "10.1.1.1/24"),
    target("a", "pod", "10.1.1.2/24", node="node1"),
    target("b", "pod", "10.1.1.3/24", node="node1"),
    target("node2", "node", "192.168.0.2/24", "10.1.2.1/24"),
    target("c", "pod", "10.1.2.2/24", node="node2"),
    target("far", "node", "192.168.9.1/24"),
    target("outside", "client", "192.168.0.9/24"),
)


def of(*expect: Expectation) -> Lab:
    return Lab("lab", (4,), TWO_NODES, expect)


def test_who_shares_a_link_with_whom() -> None:
    names = [each.name for each in TWO_NODES]
    found = {names[at]: [names[other] for other in others] for at, others in neighbours(of(), 4).items()}
    assert found == {
        "node1": ["a", "b", "node2"], "a": ["node1", "b"], "b": ["node1", "a"], "node2": ["node1", "c"],
        "c": ["node2"],
    }  # fmt: skip
    assert neighbours(of(), 6) == {}


@pytest.mark.parametrize(
    ("source", "asks", "own", "address", "shared"),
    [
        ("a", "b", "10.1.1.2", "10.1.1.3", True),
        ("a", "node1", "10.1.1.2", "10.1.1.1", True),  # the gateway, not the address in the underlay
        ("node1", "a", "10.1.1.1", "10.1.1.2", True),
        ("node1", "node2", "192.168.0.1", "192.168.0.2", True),
        ("outside", "node1", "192.168.0.9", "192.168.0.1", True),
        ("a", "c", "10.1.1.2", "10.1.2.2", False),
        ("a", "node2", "10.1.1.2", "192.168.0.2", False),
        ("far", "node1", "192.168.9.1", "192.168.0.1", False),
    ],
)
def test_the_question_is_for_the_address_on_the_shared_link(
    source: str, asks: str, own: str, address: str, shared: bool
) -> None:
    lab = of()
    one, other = lab.target(source), lab.target(asks)
    assert one is not None
    assert other is not None
    found = question(lab, one, other, 4)
    assert found is not None
    assert found[1:] == (own, address, shared)
    assert question(lab, one, other, 6) is None


def test_equal_networks_of_two_nodes_are_two_links() -> None:
    one = target("a", "pod", "10.1.0.2/16", node="node1")
    other = target("b", "pod", "10.1.0.3/16", node="node2")
    found = question(Lab("lab", (4,), (one, other)), one, other, 4)
    assert found is not None
    assert not found.shared


def entry(source: str, to: str, verdict: str, protocol: str = "arp") -> Expectation:
    return Expectation((source,), (to,), protocol, verdict, families=(4,), source="any", line=9)


def test_the_model_asks_between_those_that_share_a_link_and_an_entry_whatever_it_says() -> None:
    checks = derive(of(entry("a", "b", "drop"), entry("a", "c", "drop"), entry("a", "a", "reach")), ("arp", "nd"))
    pairs = {(each.source, each.target): each for each in checks}
    assert len(pairs) == len(checks) == 10 + 1
    assert {each.protocol for each in checks} == {"arp"}
    assert (pairs["a", "b"].verdict, pairs["a", "b"].origin) == ("drop", "file")  # in the model's place
    assert (pairs["b", "a"].verdict, pairs["b", "a"].origin) == ("reach", "model")
    assert pairs["a", "c"].verdict == "drop"
    assert ("a", "a") not in pairs
    some = derive(of(), ("icmp", "arp"), senders={"a"}, receivers={"b", "c"})
    assert [(each.target, each.protocol) for each in some] == [("b", "icmp"), ("c", "icmp"), ("b", "arp")]
    # What the file asks comes along with ICMP; what the model could ask does not.
    along = [each for each in derive(of(entry("a", "b", "drop")), ("icmp",)) if each.protocol == "arp"]
    assert [(each.source, each.target, each.verdict) for each in along] == [("a", "b", "drop")]
    assert all(each.protocol == "tcp" for each in derive(of(entry("a", "b", "drop")), ("tcp",)))


def test_the_labs_of_other_tests_stay_what_they_were() -> None:
    assert all(check.protocol not in ("arp", "nd") for check in derive(lab()))
