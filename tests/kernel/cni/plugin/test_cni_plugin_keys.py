"""Keys of bridge, ptp and host-local (2.1 to 2.3) and behaviours of their tests (3.1 to 3.3), one case each.

What the bridge, ptp, import, spoof and bandwidth tests beside this one have is not here again.
"""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.kernel

FLAT = {"isDefaultGateway": False, "ipMasq": False}


def ranges(*subnets: str) -> dict[str, Any]:
    return {"type": "host-local", "ranges": [[{"subnet": each}] for each in subnets]}


@pytest.mark.parametrize(
    ("attributes", "seen"),
    [
        ({"mtu": 1300}, {"metrics": [{"mtu": 1300}]}),
        ({"advmss": 1200}, {"metrics": [{"advmss": 1200}]}),
        ({"mtu": 1300, "advmss": 1200}, {"metrics": [{"mtu": 1300, "advmss": 1200}]}),
        ({"priority": 77}, {"metric": 77}),
        ({"table": 100}, {"table": "100"}),
        ({"table": 254}, {"table": "main"}),
        ({"scope": 253}, {"scope": "link", "gateway": None}),
        ({"scope": 200, "gw": "10.1.2.5"}, {"scope": "site", "gateway": "10.1.2.5"}),
    ],
)
@pytest.mark.parametrize("mode", ["bridge", "ptp"])
def test_2_3_the_attributes_of_routes_are_applied_and_reported(
    host: Any, conf: dict[str, Any], attributes: dict[str, Any], seen: dict[str, Any], mode: str
) -> None:
    if mode == "ptp" and "gw" in attributes:
        attributes, seen = attributes | {"gw": "10.1.2.1"}, seen | {"gateway": "10.1.2.1"}
    route = {"dst": "10.9.0.0/16"} | attributes
    conf["ipam"]["routes"] = [route]
    network = conf | {"mode": mode}
    result = host.add(network)
    assert route in result["routes"]
    rows = host.ip("-4", "route", "show", "table", "all", netns="c1")
    found = next(row for row in rows if row["dst"] == "10.9.0.0/16")
    expected = {"gateway": "10.1.2.1", "table": "main"} | seen
    assert {key: found.get(key) for key in expected} == expected
    assert host.call("CHECK", network | {"prevResult": result}) == (0, None)


@pytest.mark.parametrize(("attributes", "seen"), [({"mtu": 1300, "advmss": 1200}, [{"mtu": 1300, "advmss": 1200}])])
def test_2_3_ipv6_too(host: Any, conf: dict[str, Any], attributes: dict[str, Any], seen: Any) -> None:
    conf["ipam"]["routes"] = [{"dst": "fd00:9::/64", "scope": 0, "priority": 5} | attributes]
    host.add(conf)
    found = next(row for row in host.ip("-6", "route", netns="c1") if row["dst"] == "fd00:9::/64")
    assert (found["metrics"], found["metric"], found["gateway"]) == (seen, 5, "fd00:1::1")


def test_2_1_the_bridge_is_cni0_by_default_with_the_mtu_of_who_makes_it(host: Any, conf: dict[str, Any]) -> None:
    del conf["bridge"]
    first = host.add(conf | {"mtu": 1400})
    second = host.add(conf | {"mtu": 1300}, "c2")
    assert [(each["name"], each["mtu"]) for each in first["interfaces"][::2]] == [("cni0", 1400), ("eth0", 1400)]
    assert [(each["name"], each["mtu"]) for each in second["interfaces"][::2]] == [("cni0", 1400), ("eth0", 1300)]
    assert (host.link("cni0")["mtu"], host.link("eth0", "c2")["mtu"]) == (1400, 1300)


def test_2_1_the_gateway_is_the_subnets_first_address_where_ipam_names_none(host: Any, conf: dict[str, Any]) -> None:
    conf["ipam"] = {"type": "host-local", "subnet": "10.1.2.128/25"}
    assert host.add(conf)["ips"][0]["gateway"] == "10.1.2.129"
    assert host.addresses("br0") == ["10.1.2.129/25"]


def test_2_3_a_gateway_outside_the_subnet_is_accepted(host: Any, conf: dict[str, Any]) -> None:
    conf["ipam"] = {"type": "host-local", "subnet": "10.1.2.0/24", "gateway": "10.9.9.9"}
    assert host.add(conf | FLAT)["ips"] == [{"interface": 2, "address": "10.1.2.1/24", "gateway": "10.9.9.9"}]


@pytest.mark.parametrize("backend", ["iptables", "nftables", None])
def test_2_1_either_backend_is_accepted_and_nftables_does_it(host: Any, conf: dict[str, Any], backend: Any) -> None:
    host.add(conf | {"ipMasqBackend": backend})
    assert host.elements() == {"10.1.2.2", "fd00:1::2"}


