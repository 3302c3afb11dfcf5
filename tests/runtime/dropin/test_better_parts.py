"""Shaping and spoof check where podnet does better than the reference plugins, each case run on both (docs/cni.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import reference_plugins as reference

pytestmark = pytest.mark.kernel

# What containerd sends for the annotation kubernetes.io/ingress-bandwidth: 1M.
DEEP = {"ingressRate": 1_000_000, "ingressBurst": 2**32 - 1}
EGRESS = {"egressRate": 8_000_000, "egressBurst": 160_000}


@pytest.fixture
def network(tmp_path: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": str(tmp_path / "ipam")}
    return {"cniVersion": "0.4.0", "name": "net", "type": "bridge", "bridge": "br0", "isGateway": True, "ipam": ipam}


def chain(network: dict[str, Any], limits: dict[str, int], ifname: str = "eth0") -> dict[str, Any]:
    """An ADD by the reference bridge and bandwidth plugins."""
    result = reference.call("ADD", network, ifname=ifname)
    bandwidth = network | {"type": "bandwidth", "ipam": {}, "prevResult": result} | limits
    return reference.call("ADD", bandwidth, ifname=ifname)


def ours(network: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    return network | {"type": "podnet"} | keys


def depth(host: Any) -> int:
    """The bytes that the deepest token bucket holds, as ``tc`` shows them."""
    rows = json.loads(host.tool("tc", "-j", "qdisc", "show"))
    return max(int(row["options"]["burst"]) for row in rows if row["kind"] == "tbf")


def spoof_rules(host: Any) -> list[Any]:
    """All rules and elements of the family bridge that name a port."""
    rows = json.loads(host.tool("nft", "-j", "list", "ruleset"))["nftables"]
    bridge = [
        body for row in rows for kind, body in row.items() if kind in ("rule", "set") and body["family"] == "bridge"
    ]
    return [body for body in bridge if "cni-br-iface" in json.dumps(body) or body.get("elem")]


def test_a_burst_that_fits_no_32_bits(host: Any, network: dict[str, Any]) -> None:
    chain(network, DEEP)
    theirs = depth(host)
    reference.call("DEL", network)
    host.add(ours(network, DEEP))
    assert (theirs, depth(host)) == (21_474_835, 34_359_738)


def test_two_shaped_interfaces_of_one_container(host: Any, network: dict[str, Any]) -> None:
    chain(network, EGRESS)
    with pytest.raises(AssertionError, match="adding link: file exists"):
        chain(network, EGRESS, ifname="eth1")
    for ifname in ("eth0", "eth1"):
        reference.call("DEL", network, ifname=ifname)
    reference.call("DEL", network | {"type": "bandwidth", "ipam": {}})
    for ifname in ("eth0", "eth1"):
        host.add(ours(network, EGRESS), ifname=ifname)
    assert sum(each["ifname"].startswith("bwp") for each in host.ip("link")) == 2


def test_del_without_a_namespace_and_the_spoof_check(host: Any, network: dict[str, Any]) -> None:
    guarded = network | {"macspoofchk": True}
    reference.call("ADD", guarded)
    reference.call("DEL", guarded, CNI_NETNS="")
    assert len(spoof_rules(host)) == 4, "the reference plugin leaves them"
    host.tool("nft", "flush", "ruleset")
    host.add(ours(guarded, {}), "c2")
    assert len(spoof_rules(host)) == 2
    host.delete(ours(guarded, {}), "c2", CNI_NETNS="")
    assert spoof_rules(host) == []


def test_check_and_the_spoof_check(host: Any, network: dict[str, Any]) -> None:
    guarded = network | {"macspoofchk": True}
    theirs = reference.call("ADD", guarded)
    host.tool("nft", "flush", "ruleset")
    reference.call("CHECK", guarded | {"prevResult": theirs})
    mine = host.add(ours(guarded, {}), "c2")
    host.tool("nft", "flush", "ruleset")
    code, error = host.call("CHECK", ours(guarded, {"prevResult": mine}), "c2")
    assert (code, "macspoofchk" in error["details"]) == (1, True)


def test_check_and_the_buckets(host: Any, network: dict[str, Any]) -> None:
    theirs = chain(network, EGRESS)
    outer = theirs["interfaces"][1]["name"]
    host.tool("tc", "qdisc", "delete", "dev", outer, "ingress")  # nothing is led through the ifb any more
    reference.call("CHECK", network | {"type": "bandwidth", "ipam": {}, "prevResult": theirs} | EGRESS)
    mine = host.add(ours(network, EGRESS), "c2")
    outer = mine["interfaces"][1]["name"]
    host.tool("tc", "qdisc", "delete", "dev", outer, "ingress")
    details = host.call("CHECK", ours(network, EGRESS | {"prevResult": mine}), "c2")[1]["details"]
    assert f"what comes in by {outer} is not led through" in details
