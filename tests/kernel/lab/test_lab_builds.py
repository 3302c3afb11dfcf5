"""What ``up`` builds: bridges, cables, addresses, routes, NAT, as the kernel shows them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lab_cli import Topology, clean, named, podnet, proved, succeeds, target, two_nodes, write
from lab_kernel import addresses, eventually, inside, ip, link, namespaces_of, routes, run, snapshot, sysctl, tables

pytestmark = pytest.mark.kernel


def _up(folder: Path, topology: Topology) -> Path:
    path = write(folder, topology)
    succeeds("up", path)
    return path


def _ports(netns: str, bridge: str) -> dict[str, dict[str, Any]]:
    """The ports of a bridge by the target at their other end (from the altname)."""
    rows = ip(netns, "-d", "link", "show", "master", bridge)
    return {row["altnames"][0].split(".")[-2]: row for row in rows}


class TestBridge:
    def test_it_holds_the_gateway_and_a_hairpin_port_for_each_pod(self, tmp_path: Path) -> None:
        _up(tmp_path, two_nodes())
        for node, pods, gateway in (("node1", {"web", "api"}, "10.244.0.1/24"), ("node2", {"db"}, "10.244.1.1/24")):
            bridge = link(f"lab.{node}", "podnet0")
            assert bridge["linkinfo"]["info_kind"] == "bridge"
            assert bridge["linkinfo"]["info_data"]["stp_state"] == 0
            assert "UP" in bridge["flags"]
            assert addresses(f"lab.{node}", "podnet0") == [gateway]
            ports = _ports(f"lab.{node}", "podnet0")
            assert ports.keys() == pods
            for pod, port in ports.items():
                assert port["linkinfo"]["info_kind"] == "veth"
                assert port["linkinfo"]["info_slave_data"]["hairpin"] is True
                assert "UP" in port["flags"]
                assert any(f"lab.{pod}.eth0" in name for name in port["altnames"])
                inner = link(f"lab.{pod}", "eth0")
                assert (inner["link_index"], port["link_index"]) == (port["ifindex"], inner["ifindex"])

    def test_its_mac_is_always_the_same(self, tmp_path: Path) -> None:
        topology = two_nodes()
        path = _up(tmp_path, topology)
        macs = {name: link(name, dev)["address"] for name, dev in (("lab.node1", "podnet0"), ("lab.web", "eth0"))}
        assert all(mac.startswith("0a:58:") for mac in macs.values())  # locally administered
        named(topology, "pods", "web")["labels"] = {"a": "b"}
        topology["pods"].append({"name": "new", "node": "node1"})
        write(tmp_path, topology)
        succeeds("up", path)
        assert macs == {
            name: link(name, dev)["address"] for name, dev in (("lab.node1", "podnet0"), ("lab.web", "eth0"))
        }
        succeeds("down", "lab")
        succeeds("up", path)
        assert macs == {
            name: link(name, dev)["address"] for name, dev in (("lab.node1", "podnet0"), ("lab.web", "eth0"))
        }

    def test_no_two_links_of_a_segment_share_a_mac(self, tmp_path: Path) -> None:
        topology = two_nodes(ipFamily="dual")
        topology["clients"] = [{"name": "laptop", "subnet": "underlay"}]
        _up(tmp_path, topology)
        macs = [row["address"] for name in namespaces_of("lab") for row in ip(name, "link") if row["ifname"] != "lo"]
        # Each node's bridge is a segment of its own; the underlay is another. No mac is twice in the whole lab.
        assert len(macs) == len(set(macs))

    def test_its_name_is_the_files(self, tmp_path: Path) -> None:
        _up(tmp_path, two_nodes(bridge="cni0"))
        assert link("lab.node1", "cni0")["linkinfo"]["info_kind"] == "bridge"
        assert addresses("lab.node1", "cni0") == ["10.244.0.1/24"]
        assert "podnet0" not in {row["ifname"] for row in ip("lab.node1", "link")}


class TestMtu:
    @pytest.mark.parametrize(
        ("networking", "underlay", "pods", "nodes"),
        [
            ({}, {}, 1500, 1500),
            ({}, {"mtu": 1400}, 1400, 1400),
            ({"mtu": 1300}, {}, 1300, 1500),
            ({"mtu": 1300}, {"mtu": 1400}, 1300, 1400),
            ({}, {"mtu": 9000}, 9000, 9000),
        ],
    )
    def test_it_comes_from_the_underlay_unless_the_file_says_otherwise(
        self, networking: Any, underlay: Any, pods: int, nodes: int, tmp_path: Path
    ) -> None:
        topology = two_nodes(**networking)
        topology["underlay"] = {"subnets": [{"name": "underlay", "cidr": "198.18.0.0/24", **underlay}]}
        _up(tmp_path, topology)
        assert link("lab.web", "eth0")["mtu"] == pods
        assert link("lab.node1", "podnet0")["mtu"] == pods
        assert {port["mtu"] for port in _ports("lab.node1", "podnet0").values()} == {pods}
        assert link("lab.node1", "eth0")["mtu"] == nodes
        assert {port["mtu"] for port in _ports("lab.underlay", "underlay").values()} == {nodes}
        # The largest packet that fits goes through unfragmented, one byte more does not leave the pod.
        ping = ("ping", "-c1", "-W5", "-Mdo", "10.244.1.2", "-s")
        run("lab.web", *ping, str(pods - 28))
        assert subprocess.run(inside("lab.web", *ping, str(pods - 27)), capture_output=True, check=False).returncode


class TestRoutes:
    def test_of_pods_nodes_and_clients_in_one_subnet(self, tmp_path: Path) -> None:
        topology = two_nodes()
        topology["clients"] = [{"name": "laptop", "subnet": "underlay"}]
        _up(tmp_path, topology)
        assert {dst: (row.get("gateway"), row["dev"]) for dst, row in routes("lab.web").items()} == {
            "default": ("10.244.0.1", "eth0")
        }
        assert {dst: (row.get("gateway"), row["dev"]) for dst, row in routes("lab.node1").items()} == {
            "10.244.1.0/24": ("198.18.0.3", "eth0")
        }
        assert {dst: (row.get("gateway"), row["dev"]) for dst, row in routes("lab.node2").items()} == {
            "10.244.0.0/24": ("198.18.0.2", "eth0")
        }
        assert routes("lab.laptop") == {}  # it knows no pod CIDR
        assert sysctl("lab.node1", "net/ipv4/ip_forward") == "1"
        assert sysctl("lab.web", "net/ipv4/ip_forward") == "0"

    def test_through_routers_in_a_chain(self, tmp_path: Path) -> None:
        """left - r1 - middle - r2 - right: from end to end over two routers, and every pair is proved."""
        topology: Topology = {
            "name": "lab",
            "networking": {"ipFamily": "dual"},
            "underlay": {
                "subnets": [
                    {"name": "left", "cidr": "198.18.1.0/24,fd00:1::/64"},
                    {"name": "middle", "cidr": "198.18.2.0/24,fd00:2::/64"},
                    {"name": "right", "cidr": "198.18.3.0/24,fd00:3::/64"},
                ],
                "routers": [
                    {"name": "r1", "subnets": ["left", "middle"]},
                    {"name": "r2", "subnets": ["middle", "right"]},
                ],
            },
            "nodes": [
                {"name": "n1", "subnet": "left"},
                {"name": "n2", "subnet": "middle"},
                {"name": "n3", "subnet": "right"},
            ],
            "pods": [{"name": f"p{i}", "node": f"n{i}"} for i in (1, 2, 3)],
        }
        _up(tmp_path, topology)
        hops = {dst: row.get("gateway") for dst, row in routes("lab.n1").items()}
        assert hops["default"] == hops["10.244.1.0/24"] == hops["10.244.2.0/24"] == "198.18.1.1"
        assert routes("lab.r1")["10.244.2.0/24"]["gateway"] == addresses("lab.r2", "eth0")[0].partition("/")[0]
        assert routes("lab.r1")["198.18.3.0/24"]["gateway"] == "198.18.2.2"
        assert routes("lab.r2")["10.244.0.0/24"]["gateway"] == "198.18.2.1"
        assert routes("lab.r2", 6)["fd00:10:244::/64"]["gateway"] == "fd00:2::1"
        assert addresses("lab.r1", "eth1") == ["198.18.2.1/24", "fd00:2::1/64"]
        for router in ("lab.r1", "lab.r2"):
            assert sysctl(router, "net/ipv4/ip_forward") == sysctl(router, "net/ipv6/conf/all/forwarding") == "1"
        clean()
        proved()

    def test_of_the_file(self, tmp_path: Path) -> None:
        topology = two_nodes()
        topology["clients"] = [
            {"name": "laptop", "subnet": "underlay", "routes": [{"dst": "10.244.0.0/16", "via": "198.18.0.2"}]}
        ]
        named(topology, "nodes", "node1")["routes"] = [
            {"dst": "192.0.2.0/25", "via": "198.18.0.3", "metric": 10, "mtu": 1400},
            {"dst": "192.0.2.128/25", "type": "blackhole"},
            {"dst": "203.0.113.0/25", "type": "unreachable"},
            {"dst": "203.0.113.128/25", "type": "prohibit", "metric": 9},
        ]
        named(topology, "pods", "web")["routes"] = [
            {"dst": "198.51.100.0/24", "via": "10.244.0.3"},
            {"dst": "203.0.113.0/24", "dev": "eth0"},
        ]
        _up(tmp_path, topology)
        found = routes("lab.node1")
        assert (found["192.0.2.0/25"]["gateway"], found["192.0.2.0/25"]["metric"]) == ("198.18.0.3", 10)
        assert found["192.0.2.0/25"]["metrics"] == [{"mtu": 1400}]
        assert found["192.0.2.128/25"]["type"] == "blackhole"
        assert found["203.0.113.0/25"]["type"] == "unreachable"
        assert (found["203.0.113.128/25"]["type"], found["203.0.113.128/25"]["metric"]) == ("prohibit", 9)
        assert routes("lab.web")["198.51.100.0/24"]["gateway"] == "10.244.0.3"
        assert "gateway" not in routes("lab.web")["203.0.113.0/24"]
        assert routes("lab.laptop")["10.244.0.0/16"]["gateway"] == "198.18.0.2"
        clean()

    def test_of_the_file_in_ipv6(self, tmp_path: Path) -> None:
        topology = two_nodes(ipFamily="ipv6")
        named(topology, "nodes", "node1")["routes"] = [
            {"dst": "2001:db8:1::/48", "via": "fd00:198:18::3", "metric": 10},
            {"dst": "2001:db8:2::/48", "type": "blackhole"},
            {"dst": "2001:db8:3::/48", "via": "fd00:198:18::3"},
        ]
        path = _up(tmp_path, topology)
        found = routes("lab.node1", 6)
        assert found["2001:db8:1::/48"]["metric"] == 10
        assert found["2001:db8:2::/48"]["type"] == "blackhole"
        assert found["2001:db8:3::/48"]["gateway"] == "fd00:198:18::3"
        clean()
        assert "nothing to change" in succeeds("up", path).out
        proved()


class TestAddresses:
    @pytest.mark.parametrize(
        ("family", "web", "gateway"),
        [
            ("ipv4", ["10.244.0.2/24"], ["10.244.0.1/24"]),
            ("ipv6", ["fd00:10:244::2/64"], ["fd00:10:244::1/64"]),
            ("dual", ["10.244.0.2/24", "fd00:10:244::2/64"], ["10.244.0.1/24", "fd00:10:244::1/64"]),
        ],
    )
    def test_of_each_family(self, family: str, web: list[str], gateway: list[str], tmp_path: Path) -> None:
        _up(tmp_path, two_nodes(ipFamily=family))
        assert addresses("lab.web", "eth0") == web
        assert addresses("lab.node1", "podnet0") == gateway
        # No detection of duplicates that cannot be: the addresses work from the first packet on.
        tentative = ip("lab.web", "-6", "address", "show", "tentative", "scope", "global")
        assert not [info for row in tentative for info in row["addr_info"] if info]

    def test_lo_is_up_everywhere(self, tmp_path: Path) -> None:
        topology = two_nodes(ipFamily="dual")
        topology["clients"] = [{"name": "laptop", "subnet": "underlay"}]
        _up(tmp_path, topology)
        names = namespaces_of("lab")
        assert len(names) == 7
        for name in names:
            assert "UP" in link(name, "lo")["flags"], name
            assert addresses(name, "lo") == ["127.0.0.1/8", "::1/128"], name

    def test_that_the_file_fixes(self, tmp_path: Path) -> None:
        topology = two_nodes(podSubnet="10.1.0.0/16", nodeCIDRMaskSizeIPv4=26)
        named(topology, "nodes", "node1")["podCIDR"] = "10.1.7.0/26"
        named(topology, "nodes", "node1")["addresses"] = ["198.18.0.50"]
        named(topology, "pods", "api")["addresses"] = ["10.1.7.2"]
        _up(tmp_path, topology)
        assert addresses("lab.node1", "podnet0") == ["10.1.7.1/26"]
        assert addresses("lab.node1", "eth0") == ["198.18.0.50/24"]
        assert addresses("lab.api", "eth0") == ["10.1.7.2/26"]
        assert addresses("lab.web", "eth0") == ["10.1.7.3/26"]  # the fixed one is passed over
        assert addresses("lab.db", "eth0") == ["10.1.0.2/26"]
        assert routes("lab.node2")["10.1.7.0/26"]["gateway"] == "198.18.0.50"
        clean()
        proved()

    def test_of_replicas(self, tmp_path: Path) -> None:
        topology = two_nodes()
        named(topology, "pods", "web")["replicas"] = 3
        _up(tmp_path, topology)
        found = {name: addresses(f"lab.{name}", "eth0") for name in ("web-0", "web-1", "web-2", "api")}
        assert found == {
            "web-0": ["10.244.0.2/24"],
            "web-1": ["10.244.0.3/24"],
            "web-2": ["10.244.0.4/24"],
            "api": ["10.244.0.5/24"],
        }
        clean()

    def test_status_shows_what_the_kernel_has(self, tmp_path: Path) -> None:
        _up(tmp_path, two_nodes(ipFamily="dual"))
        for name, devices in (("web", ["eth0"]), ("node1", ["eth0", "podnet0"])):
            shown = target("lab", name)
            assert shown["netns"] == f"lab.{name}"
            assert [each["name"] for each in shown["interfaces"]] == devices
            for each in shown["interfaces"]:
                there = link(f"lab.{name}", each["name"])
                assert (each["mac"], each["mtu"]) == (there["address"], there["mtu"])
                assert each["addresses"] == addresses(f"lab.{name}", each["name"])
        assert target("lab", "web")["node"] == "node1"


class TestSysctls:
    def test_of_nodes_pods_clients_and_routers(self, tmp_path: Path) -> None:
        topology = two_nodes()
        topology["underlay"] = {
            "subnets": [{"name": "underlay", "cidr": "198.18.0.0/24"}, {"name": "far", "cidr": "198.18.9.0/24"}],
            "routers": [
                {"name": "router", "subnets": ["underlay", "far"], "sysctls": {"net.ipv4.conf.all.rp_filter": 2}}
            ],
        }
        for node in topology["nodes"]:
            node["subnet"] = "underlay"
        topology["clients"] = [
            {"name": "laptop", "subnet": "far", "sysctls": {"net.ipv4.icmp_echo_ignore_broadcasts": "0"}}
        ]
        named(topology, "nodes", "node1")["sysctls"] = {"net.ipv4.conf.eth0.rp_filter": "1"}
        named(topology, "pods", "web")["sysctls"] = {"net.ipv4.ip_local_port_range": "2000 3000"}
        _up(tmp_path, topology)
        assert sysctl("lab.node1", "net/ipv4/conf/eth0/rp_filter") == "1"
        assert sysctl("lab.node2", "net/ipv4/conf/eth0/rp_filter") == "0"
        assert sysctl("lab.web", "net/ipv4/ip_local_port_range").split() == ["2000", "3000"]
        assert sysctl("lab.router", "net/ipv4/conf/all/rp_filter") == "2"
        assert sysctl("lab.laptop", "net/ipv4/icmp_echo_ignore_broadcasts") == "0"
        clean()


_RECEIVE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 5000))
s.settimeout(30)
print("ready", flush=True)
print(s.recvfrom(10)[1][0])
"""


