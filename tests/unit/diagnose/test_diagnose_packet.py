"""A replayed packet is recognised on every device, whatever NAT does to it, and so are its answers and errors."""

from __future__ import annotations

import pytest

from podnet.diagnose.packet import ARP, ERROR, REPLY, REQUEST, RESET, answer_to, crafted, parsed

TOKEN = 0x12345678
V4, V6 = ("10.244.0.2", "10.244.1.2"), ("fd00:10:244::2", "fd00:10:244:1::2")
ETHERNET = bytes.fromhex("0a580af400010a580af40002")


@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
@pytest.mark.parametrize("addresses", [V4, V6])
@pytest.mark.parametrize("size", [0, 101, 1500])
def test_a_crafted_packet_is_what_scapy_takes_it_for_and_recognised(
    protocol: str, addresses: tuple[str, str], size: int
) -> None:
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6

    data = crafted(protocol, *addresses, (61001, 80), TOKEN, size)
    assert not size or len(data) == size
    frame = parsed(ETHERNET + (b"\x86\xdd" if ":" in addresses[0] else b"\x08\x00") + data, ethernet=True)
    assert frame is not None
    assert (frame.kind, frame.token, frame.source, frame.destination) == (REQUEST, TOKEN, *addresses)
    assert (frame.length, frame.ttl) == (len(data), 64)
    assert (frame.source_mac, frame.destination_mac) == ("0a:58:0a:f4:00:02", "0a:58:0a:f4:00:01")
    packet = (IPv6 if ":" in addresses[0] else IP)(data)
    layer = {"tcp": TCP, "udp": UDP}.get(protocol, ICMPv6EchoRequest if ":" in addresses[0] else ICMP)
    assert layer in packet
    # scapy fills in what is deleted: the checksums must have been right.
    again = packet.copy()
    for each in (again, again[layer]):
        for name in ("chksum", "cksum"):
            if name in each.fields:
                del each.fields[name]
    assert bytes(again) == data


def test_answers_bear_the_token_of_what_they_answer() -> None:
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.packet import Raw

    request = crafted("udp", *V4, (61001, 80), TOKEN)
    back = IP(src=V4[1], dst=V4[0])
    cases = {
        REPLY: [
            back / TCP(flags="SA", ack=TOKEN + 1),
            back / UDP() / Raw(answer_to(request[28:])),
            back / ICMP(type=0) / Raw(b"pdnW" + TOKEN.to_bytes(4, "big")),
        ],
        RESET: [back / TCP(flags="RA", ack=TOKEN + 1)],
        ERROR: [back / ICMP(type=3, code=3) / Raw(request), back / ICMP(type=11) / Raw(request[:36])],
    }
    for kind, packets in cases.items():
        for packet in packets:
            frame = parsed(bytes(packet), ethernet=False)
            assert frame is not None, packet.summary()
            assert (frame.kind, frame.token) == (kind, TOKEN), packet.summary()
    told = parsed(bytes(back / ICMP(type=3, code=4, nexthopmtu=1280) / Raw(request)), ethernet=False)
    assert told is not None
    assert told.error == (3, 4, 1280)


def test_questions_for_neighbours_are_told_from_their_answers() -> None:
    from scapy.layers import l2
    from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6

    asked, mac = "10.244.0.1", "0a:58:0a:f4:00:01"
    cases = [
        (l2.Ether() / l2.ARP(op=1, psrc=V4[0], pdst=asked), asked, ""),
        (l2.Ether() / l2.ARP(op=2, psrc=asked, hwsrc=mac, pdst=V4[0]), asked, mac),
        (l2.Ether() / IPv6(src=V6[0]) / ICMPv6ND_NS(tgt=V6[1]), V6[1], ""),
        (l2.Ether() / IPv6(src=V6[1]) / ICMPv6ND_NA(tgt=V6[1]) / ICMPv6NDOptDstLLAddr(lladdr=mac), V6[1], mac),
    ]
    for packet, address, told in cases:
        packet.src, packet.dst = "02:00:00:00:00:01", "02:00:00:00:00:02"
        frame = parsed(bytes(packet), ethernet=True)
        assert frame is not None, packet.summary()
        assert (frame.kind, frame.asked, frame.told) == (ARP, address, told), packet.summary()


def test_foreign_and_broken_packets_are_nothing() -> None:
    foreign = crafted("udp", *V4, (1, 2), TOKEN).replace(b"pdnW", b"else")
    for data in (b"", b"\x45", foreign, crafted("icmp", *V4, (1, 2), TOKEN)[:27], bytes(60), b"\xff" * 60):
        assert parsed(data, ethernet=False) is None
        assert parsed(data, ethernet=True) is None
    assert answer_to(b"else1234") == answer_to(b"pdnW") == b""
