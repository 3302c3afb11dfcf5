"""`podnet test` and `podnet trace` as a user calls them: exit codes, reports in files, other people's namespaces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from lab_cli import Done, podnet, succeeds, two_nodes, write
from lab_kernel import run

pytestmark = pytest.mark.kernel


def fails(*arguments: str | Path) -> Done:
    done = podnet(*arguments)
    assert done.code == 2, done.text
    return done


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    succeeds("up", write(tmp_path, two_nodes("proof")))
    yield "proof"
    succeeds("down", "proof")


def test_reports_go_to_files_and_the_text_to_the_terminal(lab: str, tmp_path: Path) -> None:
    files = {form: tmp_path / f"run.{form}" for form in ("json", "junit", "tap", "html", "pcapng")}
    done = succeeds("test", lab, *(each for form, path in files.items() for each in ("-o", f"{form}={path}")))
    assert done.out.rstrip().endswith(" passed, 0 failed")
    saved = json.loads(files["json"].read_text())
    assert saved["summary"]["failed"] == 0
    suites = ElementTree.parse(files["junit"]).getroot()  # noqa: S314 - our own words
    assert suites.get("tests") == str(saved["summary"]["expected"])
    assert files["tap"].read_text().startswith("TAP version 14\n")
    assert "<canvas" in files["html"].read_text()
    assert files["pcapng"].read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    assert "no difference" in succeeds("diff", files["json"], files["json"]).out


def test_a_broken_expectation_exits_with_one_and_what_was_not_measured_with_three(lab: str, tmp_path: Path) -> None:
    rules = "add table inet t; add chain inet t i { type filter hook input priority 0; policy drop; }"
    run(f"{lab}.db", "nft", rules)
    capture = tmp_path / "run.pcapng"
    broken = podnet("test", lab, "--protocol", "icmp", "--timeout", "0.1", "-o", f"pcapng={capture}")
    assert broken.code == 1
    assert "expected reach, observed drop (arrived, no reply came back)" in broken.out
    seen = run("", "tshark", "-r", str(capture), "-T", "fields", "-e", "frame.interface_name", "-e", "ip.dst")
    assert "db eth0" in seen
    assert "web" in seen
    run("", "ip", "netns", "del", f"{lab}.db")
    gone = podnet("test", lab, "--protocol", "icmp", "--to", "db")
    assert gone.code == 3
    assert "unproven" in gone.out
    assert podnet("trace", "web", "db", "--lab", lab).code == 3


def test_a_trace_from_the_shell(lab: str) -> None:
    text = succeeds("trace", "web", "db").out
    assert "predicted: web > node1 > node2 > db; seen: the same; the reply came the same way" in text
    told = json.loads(succeeds("trace", "web", "db", "--protocol", "udp", "-o", "json").out)
    assert told["seen"] == ["web", "node1", "node2", "db"]
    assert told["request"][0]["ttl"] == 64
    assert podnet("trace", "web", "db", "--port", "81").code == 1
    assert "did you mean web?" in fails("trace", "wep", "db").err
    assert "icmp has no ports" in fails("trace", "web", "db", "--protocol", "icmp", "--port", "81").err


def test_namespaces_that_podnet_did_not_make_are_probed_too(lab: str) -> None:
    done = succeeds("test", "--namespaces", f"{lab}.web", "--namespaces", f"/run/netns/{lab}.db", "--paths")
    assert "12 expected, 12 passed, 0 failed" in done.out
    assert f"{lab}.node1" in done.out
    for word, says in (
        ("nope", "there is no namespace named nope"),
        ("/etc/passwd", "is no network namespace"),
        ("4194305", "there is no process 4194305"),
        (f"/run/netns/{lab}.web", "is the same namespace as"),
    ):
        assert says in fails("test", "--namespaces", f"{lab}.web", "--namespaces", word).err


def test_the_largest_packet_of_each_pair(lab: str) -> None:
    assert "0 black holes, 0 failed" in succeeds("test", lab, "--pmtu").out
    run(f"{lab}.node1", "ip", "link", "set", "eth0", "mtu", "1400")
    found = json.loads(succeeds("test", lab, "--pmtu", "--from", "web", "--to", "db", "-o", "json").out)
    assert found["largest"][0]["bytes"] == 1400
    assert found["largest"][0]["limit"] == "10.244.0.1"
