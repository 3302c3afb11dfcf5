"""Shaping (2.5, 3.5), seen with ``tc`` and measured with streams of bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import wire

from podnet.cni.plugin.machine import Machine
from podnet.errors import KernelError

pytestmark = pytest.mark.kernel

LIMITS = {"ingressRate": 8_000_000, "ingressBurst": 160_000, "egressRate": 16_000_000, "egressBurst": 320_000}
RUNTIME = {"runtimeConfig": {"bandwidth": LIMITS}}
SIZE = 500_000


def qdiscs(host: Any, device: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (row["kind"], row.get("options", {}))
        for row in json.loads(host.tool("tc", "-j", "qdisc", "show", "dev", device))
    ]


def ifbs(host: Any) -> list[str]:
    return [each["ifname"] for each in host.ip("link") if each["ifname"].startswith("bwp")]


def bucket(rate: int, burst: int) -> dict[str, Any]:
    return {"rate": rate // 8, "burst": burst // 8, "lat": 25_000}


@pytest.fixture(params=["bridge", "ptp"])
def network(request: pytest.FixtureRequest, conf: dict[str, Any]) -> dict[str, Any]:
    return conf | {"mode": request.param}


@pytest.mark.parametrize(
    "keys",
    [
        LIMITS,
        RUNTIME,
        {"runtimeConfig": {"bandWidth": LIMITS}},
        {"runtimeConfig": {"bandwidth": {key[0].upper() + key[1:]: value for key, value in LIMITS.items()}}},
        LIMITS | {"runtimeConfig": {"bandwidth": {"ingressRate": 1000, "ingressBurst": 1000}}},
    ],
    ids=["static", "runtime", "bandWidth", "containerd", "static before runtime"],
)
def test_3_5_2_3_5_4_a_bucket_for_each_way(host: Any, network: dict[str, Any], keys: dict[str, Any]) -> None:
    result = host.add(network | keys | {"mtu": 1400})
    outer, ifb = next(e["name"] for e in result["interfaces"] if e["name"].startswith("veth")), ifbs(host)[0]
    assert result["interfaces"][-1] == {"name": ifb, "mac": host.link(ifb)["address"], "mtu": 1400}
    (kind, got), (ingress, _) = qdiscs(host, outer)
    assert (kind, ingress, got | bucket(8_000_000, 160_000)) == ("tbf", "ingress", got)
    [(kind, sent)] = qdiscs(host, ifb)
    assert (kind, sent | bucket(16_000_000, 320_000)) == ("tbf", sent)
    filters = json.loads(host.tool("tc", "-j", "filter", "show", "dev", outer, "parent", "ffff:"))
    actions = [action for row in filters for action in row.get("options", {}).get("actions", [])]
    assert [(each["mirred_action"], each["direction"], each["to_dev"]) for each in actions] == [
        ("redirect", "egress", ifb)
    ]
    assert host.ip("link", "show", ifb)[0]["ifalias"] == "podnet.net.c1.eth0"


@pytest.mark.parametrize("way", ["ingress", "egress"])
def test_3_5_3_one_way_makes_its_half_only(host: Any, conf: dict[str, Any], way: str) -> None:
    result = host.add(conf | {key: value for key, value in LIMITS.items() if key.startswith(way)})
    outer = result["interfaces"][1]["name"]
    kinds = [kind for kind, _ in qdiscs(host, outer)]
    assert (kinds, len(ifbs(host))) == ((["tbf"], 0) if way == "ingress" else (["noqueue", "ingress"], 1))


@pytest.mark.parametrize("netns", ["", "/run/netns/c1", "/run/netns/absent"])
def test_3_5_6_del_leaves_no_device_with_or_without_a_namespace(host: Any, network: dict[str, Any], netns: str) -> None:
    host.delete(network | LIMITS)  # never added
    host.add(network | LIMITS)
    for _ in range(2):
        host.delete(network, CNI_NETNS=netns)  # the limits are not in the configuration any more
        assert (ifbs(host), host.ledger("part"), host.ledger("holder")) == ([], [], [])


def test_d6_each_interface_of_a_container_has_a_device_of_its_own(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf | LIMITS)
    host.add(conf | LIMITS | {"isDefaultGateway": False, "isGateway": True}, ifname="eth1")
    assert len(ifbs(host)) == 2
    host.delete(conf, ifname="eth1")
    assert len(ifbs(host)) == 1


def test_g1_gc_takes_the_devices_of_what_is_not_valid(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf | LIMITS)
    host.add(conf | LIMITS, "c2")
    kept = [each["ifname"] for each in host.ip("link") if each.get("ifalias") == "podnet.net.c2.eth0"]
    valid = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
    assert host.call("GC", conf | valid) == (0, None)
    assert ifbs(host) == kept != []
    assert host.call("GC", conf | {"cni.dev/valid-attachments": []}) == (0, None)
    assert ifbs(host) == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("tc qdisc replace dev HOST root handle 1: tbf rate 9mbit burst 20000b latency 25ms",
         "ingress rate of HOST is 9000000 bit/s, should be 8000000"),
        ("tc qdisc replace dev IFB root handle 1: tbf rate 16mbit burst 20000b latency 25ms",
         "egress burst of IFB is 160000 bit, should be 320000"),
        ("tc qdisc delete dev HOST root", "ingress of HOST is not limited"),
        ("tc qdisc delete dev IFB root", "egress of IFB is not limited"),
        ("tc qdisc delete dev HOST ingress", "what comes in by HOST is not led through IFB"),
        ("ip link delete IFB", "egress device IFB is missing"),
    ],
)  # fmt: skip
def test_k3_check_names_the_difference(host: Any, network: dict[str, Any], damage: str, words: str) -> None:
    result = host.add(network | LIMITS)
    check = network | LIMITS | {"prevResult": result}
    assert host.call("CHECK", check) == (0, None)
    outer = next(each["name"] for each in result["interfaces"] if each["name"].startswith("veth"))
    names = {"HOST": outer, "IFB": ifbs(host)[0]}
    for key, name in names.items():
        damage, words = damage.replace(key, name), words.replace(key, name)
    host.tool(*damage.split())
    code, error = host.call("CHECK", check)
    assert (code, error["code"]) == (1, 999)
    assert words in error["details"]


def test_3_5_8_a_shaped_container_is_slower_than_an_unshaped_one_both_ways(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf | LIMITS)
    for name in ("c2", "c3"):
        host.add(conf, name)
    # A stream begins with a burst, and a busy machine makes a stream slower, never faster.
    assert wire.rate("c2", "c1", "10.1.2.2", SIZE) < 1.5 * LIMITS["ingressRate"]
    assert wire.rate("c1", "c2", "fd00:1::3", SIZE) < 1.5 * LIMITS["egressRate"]
    assert wire.rate("c2", "c3", "10.1.2.4", 20 * SIZE) > 3 * LIMITS["egressRate"]


def test_3_5_8_a_deep_bucket_lets_a_burst_pass(host: Any, conf: dict[str, Any]) -> None:
    # containerd sends the largest burst of 32 bits: 512 MiB.
    deep = {"ingressRate": 1_000_000, "ingressBurst": 2**32 - 1, "egressRate": 1_000_000, "egressBurst": 2**32 - 1}
    result = host.add(conf | deep)
    host.add(conf, "c2")
    assert wire.rate("c2", "c1", "10.1.2.2", SIZE) > 8 * deep["ingressRate"]
    assert wire.rate("c1", "c2", "10.1.2.3", SIZE) > 8 * deep["egressRate"]
    assert host.call("CHECK", conf | deep | {"prevResult": result}) == (0, None)


@pytest.mark.parametrize("key", ["unshapedSubnets", "shapedSubnets"])
@pytest.mark.parametrize(("slow", "fast"), [("10.1.2.4/32", "10.1.2.3/32"), ("fd00:1::4/128", "fd00:1::3/128")])
def test_2_5_subnets_choose_what_is_shaped(host: Any, conf: dict[str, Any], key: str, slow: str, fast: str) -> None:
    limits = LIMITS | {key: [slow if key == "shapedSubnets" else fast]}
    result = host.add(conf | limits)
    for name in ("c2", "c3"):
        host.add(conf, name)
    near = "fd00:1::2" if ":" in slow else "10.1.2.2"
    addresses = {"c2": fast.partition("/")[0], "c3": slow.partition("/")[0]}
    assert wire.rate("c3", "c1", near, SIZE) < 1.5 * LIMITS["ingressRate"]
    assert wire.rate("c1", "c3", addresses["c3"], SIZE) < 1.5 * LIMITS["egressRate"]
    assert wire.rate("c2", "c1", near, 10 * SIZE) > 3 * LIMITS["ingressRate"]
    assert wire.rate("c1", "c2", addresses["c2"], 10 * SIZE) > 3 * LIMITS["egressRate"]
    assert host.call("CHECK", conf | limits | {"prevResult": result}) == (0, None)
    host.delete(conf)
    assert ifbs(host) == []


def test_2_5_a_later_plugin_of_a_chain_shapes_what_another_has_made(host: Any, conf: dict[str, Any]) -> None:
    result = host.add(conf | {"name": "other"})
    chained = conf | {"name": "other", "mode": "bandwidth", "ipam": None} | LIMITS
    answer = host.add(chained | {"prevResult": result})
    outer, ifb = result["interfaces"][1]["name"], ifbs(host)[0]
    assert answer["interfaces"] == [*result["interfaces"], answer["interfaces"][3]]
    assert answer["interfaces"][3]["name"] == ifb
    assert [kind for kind, _ in qdiscs(host, outer)] == ["tbf", "ingress"]
    assert host.call("CHECK", chained | {"prevResult": answer}) == (0, None)
    host.delete(chained)
    assert ([kind for kind, _ in qdiscs(host, outer)], ifbs(host)) == (["noqueue"], [])


@pytest.mark.parametrize("late", [False, True])
def test_a8_a_later_plugin_of_a_chain_that_fails_at_any_step_leaves_nothing(
    host: Any, conf: dict[str, Any], late: bool
) -> None:
    result = host.add(conf | {"name": "other"})
    outer = result["interfaces"][1]["name"]
    before = host.snapshot(), qdiscs(host, outer)
    chained = conf | {"name": "other", "mode": "bandwidth", "ipam": None, "prevResult": result} | LIMITS
    sent = 0

    class Failing(Machine):
        def send(self, what: str, messages: Any) -> None:
            nonlocal sent
            for each in messages:
                number, sent = sent, sent + 1
                if number != fail_at or late:
                    super().send(what, [each])
                if number == fail_at:
                    raise KernelError("refused by the test", 5)

    for fail_at in range(20):
        sent, host.machine = 0, Failing
        code, answer = host.call("ADD", chained)
        host.machine = Machine
        if code == 0:
            break
        assert "refused by the test" in answer["msg"]
        assert (host.snapshot(), qdiscs(host, outer)) == before, fail_at
    assert fail_at == 6


@pytest.mark.parametrize("there", ["root tbf rate 1mbit burst 10kb latency 25ms", "ingress"])
def test_2_5_what_another_has_shaped_is_refused_and_left(host: Any, conf: dict[str, Any], there: str) -> None:
    result = host.add(conf | {"name": "other"})
    outer = result["interfaces"][1]["name"]
    host.tool("tc", "qdisc", "add", "dev", outer, *there.split())
    before = host.snapshot(), qdiscs(host, outer)
    chained = conf | {"name": "other", "mode": "bandwidth", "ipam": None} | LIMITS
    code, error = host.call("ADD", chained | {"prevResult": result})
    assert (code, f"{outer} is shaped already, by another plugin" in error["msg"]) == (1, True), error
    host.delete(chained)
    assert (host.snapshot(), qdiscs(host, outer)) == before


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"ips": []}, "no interfaces provided"),
        ({"interfaces": [{"name": "br0"}]}, "no veth peer of container interface found in host ns"),
    ],
)
def test_3_5_7_what_a_later_plugin_does_not_find(
    host: Any, conf: dict[str, Any], result: dict[str, Any], message: str
) -> None:
    made = host.add(conf | {"name": "other"})
    before = host.snapshot()
    chained = conf | {"name": "other", "mode": "bandwidth", "ipam": None} | LIMITS
    code, error = host.call("ADD", chained | {"prevResult": {"cniVersion": "1.1.0"} | result})
    assert (code, error["msg"]) == (1, message)
    code, error = host.call("ADD", chained | {"prevResult": made}, ifname="lo")
    assert (code, error["msg"]) == (1, "container interface lo has no veth peer")
    assert host.call("ADD", chained)[1]["msg"] == "must be called as chained plugin"
    assert host.snapshot() == before