def source_seen(sender: str, receiver: str, address: str) -> str:
    """The address from which the receiver sees what the sender sends to ``address``."""
    argv = inside(receiver, sys.executable, "-c", _RECEIVE, address)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        assert listening.stdout.readline() == "ready\n"
        send = f"import socket; socket.socket(socket.AF_INET{'6' if ':' in address else ''}, socket.SOCK_DGRAM)"
        run(sender, sys.executable, "-c", f"{send}.sendto(b'x', ('{address}', 5000))")
        return listening.stdout.readline().strip()


class TestMasquerade:
    @pytest.mark.parametrize("family", ["ipv4", "dual"])
    def test_only_what_leaves_the_cluster(self, family: str, tmp_path: Path) -> None:
        topology = two_nodes(ipFamily=family)
        topology["clients"] = [{"name": "laptop", "subnet": "underlay"}]
        _up(tmp_path, topology)
        assert tables("lab.node1") == ["inet podnet"]
        assert source_seen("lab.web", "lab.laptop", "198.18.0.4") == "198.18.0.2"
        assert source_seen("lab.db", "lab.laptop", "198.18.0.4") == "198.18.0.3"
        assert source_seen("lab.web", "lab.db", "10.244.1.2") == "10.244.0.2"
        assert source_seen("lab.web", "lab.node2", "198.18.0.3") == "10.244.0.2"  # a node is of the cluster
        assert source_seen("lab.web", "lab.node2", "10.244.1.1") == "10.244.0.2"
        assert source_seen("lab.node1", "lab.laptop", "198.18.0.4") == "198.18.0.2"
        if family == "dual":
            assert source_seen("lab.web", "lab.laptop", "fd00:198:18::4") == "fd00:198:18::2"
            assert source_seen("lab.web", "lab.db", "fd00:10:244:1::2") == "fd00:10:244::2"
            assert source_seen("lab.web", "lab.node2", "fd00:198:18::3") == "fd00:10:244::2"

    def test_not_at_all_where_the_file_says_so(self, tmp_path: Path) -> None:
        topology = two_nodes(masquerade=False)
        topology["clients"] = [{"name": "laptop", "subnet": "underlay"}]
        _up(tmp_path, topology)
        assert tables("lab.node1") == []
        assert source_seen("lab.web", "lab.laptop", "198.18.0.4") == "10.244.0.2"

    def test_one_rule_for_all_pods(self, tmp_path: Path) -> None:
        topology = two_nodes()
        named(topology, "pods", "web")["replicas"] = 10
        _up(tmp_path, topology)
        ruleset = run("lab.node1", "nft", "list", "ruleset")
        assert len(re.findall(r"\bmasquerade\b", ruleset)) == 1


