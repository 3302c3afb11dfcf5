"""A small cluster made with `ip` alone: nodes on a switch, pods on their node's bridge."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_interface
from uuid import uuid4

from podnet.model.lab import Interface, Lab, Target

# Load nftables rules, in text, into the namespace of a target.
Rules = Callable[[str, str], None]


def ip(*words: str, netns: str = "") -> str:
    where = ["-n", netns] if netns else []
    return subprocess.run(["ip", *where, *words], check=True, capture_output=True, text=True).stdout


def batch(lines: list[str], netns: str = "") -> None:
    where = ["-n", netns] if netns else []
    subprocess.run(["ip", *where, "-batch", "-"], check=True, capture_output=True, text=True, input="\n".join(lines))


def inside(netns: str, *words: str, text: str = "") -> str:
    """Run a command in a namespace, and give what it prints."""
    command = ["ip", "netns", "exec", netns, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, input=text).stdout


@dataclass
class Cluster:
    """Node n (from 1) is 192.168.7.n, fd00:7::n; its pod p (from 1) is 10.244.n.(p+1), fd00:10:n::(p+1)."""

    nodes: int
    pods: int
    tag: str = field(default_factory=lambda: uuid4().hex[:6])
    made: list[str] = field(default_factory=list)

    def netns(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def pod_names(self) -> list[str]:
        return [f"p{n}-{p}" for n in range(1, self.nodes + 1) for p in range(1, self.pods + 1)]

    def build(self) -> None:
        self._namespace("switch")
        switch = self.netns("switch")
        batch(["link add br0 type bridge", "link set br0 up"], switch)
        self._host("client", "192.168.7.100/24", "fd00:7::100/64")
        for n in range(1, self.nodes + 1):
            self._host(f"node{n}", f"192.168.7.{n}/24", f"fd00:7::{n}/64")
            self._node(n)

    def _namespace(self, name: str) -> None:
        ip("netns", "add", self.netns(name))
        self.made.append(self.netns(name))
        ip("link", "set", "lo", "up", netns=self.netns(name))

    def _host(self, name: str, *addresses: str) -> None:
        self._namespace(name)
        port = f"s-{name}"
        batch(
            [
                f"link add eth0 type veth peer name {port} netns {self.netns('switch')}",
                "link set eth0 up",
                *(f"addr add {a} dev eth0 {'nodad' if ':' in a else ''}" for a in addresses),
            ],
            self.netns(name),
        )
        batch([f"link set {port} master br0", f"link set {port} up"], self.netns("switch"))

    def _node(self, n: int) -> None:
        node = self.netns(f"node{n}")
        inside(node, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        lines = [
            "link add br0 type bridge",
            f"addr add 10.244.{n}.1/24 dev br0",
            f"addr add fd00:10:{n}::1/64 dev br0 nodad",
        ]
        for p in range(1, self.pods + 1):
            self._namespace(f"p{n}-{p}")
            pod = self.netns(f"p{n}-{p}")
            lines += [f"link add v{p} type veth peer name eth0 netns {pod}", f"link set v{p} master br0 up"]
        lines.append("link set br0 up")
        for other in range(1, self.nodes + 1):
            if other != n:
                lines.append(f"route add 10.244.{other}.0/24 via 192.168.7.{other}")
                lines.append(f"route add fd00:10:{other}::/64 via fd00:7::{other}")
        batch(lines, node)
        for p in range(1, self.pods + 1):
            batch(
                [
                    f"addr add 10.244.{n}.{p + 1}/24 dev eth0",
                    f"addr add fd00:10:{n}::{p + 1}/64 dev eth0 nodad",
                    "link set eth0 up",
                    f"route add default via 10.244.{n}.1",
                    f"route add default via fd00:10:{n}::1",
                ],
                self.netns(f"p{n}-{p}"),
            )

    def settle(self) -> None:
        """Wait until IPv6 has looked for duplicates everywhere: link-local addresses are the kernel's own."""
        deadline = time.monotonic() + 30
        while any(ip("-6", "addr", "show", "tentative", netns=name) for name in self.made):
            assert time.monotonic() < deadline, "duplicate detection does not end"
            time.sleep(0.05)

    def know_neighbours(self) -> None:
        """Permanent IPv4 neighbours on every node's bridge: the kernel's table is one for all namespaces, and small."""
        for n in range(1, self.nodes + 1):
            node = self.netns(f"node{n}")
            ends = {f"10.244.{n}.1": self._mac(node, "br0")}
            ends |= {f"10.244.{n}.{p + 1}": self._mac(self.netns(f"p{n}-{p}"), "eth0") for p in self._numbers()}
            for netns, dev in [(node, "br0"), *((self.netns(f"p{n}-{p}"), "eth0") for p in self._numbers())]:
                lines = [f"neigh replace {a} lladdr {mac} nud permanent dev {dev}" for a, mac in ends.items()]
                batch(lines, netns)

    def _numbers(self) -> range:
        return range(1, self.pods + 1)

    @staticmethod
    def _mac(netns: str, dev: str) -> str:
        address: str = json.loads(ip("-j", "link", "show", dev, netns=netns))[0]["address"]
        return address

    def lab(self, versions: tuple[int, ...] = (4, 6)) -> Lab:
        targets = [self._target("client", "client")]
        for n in range(1, self.nodes + 1):
            targets.append(self._target(f"node{n}", "node"))
            targets += [self._target(f"p{n}-{p}", "pod", f"node{n}") for p in range(1, self.pods + 1)]
        return Lab("cluster", versions, tuple(targets))

    def _target(self, name: str, kind: str, node: str = "") -> Target:
        interfaces = tuple(
            Interface(
                link["ifname"],
                link["address"],
                link["mtu"],
                tuple(
                    ip_interface(f"{a['local']}/{a['prefixlen']}") for a in link["addr_info"] if a["scope"] == "global"
                ),
            )
            for link in json.loads(ip("-j", "addr", netns=self.netns(name)))
            if link["ifname"] in ("br0", "eth0")
        )
        return Target(name, kind, self.netns(name), interfaces, node)

    def remove(self) -> None:
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
