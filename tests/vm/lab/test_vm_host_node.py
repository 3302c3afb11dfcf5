"""A node that is the machine itself, with fabrics that need modules: its tunnel stands beside what the machine has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab_cli import Topology, clean, proved, succeeds, write
from lab_kernel import differences, eventually, run, snapshot

pytestmark = [pytest.mark.vm, pytest.mark.kernel]


def topology(fabric: str) -> Topology:
    return {
        "name": "lab",
        "networking": {"fabric": fabric},
        "nodes": [{"name": "host", "host": True}, {"name": "node2"}],
        "pods": [{"name": "web", "node": "host"}, {"name": "db", "node": "node2"}],
    }


@pytest.mark.parametrize("fabric", ["vxlan", "wireguard"])
def test_it_comes_up_stays_and_leaves_nothing(fabric: str, tmp_path: Path) -> None:
    path, was = write(tmp_path, topology(fabric)), snapshot("")
    succeeds("up", path)
    try:
        [tunnel] = json.loads(run("", "ip", "-j", "link", "show", "type", fabric))
        assert tunnel["ifname"].startswith("podnet")
        assert [row["dev"] for row in json.loads(run("", "ip", "-j", "route", "show", "10.244.1.0/24"))] == [
            tunnel["ifname"]
        ]
        if fabric == "wireguard":
            # They have greeted each other before anything was sent; one of both ends keeps that up.
            ends = (("", tunnel["ifname"]), ("lab.node2", "podnet-wg"))
            assert all(run(*end[:1], "wg", "show", end[1], "latest-handshakes").split()[1] != "0" for end in ends)
            kept = [run(netns, "wg", "show", dev, "persistent-keepalive").split()[1] for netns, dev in ends]
            assert sorted(kept) == ["25", "off"]
        clean()
        proved()
        assert "nothing to change" in succeeds("up", path).out
    finally:
        succeeds("down", "lab")
    eventually(lambda: snapshot("")["links"] == was["links"])
    assert differences({"": was}, {"": snapshot("")}) == []