class TestHostNode:
    TOPOLOGY: Topology = {  # noqa: RUF012
        "name": "lab",
        "networking": {"ipFamily": "dual"},
        "nodes": [{"name": "host", "host": True}, {"name": "node2"}],
        "pods": [{"name": "web", "node": "host"}, {"name": "db", "node": "node2"}],
        "clients": [{"name": "laptop", "subnet": "underlay"}],
    }

    @pytest.mark.parametrize("before", ["0", "1"])
    def test_it_is_the_machine_and_all_is_put_back(self, before: str, tmp_path: Path) -> None:
        for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            Path("/proc/sys", name).write_text(before)
        try:
            was = snapshot("")
            _up(tmp_path, self.TOPOLOGY)
            assert "lab.host" not in namespaces_of("lab")
            assert addresses("", "podnet0") == ["10.244.0.1/24", "fd00:10:244::1/64"]
            assert tables("") == ["inet podnet-lab"]
            assert sysctl("", "net/ipv4/ip_forward") == sysctl("", "net/ipv6/conf/all/forwarding") == "1"
            uplink = routes("")["10.244.1.0/24"]["dev"]
            assert uplink.startswith("podnet")
            assert len(uplink) <= 15
            assert addresses("", uplink) == ["198.18.0.2/24", "fd00:198:18::2/64"]
            assert "default" not in routes("")
            assert target("lab", "host")["netns"] is None
            assert source_seen("lab.web", "lab.laptop", "198.18.0.4") == "198.18.0.2"
            assert source_seen("lab.web", "lab.db", "10.244.1.2") == "10.244.0.2"
            clean()
            proved()
            succeeds("down", "lab")
            eventually(lambda: snapshot("")["links"] == was["links"])
            assert snapshot("") == was
        finally:
            for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
                Path("/proc/sys", name).write_text("0")

    def test_two_such_nodes_are_refused(self, tmp_path: Path) -> None:
        topology = {**self.TOPOLOGY, "nodes": [{"name": "a", "host": True}, {"name": "b", "host": True}], "pods": []}
        done = podnet("up", write(tmp_path, topology))
        assert done.code == 2
        assert "at most one node" in done.err
