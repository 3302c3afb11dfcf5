"""JUnit, TAP, HTML and pcapng, read back by parsers that are not ours; and what two runs differ in."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from io import BytesIO
from xml.etree import ElementTree

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgReader

from podnet.errors import UsageError
from podnet.model.lab import Lab, Target
from podnet.model.probe import Check, Result
from podnet.probe.witness import Frame, peeled
from podnet.report.difference import differences
from podnet.report.html import page
from podnet.report.json import document
from podnet.report.junit import junit
from podnet.report.pcapng import pcapng
from podnet.report.picture import picture
from podnet.report.tap import tap

LAB = Lab(
    "two",
    (4,),
    (Target("n1", "node", "two.n1", ()), *(Target(n, "pod", f"two.{n}", (), "n1") for n in ("web", "db"))),
)
RESULTS = [
    Result(Check("web", "db", "icmp", 4), "reach", "10.0.0.1", True, 0.5, ""),
    Result(Check("db", "web", "icmp", 4), "drop", "", False, None, 'never "arrived" <&>'),
    Result(Check("web", "db", "tcp", 4, 80, "refuse", line=7), "unproven", "", False, None, "deaf"),
]


def test_junit_counts_broken_expectations_and_what_was_not_measured_apart() -> None:
    root = ElementTree.fromstring("".join(junit(LAB, RESULTS, 1.5)))  # noqa: S314 - our own words
    assert {key: root.get(key) for key in ("tests", "failures", "errors", "time")} == {
        "tests": "3", "failures": "1", "errors": "1", "time": "1.500",
    }  # fmt: skip
    icmp, tcp = root
    assert (icmp.get("name"), tcp.get("name")) == ("two.icmp.ipv4", "two.tcp.ipv4")
    good, bad = icmp
    assert (good.get("name"), good.get("time"), list(good)) == ("web -> db reach", "0.000500", [])
    assert bad[0].tag == "failure"
    assert bad[0].get("message") == 'expected reach, observed drop (never "arrived" <&>)'
    assert tcp[0].get("name") == "web -> db port 80 refuse"
    assert (tcp[0][0].tag, tcp[0][0].get("type")) == ("error", "unproven")
    assert "by line 7 of the topology" in (tcp[0][0].get("message") or "")


def test_tap() -> None:
    assert "".join(tap(RESULTS)).splitlines() == [
        "TAP version 14",
        "1..3",
        "ok 1 - web -> db icmp ipv4 reach",
        "not ok 2 - db -> web icmp ipv4 reach",
        "  ---",
        '  expected: "reach"',
        '  observed: "drop"',
        '  detail: "never \\"arrived\\" <&>"',
        "  ...",
        "not ok 3 - web -> db tcp/80 ipv4 refuse",
        "  ---",
        '  expected: "refuse"',
        '  observed: "unproven"',
        '  detail: "deaf"',
        "  ...",
    ]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "path", "rect"):
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "rect"):
            assert self.open.pop() == tag


def test_the_page_needs_nothing_else_and_holds_every_check() -> None:
    hostile = Result(Check("web", "db", "udp", 4), "drop", "", False, None, "</script><b>")
    text = page(LAB, [*RESULTS, hostile], "today")
    parsed = _Page()
    parsed.feed(text)
    assert (parsed.open, parsed.references) == ([], [])
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    held = json.loads(data)
    assert held["names"] == ["n1", "web", "db"]
    row = held["results"][1]
    assert (held["names"][row[0]], held["names"][row[1]], row[3]) == ("db", "web", 0)
    assert held["words"][row[6]] == 'never "arrived" <&>'
    assert held["words"][held["results"][3][6]] == "</script><b>"
    assert "4 expected, 1 passed, 3 failed (1 of them unproven)" in text
    assert "never &quot;arrived&quot; &lt;&amp;&gt;" in text


def test_the_picture_is_well_formed_and_names_everybody() -> None:
    svg = ElementTree.fromstring(picture(LAB))  # noqa: S314 - our own words
    texts = " ".join(each.text or "" for each in svg.iter() if each.tag.endswith("text"))
    assert all(name in texts for name in ("node n1", "web", "db"))


def test_pcapng_has_an_interface_for_each_device_and_packets_by_time() -> None:
    ethernet = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(dst="10.0.0.1") / ICMP())
    frames = [
        Frame("two.web", "eth0", 2, 7, True, 1_700_000_000_123_456_789, ("", ""), (), b"", False, (0, 0), 28,
              ethernet, True),
        Frame("two.n1", "veth1", 7, 2, False, 1_700_000_000_123_457_789, ("", ""), (), b"", False, (0, 0), 28,
              ethernet, True),
        Frame("two.n1", "wg0", 9, 0, True, 1_700_000_001_000_000_000, ("", ""), (), b"", False, (0, 0), 28,
              ethernet[14:], False),
    ]  # fmt: skip
    written = b"".join(pcapng(frames, lambda netns: netns.removeprefix("two.")))
    read = PcapNgReader(BytesIO(written))
    packets = [read.read_packet() for _ in frames]
    assert [packet.sniffed_on for packet in packets] == ["web eth0", "n1 veth1", "n1 wg0"]
    assert [bytes(packet) for packet in packets] == [ethernet, ethernet, ethernet[14:]]
    assert float(packets[1].time - packets[0].time) == pytest.approx(1e-6, rel=0.01)
    assert [packet.direction for packet in packets] == [2, 1, 2]


def test_encapsulations_are_peeled_and_told() -> None:
    from scapy.layers.inet import UDP
    from scapy.layers.vxlan import VXLAN

    inner = IP(src="10.244.0.2", dst="10.244.1.2") / ICMP()
    outer = IP(src="198.18.0.2", dst="198.18.0.3")
    vxlan = outer / UDP(sport=1, dport=4789) / VXLAN(vni=42) / Ether() / inner
    assert peeled(bytes(vxlan)) == (("VXLAN 42 198.18.0.2 > 198.18.0.3",), bytes(inner))
    assert peeled(bytes(outer / inner)) == (("IP in IP 198.18.0.2 > 198.18.0.3",), bytes(inner))
    assert peeled(bytes(inner)) == ((), bytes(inner))


def test_two_runs_differ_in_what_they_asked_and_found() -> None:
    before = document(LAB, RESULTS)
    after = document(
        LAB,
        [
            Result(Check("web", "db", "icmp", 4), "reach", "10.0.0.1", True, 99.0, ""),
            Result(Check("db", "web", "icmp", 4), "reach", "10.0.0.2", True, 0.5, ""),
            Result(Check("db", "db", "icmp", 4), "reach", "10.0.0.2", True, 0.5, ""),
        ],
    )
    assert differences(before, after) == [
        '~ db -> web icmp ipv4: FAILED: drop (never "arrived" <&>) -> passed: reach, seen as 10.0.0.2',
        "- web -> db tcp/80 ipv4: FAILED: unproven (deaf)",
        "+ db -> db icmp ipv4: passed: reach, seen as 10.0.0.2",
    ]
    assert differences(before, before) == []


@pytest.mark.parametrize("run", [{}, {"results": [{}]}, {"results": 3}])
def test_what_is_no_run_is_an_error(run: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="not a run of podnet test"):
        differences(run, run)
