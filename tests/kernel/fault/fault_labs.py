"""The labs in which faults are tried: small ones of every shape, and those under topologies/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

TOPOLOGIES = Path(__file__).parents[3] / "topologies"

# A kernel holds ICMP errors back after a burst of six, and the probes then wait for it: that is tested elsewhere.
_ALL_ERRORS = {"net.ipv4.icmp_ratelimit": "0"}
_ALL_ERRORS6 = _ALL_ERRORS | {"net.ipv6.icmp.ratelimit": "0"}

TWO_NODES: dict[str, Any] = {
    "name": "two",
    "networking": {"ipFamily": "dual"},
    "nodes": [{"name": "node1"}, {"name": "node2"}],
    "pods": [
        {"name": "web", "node": "node1"},
        {"name": "api", "node": "node1"},
        {"name": "db", "node": "node2"},
    ],
}

# A router between two subnets, one pod a node, and a client that sees pods only behind their nodes.
SUBNETS: dict[str, Any] = {
    "name": "subnets",
    "networking": {"ipFamily": "dual"},
    "underlay": {
        "subnets": [
            {"name": "left", "cidr": "198.18.1.0/24,fd00:198:1::/64"},
            {"name": "right", "cidr": "198.18.2.0/24,fd00:198:2::/64"},
        ],
        "routers": [{"name": "router", "subnets": ["left", "right"]}],
    },
    "nodes": [
        {"name": "node1", "subnet": "left"},
        {"name": "node2", "subnet": "left"},
        {"name": "node3", "subnet": "right"},
    ],
    "pods": [{"name": "a", "node": "node1"}, {"name": "b", "node": "node2"}, {"name": "c", "node": "node3"}],
    "clients": [{"name": "laptop", "subnet": "right"}],
    "expect": [
        {"from": "pods", "to": "laptop", "icmp": True, "source": "node"},
        {"from": "laptop", "to": "pods", "icmp": True},
    ],
}

# Packets go there over one router and come back over two others.
ASYMMETRIC: dict[str, Any] = {
    "name": "asymmetric",
    "underlay": {
        "subnets": [
            {"name": "left", "cidr": "198.18.1.0/24"},
            {"name": "middle", "cidr": "198.18.2.0/24"},
            {"name": "right", "cidr": "198.18.3.0/24"},
        ],
        "routers": [
            {"name": "direct", "subnets": ["left", "right"]},
            {"name": "one", "subnets": ["left", "middle"]},
            {
                "name": "two",
                "subnets": ["middle", "right"],
                "routes": [{"dst": "10.244.0.0/24", "via": "198.18.2.1"}],
            },
        ],
    },
    "nodes": [
        {"name": "node1", "subnet": "left"},
        # A longer prefix than the fabric's own route: answers take the other way.
        {"name": "node2", "subnet": "right", "routes": [{"dst": "10.244.0.0/25", "via": "198.18.3.2"}]},
    ],
    "pods": [{"name": "a", "node": "node1"}, {"name": "b", "node": "node2"}],
}

# A program that listens, and checks of its port.
SERVED: dict[str, Any] = {
    "name": "served",
    "nodes": [{"name": "node1"}, {"name": "node2"}],
    "pods": [
        {
            "name": "web",
            "node": "node1",
            "containers": [{"name": "server", "command": ["python3", "-m", "http.server", "8080"]}],
        },
        {"name": "api", "node": "node1"},
        {"name": "db", "node": "node2"},
    ],
    "expect": [
        {"from": ["api", "db"], "to": "web", "tcp": 8080},
        {"from": "web", "to": "api", "tcp": 8080, "verdict": "refuse"},
    ],
}


def shipped(name: str) -> dict[str, Any]:
    """A topology of topologies/, under its own name."""
    value: dict[str, Any] = yaml.safe_load((TOPOLOGIES / f"{name}.yaml").read_text(encoding="utf-8"))
    return value


def written(folder: Path, topology: dict[str, Any]) -> Path:
    """A topology as a file, its kernels told to hold no ICMP error back."""
    family = topology.get("networking", {}).get("ipFamily", "ipv4")
    sysctls = _ALL_ERRORS if family == "ipv4" else _ALL_ERRORS6
    value = json.loads(json.dumps(topology))
    routers = value.get("underlay", {}).get("routers", [])
    for each in [*value["nodes"], *value.get("pods", []), *value.get("clients", []), *routers]:
        if not each.get("host"):
            each.setdefault("sysctls", {}).update(sysctls)
    path = folder / f"{value['name']}.yaml"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
