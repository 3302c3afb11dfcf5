"""``macspoofchk`` (2.1, 3.1): frames on the wire, and rules that are seen with ``nft``."""

from __future__ import annotations

import json
from typing import Any

import pytest
import wire

pytestmark = pytest.mark.kernel

FOREIGN = "02:00:00:00:00:99"


@pytest.fixture
def guarded(conf: dict[str, Any]) -> dict[str, Any]:
    return conf | {"macspoofchk": True}


def rows(host: Any, kind: str) -> list[dict[str, Any]]:
    found = json.loads(host.tool("nft", "-j", "list", "ruleset"))["nftables"]
    return [row[kind] for row in found if kind in row and row[kind]["family"] == "bridge"]


def senders(host: Any) -> set[tuple[str, str]]:
    elements = next((each.get("elem", []) for each in rows(host, "set") if each["name"] == "senders"), [])
    return {tuple(each["concat"]) for each in elements}


def arrives(host: Any, source: str, target_mac: str, sender: str = "c1", receiver: str = "c2") -> bool:
    """Whether a frame with this source gets through; one with the sender's own MAC, sent after it, must."""
    own = host.link("eth0", sender)["address"]
    with wire.Port(receiver) as port, wire.Port(sender) as out:
        out.send(wire.frame(source, target_mac, b"first"))
        out.send(wire.frame(own, target_mac, b"own"))
        return port.payloads_until(b"own") == [b"first", b"own"]


def test_a_frame_with_a_foreign_source_is_dropped(host: Any, guarded: dict[str, Any], conf: dict[str, Any]) -> None:
    macs = [host.add(guarded, name)["interfaces"][2]["mac"] for name in ("c1", "c2")]
    host.add(conf | {"name": "open"}, "c3")
    for target in (macs[1], "ff:ff:ff:ff:ff:ff"):
        assert arrives(host, macs[0], target)
        assert not arrives(host, FOREIGN, target)
        assert not arrives(host, macs[1], target), "the MAC of another port of the network"
        assert arrives(host, FOREIGN, target, sender="c3"), "a port of a network without the key"
    for target in ("10.1.2.3", "fd00:1::3", "10.1.2.1", "fd00:1::1"):
        host.tool("ip", "netns", "exec", "c1", "ping", "-c", "1", "-W", "2", target)


def test_a_mac_that_was_asked_for_may_send(host: Any, guarded: dict[str, Any]) -> None:
    host.add(guarded, CNI_ARGS="MAC=02:00:00:00:00:0A")
    target = host.add(guarded, "c2")["interfaces"][2]["mac"]
    assert arrives(host, "02:00:00:00:00:0a", target)
    assert not arrives(host, FOREIGN, target)


def test_3_1_18_one_rule_a_network_two_elements_a_port_and_none_after_del(host: Any, guarded: dict[str, Any]) -> None:
    results = [host.add(guarded, name) for name in ("c1", "c2")]
    expected = {(each["interfaces"][1]["name"], each["interfaces"][2]["mac"]) for each in results}
    assert (senders(host), len(rows(host, "rule")), len(rows(host, "table"))) == (expected, 1, 1)
    host.tool("ip", "netns", "delete", "c1")
    host.delete(guarded | {"macspoofchk": False}, CNI_NETNS="")
    assert senders(host) == {(results[1]["interfaces"][1]["name"], results[1]["interfaces"][2]["mac"])}
    assert host.call("GC", guarded | {"cni.dev/valid-attachments": []}) == (0, None)
    assert rows(host, "table") == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("nft delete element bridge TABLE senders { HOST . MAC }", "macspoofchk of"),
        ("nft delete element bridge TABLE ports { HOST }", "macspoofchk of"),
        ("nft flush chain bridge TABLE spoofed", "the rules of chain bridge TABLE spoofed differ"),
        ("nft delete table bridge TABLE", "the rules of chain bridge TABLE spoofed are missing"),
    ],
)
def test_k3_check_names_what_is_missing(host: Any, guarded: dict[str, Any], damage: str, words: str) -> None:
    result = host.add(guarded)
    assert host.call("CHECK", guarded | {"prevResult": result}) == (0, None)
    table = rows(host, "table")[0]["name"]
    names = {"TABLE": table, "HOST": result["interfaces"][1]["name"], "MAC": result["interfaces"][2]["mac"]}
    for key, name in names.items():
        damage, words = damage.replace(key, name), words.replace(key, name)
    host.tool(*damage.split(maxsplit=4))
    code, error = host.call("CHECK", guarded | {"prevResult": result})
    assert (code, error["code"]) == (1, 999)
    assert words in error["details"]
