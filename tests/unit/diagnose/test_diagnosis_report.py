"""Many broken pairs with one cause are one paragraph; what is not explained is said to be so."""

from __future__ import annotations

from podnet.diagnose.cause import Cause, Diagnosis
from podnet.diagnose.trail import Subject, Trail
from podnet.report.diagnosis import document, paragraphs


def _diagnosis(source: str, target: str, cause: Cause | None, **fields: str) -> Diagnosis:
    trail = Trail(Subject(source, target, "icmp", 4), "", "", "", "", 1)
    return Diagnosis(trail, cause, last="eth0 in node1 (in)", note=fields.get("note", ""))


OFF = Cause(
    "forwarding-off", "lab.node1", "net.ipv4.ip_forward", "node1 does not forward", ("it is 0",), "look", "repair"
)


def test_one_cause_is_one_paragraph() -> None:
    pairs = [(f"p{n}", "web") for n in range(9)]
    text = paragraphs([*(_diagnosis(*pair, OFF) for pair in pairs), _diagnosis("a", "b", None, note="too little")])
    assert text == (
        "WHY node1 does not forward [forwarding-off]\n"
        "  breaks    p0 -> web, p1 -> web, p2 -> web, p3 -> web, p4 -> web, p5 -> web and 3 more pairs (icmp/ipv4)\n"
        "  evidence  it is 0\n"
        "  last seen eth0 in node1 (in)\n"
        "  see       look\n"
        "  mend      repair\n"
        "\n"
        "WHY unknown: a -> b (icmp/ipv4)\n"
        "  too little\n"
        "  last seen eth0 in node1 (in)"
    )
    assert paragraphs([]) == ""


def test_the_document_has_a_line_for_each_pair() -> None:
    known, unknown = document([_diagnosis("web", "db", OFF), _diagnosis("a", "b", None, note="too little")])
    assert known["cause"]["kind"] == "forwarding-off"
    assert (known["from"], known["to"], known["family"], known["leg"]) == ("web", "db", "ipv4", "request")
    assert (unknown["cause"], unknown["note"]) == (None, "too little")
