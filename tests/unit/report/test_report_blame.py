"""Every form of report says why: of what was replayed itself, and of what failed alike."""

from __future__ import annotations

import json
import re
from io import BytesIO
from xml.etree import ElementTree

import pytest
import yaml
from scapy.layers.inet import ICMP, IP
from scapy.utils import PcapNgReader

from podnet.diagnose.cause import Cause, Diagnosis
from podnet.diagnose.trail import Subject, Trail
from podnet.model.lab import Lab, Target
from podnet.model.probe import Check, Result
from podnet.probe.witness import Frame
from podnet.report.blame import Blame
from podnet.report.diagnosis import causes
from podnet.report.html import page
from podnet.report.junit import junit
from podnet.report.pcapng import pcapng
from podnet.report.remarks import about, remark
from podnet.report.tap import tap
from podnet.report.text import findings

PODS = [f"{side}{number}" for side in "ab" for number in range(4)]
LAB = Lab(
    "two",
    (4,),
    (
        *(Target(node, "node", f"two.{node}", ()) for node in ("n1", "n2")),
        *(Target(pod, "pod", f"two.{pod}", (), "n1" if pod < "b" else "n2") for pod in PODS),
    ),
)
DROP = Cause("rule-drop", "two.n1", "inet filter forward", "n1 drops <it>", ("handle 2",), "look", "delete & go")
DOWN = Cause("link-down", "two.b0", "eth0", "eth0 in b0 is down", (), "", "up")


def lost(source: str, target: str, detail: str = "never arrived") -> Result:
    return Result(Check(source, target, "icmp", 4), "drop", "", False, None, detail)


def replayed(result: Result, cause: Cause | None) -> Diagnosis:
    subject = Subject(result.check.source, result.check.target, "icmp", 4, seen="own")
    return Diagnosis(Trail(subject, "", "", "", "", 1), cause, last="eth0 in n1 (in)", reasons=("f: NETFILTER_DROP",))


ACROSS = [lost(a, b) for a in PODS[:4] for b in PODS[4:]]
BACK = [lost(b, a) for a in PODS[:4] for b in PODS[4:]]
OTHER = lost("n1", "n2", "arrived, no reply came back")
PASSED = Result(Check("a0", "a1", "icmp", 4), "reach", "10.0.0.1", True, 0.5, "")
RESULTS = [*ACROSS, *BACK, OTHER, PASSED]


@pytest.fixture
def blame() -> Blame:
    # Of those across two were replayed, with one cause; of those back two, with different ones.
    found = [replayed(ACROSS[0], DROP), replayed(ACROSS[9], DROP), replayed(BACK[0], DROP), replayed(BACK[1], DOWN)]
    return Blame(LAB, [r for r in RESULTS if not r.passed], [*found, replayed(OTHER, None)])


def test_what_was_not_replayed_has_the_cause_of_all_that_failed_alike(blame: Blame) -> None:
    assert [(each.cause, each.place, each.failures, each.replayed) for each in blame.causes] == [
        (DROP, "n1", 17, 3),
        (DOWN, "b0", 1, 1),
    ]
    assert [blame.cause(result) for result in (ACROSS[0], ACROSS[1], BACK[1], BACK[2], OTHER, PASSED)] == [
        DROP, DROP, DOWN, None, None, None,
    ]  # fmt: skip
    assert blame.facts(ACROSS[0])["last seen"] == "eth0 in n1 (in)"
    assert "not replayed itself" in blame.facts(ACROSS[1])["note"]
    assert set(causes(blame.causes)[0]) >= {"text", "mend", "place", "failures", "replayed"}


def test_failures_of_one_cause_are_one_line_with_the_command_that_mends_them(blame: Blame) -> None:
    lines = findings(LAB, RESULTS, blame=blame).splitlines()
    assert lines[0] == "17 failures because n1 drops <it> [rule-drop]; mend: delete & go"
    assert lines[1].startswith("FAIL 16 checks pods on n1 -> pods on n2 icmp ipv4: expected reach")
    heads = [line for line in lines if " because " in line or "without a known cause" in line]
    assert heads[1:] == [
        "1 failure because eth0 in b0 is down [link-down]; mend: up",
        "15 failures without a known cause",
    ]


def test_junit_has_the_cause_in_message_and_text(blame: Blame) -> None:
    root = ElementTree.fromstring("".join(junit(LAB, RESULTS, 1, blame)))  # noqa: S314 - our own words
    failure = root[0][0][0]
    assert failure.get("message") == "expected reach, observed drop (never arrived): n1 drops <it>"
    lines = (failure.text or "").splitlines()
    assert {"cause: n1 drops <it>", "place: n1", "kernel: f: NETFILTER_DROP", "mend: delete & go"} <= set(lines)


def test_tap_has_the_cause_in_its_yaml(blame: Blame) -> None:
    blocks = re.findall(r"  ---\n(.*?)  \.\.\.\n", "".join(tap(RESULTS, blame)), re.DOTALL)
    first = yaml.safe_load(blocks[0])
    assert (first["cause"], first["kind"], first["mend"]) == ("n1 drops <it>", "rule-drop", "delete & go")
    assert first["evidence"] == ["handle 2"]
    assert "cause" not in yaml.safe_load(blocks[-1])


def test_the_page_lists_the_causes_and_each_cell_names_its_own(blame: Blame) -> None:
    text = page(LAB, RESULTS, "today", blame)
    rows = re.findall(r'<tr data-cause="\d+"><td class="bad">(\d+)</td><td>(\w+)</td><td>(.*?)</td>', text)
    assert rows == [("17", "n1", "n1 drops &lt;it&gt; [rule-drop]"), ("1", "b0", "eth0 in b0 is down [link-down]")]
    assert "<code>delete &amp; go</code>" in text
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    held = json.loads(data)
    assert [held["results"][at][9] for at in (0, 1, 17, 18)] == [0, 0, 1, None]
    assert len(held["results"][-1]) == 9  # nothing to explain
    assert held["causes"][0]["mend"] == "delete & go"


def test_a_capture_has_the_causes_as_comments(blame: Blame) -> None:
    raw = bytes(IP(dst="10.0.0.1") / ICMP())
    frames = [
        Frame("two.n1", "wg0", 9, 0, True, at, ("", ""), (), b"", False, (0, 0), 28, raw, False, check)
        for at, check in ((1, 0), (2, 0), (3, 1))
    ]
    remarks = [remark(result, blame) for result in (ACROSS[0], OTHER)]
    written = b"".join(pcapng(frames, str, comment=about(LAB, blame.causes), comments=remarks))
    assert b"17 failures: n1 drops <it> [rule-drop]; mend: delete & go" in written
    read = PcapNgReader(BytesIO(written))
    found = [getattr(read.read_packet(), "comment", None) for _ in frames]
    assert found == [
        b"a0 -> b0 icmp ipv4: expected reach, observed drop (never arrived)\ncause: n1 drops <it>\nmend: delete & go",
        None,
        b"n1 -> n2 icmp ipv4: expected reach, observed drop (arrived, no reply came back)",
    ]