def test_3_1_2_three_subnets(host: Any, conf: dict[str, Any]) -> None:
    subnets = ("10.1.2.0/24", "2001:db8:1::/64", "192.168.0.0/24")
    conf["ipam"] = ranges(*subnets)
    # The reference bridge has one IPv4 address too: the third gateway needs a bridge without one.
    result = host.add(conf | FLAT)
    assert [each["address"] for each in result["ips"]] == ["10.1.2.2/24", "2001:db8:1::2/64", "192.168.0.2/24"]
    assert host.addresses("eth0", "c1") == ["10.1.2.2/24", "192.168.0.2/24", "2001:db8:1::2/64"]
    host.delete(conf)
    assert host.ledger("lease") == []


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_3_1_2_old_versions_have_one_address_of_each_family(host: Any, conf: dict[str, Any], version: str) -> None:
    before = host.snapshot()
    old = conf | {"cniVersion": version, "ipam": ranges("10.1.2.0/24", "192.168.0.0/24")}
    code, error = host.call("ADD", old)
    assert (code, error["msg"]) == (1, f"CNI version {version} does not support more than 1 address per family")
    assert host.snapshot() == before
    # The reference plugin refuses DEL as well; ours cleans whatever there is.
    host.delete(old)


def test_3_1_7_the_default_route_has_no_source(host: Any, conf: dict[str, Any]) -> None:
    host.add(conf)
    rows = host.ip("-4", "route", "show", "default", netns="c1") + host.ip("-6", "route", "show", "default", netns="c1")
    assert [row.get("prefsrc") for row in rows] == [None, None]
    addresses = [each for each in host.link("eth0", "c1")["addr_info"] if each["family"] == "inet6"]
    assert len(addresses) == 2, "one that was asked for, one link-local"


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
@pytest.mark.parametrize(
    ("dns", "found"),
    [
        (None, {"nameservers": ["192.0.2.1"]}),
        ({}, {"nameservers": ["192.0.2.1"]}),
        ({"nameservers": ["192.0.2.9"]}, {"nameservers": ["192.0.2.9"]}),
        ({"domain": "a.test"}, {"domain": "a.test"}),
        ({"nameservers": []}, None),
        ({"search": [], "options": []}, None),
    ],
)
def test_3_2_6_which_dns_counts(
    host: Any, conf: dict[str, Any], tmp_path: Any, dns: Any, found: Any, mode: str
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    conf["ipam"]["resolvConf"] = str(tmp_path / "resolv.conf")
    assert host.add(conf | {"dns": dns, "mode": mode}).get("dns") == found


@pytest.mark.parametrize(
    ("keys", "code", "message"),
    [
        ({"CNI_ARGS": "MAC=nonsense"}, 7, "CNI_ARGS MAC: 'nonsense' is no MAC address"),
        ({"CNI_ARGS": "IP=10.1.2.9"}, 999, "failed to allocate all requested IPs: 10.1.2.9"),
        ({"CNI_ARGS": "IP=10.1.2.1"}, 999, "failed to allocate for range 0: requested ip 10.1.2.1 is subnet's gateway"),
        ({"ipam": {"type": "host-local", "resolvConf": "/nonexistent", "subnet": "10.1.2.0/24"}}, 5, "/nonexistent"),
        ({"ipam": {"type": "host-local", "subnet": "10.1.2.0/31"}}, 7, "Network 10.1.2.0/31 too small to allocate"),
        ({"ipam": ranges("10.1.0.0/16", "10.1.2.0/24")}, 7, "range set 1 overlaps with 0"),
        ({"ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "routes": [{"dst": "x"}]}}, 6, "routes"),
        ({"ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "routes": [{"dst": "10.0.0.0/8", "gw": "10.5.5.5"}]}},
         999, "route 10.0.0.0/8 via 10.5.5.5"),
    ],
)  # fmt: skip
def test_2_3_what_is_refused_leaves_nothing(
    host: Any, conf: dict[str, Any], keys: dict[str, Any], code: int, message: str
) -> None:
    before = host.snapshot()
    environ = {key: value for key, value in keys.items() if key == "CNI_ARGS"}
    exit_code, error = host.call("ADD", conf | {k: v for k, v in keys.items() if k != "CNI_ARGS"}, **environ)
    assert (exit_code, error["code"]) == (1, code), error
    assert message in error["msg"]
    assert host.snapshot() == before


def test_2_3_one_address_of_each_pool_and_pools_go_on_where_one_ends(host: Any, conf: dict[str, Any]) -> None:
    pool = [{"subnet": "10.1.2.0/30"}, {"subnet": "10.1.3.0/30"}]
    conf["ipam"] = {"type": "host-local", "ranges": [pool]}
    found = [host.add(conf | FLAT, name)["ips"][0] for name in ("c1", "c2")]
    assert [each["address"] for each in found] == ["10.1.2.2/30", "10.1.3.2/30"]
    assert host.call("ADD", conf | FLAT, "c3")[1]["msg"] == (
        "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.2,10.1.3.1-10.1.3.2"
    )
