"""ARP and neighbour discovery from the file's `expect` to the exit code of `podnet test`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lab_cli import podnet, succeeds, two_nodes, write

pytestmark = pytest.mark.kernel


def test_a_file_expects_who_answers_on_a_link_and_who_does_not(tmp_path: Path) -> None:
    lab = two_nodes(podSubnet="10.244.0.0/16,fd00:10:244::/56", ipFamily="dual")
    lab["expect"] = [
        {"from": "web", "to": "api", "arp": True},
        {"from": "web", "to": "db", "arp": True, "verdict": "drop"},
        {"from": "pods", "to": "pods", "nd": True, "verdict": "drop"},
    ]
    succeeds("up", write(tmp_path, lab))
    # The last entry is wrong about web and api, and right about db, which is on another node.
    done = podnet("test", "lab", "--protocol", "arp", "--protocol", "nd", "-o", "json")
    assert done.code == 1, done.text
    found: dict[tuple[str, str, str], dict[str, Any]] = {
        (each["from"], each["to"], each["protocol"]): each for each in done.json["results"]
    }
    assert len(found) == len(done.json["results"]) == 10 + 1 + 10 + 4
    wrong = {key for key, each in found.items() if not each["passed"]}
    assert wrong == {("web", "api", "nd"), ("api", "web", "nd")}
    assert found["web", "api", "arp"]["line"] == found["web", "db", "arp"]["line"] > 0
    assert found["web", "db", "arp"]["detail"].startswith("db is on no link of web; never arrived")
    assert found["web", "api", "nd"]["detail"].endswith(" answers")
    assert found["node1", "web", "nd"]["origin"] == "model"
    junit = podnet("test", "lab", "--protocol", "nd", "-o", "junit")
    assert '<testsuite name="lab.nd.ipv6" tests="14" failures="2" errors="0">' in junit.out
    # Without --protocol, what the file asks is asked, and no more.
    plain = [each for each in podnet("test", "lab", "-o", "json").json["results"] if each["protocol"] in ("arp", "nd")]
    assert len(plain) == 2 + 6
    assert {each["origin"] for each in plain} == {"file"}
