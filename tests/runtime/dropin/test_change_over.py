"""A live node whose network changes from the reference plugins to podnet, and the parts that come with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import reference_plugins as reference
import wire

pytestmark = pytest.mark.kernel


@pytest.fixture
def network(host: Any) -> dict[str, Any]:
    """A network as the reference plugins run it, whose reservations lie where podnet looks for them."""
    folder = host.state.parent / "networks"
    return {
        "cniVersion": "0.4.0", "name": "net", "type": "bridge", "bridge": "br0", "isDefaultGateway": True,
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/29", "dataDir": str(folder)},
    }  # fmt: skip


def podnet(network: dict[str, Any]) -> dict[str, Any]:
    return network | {"type": "podnet"}


def test_containers_keep_their_addresses_and_give_them_back(host: Any, network: dict[str, Any]) -> None:
    folder = Path(network["ipam"]["dataDir"]) / "net"
    old = [reference.call("ADD", network, name) for name in ("c1", "c2")]
    new = host.add(podnet(network), "c3")
    assert [each["ips"][0]["address"] for each in (*old, new)] == ["10.1.2.2/29", "10.1.2.3/29", "10.1.2.4/29"]
    host.tool("ip", "netns", "exec", "c1", "ping", "-c", "1", "-W", "5", "10.1.2.4")
    assert host.call("CHECK", podnet(network) | {"prevResult": old[0]}) == (0, None)
    host.delete(podnet(network))
    host.delete(podnet(network), "c2", CNI_NETNS="")
    assert sorted(each.name for each in folder.iterdir()) == ["last_reserved_ip.0", "lock"]
    assert [each["ifname"] for each in host.ip("link", netns="c1")] == ["lo"]
    again = host.add(podnet(network))["ips"][0]["address"]
    assert again == "10.1.2.5/29", "as host-local: on from the last one"


def test_check_of_what_the_reference_plugin_has_made_names_damage(host: Any, network: dict[str, Any]) -> None:
    result = reference.call("ADD", network)
    host.tool("ip", "-n", "c1", "route", "delete", "default")
    code, error = host.call("CHECK", podnet(network) | {"prevResult": result})
    assert (code, error["details"]) == (1, "route 0.0.0.0/0 via 10.1.2.1 dev eth0 in /run/netns/c1 is missing")


def test_a_reference_plugin_that_still_runs_is_seen(host: Any, network: dict[str, Any]) -> None:
    assert host.add(podnet(network), "c3")["ips"][0]["address"] == "10.1.2.2/29"
    reference.call("ADD", network, "c1", CNI_ARGS="IP=10.1.2.5;IgnoreUnknown=1")
    assert host.add(podnet(network), "c2")["ips"][0]["address"] == "10.1.2.3/29"
    code, error = host.call("ADD", podnet(network), "c3", "eth1", CNI_ARGS="IP=10.1.2.5")
    assert (code, "requested IP address 10.1.2.5 is not available" in error["msg"]) == (1, True)
    reference.call("DEL", network, "c1")
    assert host.add(podnet(network), "c3", "eth2", CNI_ARGS="IP=10.1.2.5")["ips"][0]["address"] == "10.1.2.5/29"


LIMITS = [
    {"ingressRate": 8_000_000, "ingressBurst": 160_000, "egressRate": 16_000_000, "egressBurst": 320_000},
    {"ingressRate": 123_456_789, "ingressBurst": 98_765_432, "egressRate": 3_000_000_000, "egressBurst": 2**31},
    {"ingressRate": 40_000_000_000, "ingressBurst": 2**32 - 1},
    {"egressRate": 1_000, "egressBurst": 20_000},
]


def qdiscs(host: Any, result: dict[str, Any]) -> dict[str, Any]:
    """What ``tc -j`` shows of the host end and the ifb, and where the one leads."""
    names = dict(zip((each["name"] for each in result["interfaces"]), "BHCI", strict=False))
    rows = json.loads(host.tool("tc", "-j", "qdisc", "show"))
    # Ours bear our mark as their handle.
    same = {"dev": "", "handle": ""}
    found = {f"{names.get(row['dev'], row['dev'])} {row['kind']}": row | same for row in rows}
    outer = result["interfaces"][1]["name"]
    filters = json.loads(host.tool("tc", "-j", "filter", "show", "dev", outer, "parent", "ffff:") or "[]")
    actions = [action for row in filters for action in row.get("options", {}).get("actions", [])]
    # The reference plugin adds a second action, which is never reached.
    found["leads to"] = [
        (a["mirred_action"], a["direction"], names[a["to_dev"]], a["control_action"]) for a in actions[:1]
    ]
    return found


@pytest.mark.parametrize("limits", LIMITS)
def test_3_5_2_the_reference_bandwidth_plugin_makes_the_same_buckets(
    host: Any, network: dict[str, Any], limits: dict[str, int]
) -> None:
    result = host.add(podnet(network))
    chained = network | {"prevResult": result, "ipam": {}} | limits
    theirs = reference.call("ADD", chained | {"type": "bandwidth"})
    expected = qdiscs(host, theirs)
    reference.call("DEL", chained | {"type": "bandwidth"})
    for kind in ("root", "ingress"):
        if any(
            key.startswith("H ") and (kind == "root") == row.get("root", False)
            for key, row in expected.items()
            if isinstance(row, dict) and row["kind"] != "noqueue"
        ):
            host.tool("tc", "qdisc", "delete", "dev", result["interfaces"][1]["name"], kind)
    ours = host.add(podnet(chained) | {"mode": "bandwidth"})
    assert qdiscs(host, ours) == expected
    assert [each.keys() for each in ours["interfaces"]] == [each.keys() for each in theirs["interfaces"]]
    host.delete(podnet(chained) | {"mode": "bandwidth"})


@pytest.mark.parametrize("plugin", ["reference", "podnet"])
def test_3_1_18_macspoofchk_has_the_same_effect(host: Any, network: dict[str, Any], plugin: str) -> None:
    guarded = network | {"macspoofchk": True}
    add = reference.call if plugin == "reference" else lambda command, conf, name: host.add(podnet(conf), name)
    macs = [add("ADD", guarded, name)["interfaces"][2]["mac"] for name in ("c1", "c2")]
    with wire.Port("c2") as port, wire.Port("c1") as out:
        out.send(wire.frame("02:00:00:00:00:99", macs[1], b"foreign"))
        out.send(wire.frame(macs[1], macs[1], b"stolen"))
        out.send(wire.frame(macs[0], macs[1], b"own"))
        assert port.payloads_until(b"own") == [b"own"]
