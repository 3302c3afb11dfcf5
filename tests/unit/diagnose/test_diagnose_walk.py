"""The way that a packet takes by the model: over bridges and cables, through nodes and routers, there and back."""

from __future__ import annotations

from typing import Any

from podnet.diagnose.walk import World
from podnet.kernel.objects import Route
from podnet.topology.compile import compile_topology
from podnet.topology.load import loads
from podnet.topology.place import place

TOPOLOGY = """
name: lab
underlay:
  subnets: [{name: left, cidr: 198.18.1.0/24}, {name: right, cidr: 198.18.2.0/24}]
  routers: [{name: router, subnets: [left, right]}]
nodes: [{name: node1, subnet: left}, {name: node2, subnet: right}]
pods: [{name: a, node: node1}, {name: b, node: node1}, {name: c, node: node2}]
"""


def _world(**extra: Any) -> World:
    state = compile_topology(place(loads(TOPOLOGY, "lab.yaml"), {}))
    return World(state | {each.key: each for each in extra.values()})


def _told(world: World, netns: str, destination: str) -> list[str]:
    return [
        f"{s.kind} {s.netns.removeprefix('lab.')} {s.dev and 'in'} {s.via}" for s in world.way(netns, destination).steps
    ]


def test_ways() -> None:
    world = _world()
    cases = {
        ("lab.a", "10.244.0.2"): ["deliver a in "],
        ("lab.a", "10.244.0.3"): ["send a  10.244.0.3", "bridge node1 in podnet0", "deliver b in "],
        ("lab.a", "10.244.1.2"): [
            "send a  10.244.0.1", "bridge node1 in podnet0",
            "forward node1 in 198.18.1.1", "bridge underlay in left",
            "forward router in 198.18.2.2", "bridge underlay in right",
            "forward node2 in 10.244.1.2", "bridge node2  podnet0", "deliver c in ",
        ],
        ("lab.node2", "10.244.1.2"): ["send node2  10.244.1.2", "bridge node2  podnet0", "deliver c in "],
        ("lab.a", "203.0.113.1"): [
            "send a  10.244.0.1", "bridge node1 in podnet0",
            "forward node1 in 198.18.1.1", "bridge underlay in left", "stuck router in none",
        ],
    }  # fmt: skip
    for (netns, destination), steps in cases.items():
        assert _told(world, netns, destination) == steps, (netns, destination)
        assert world.way(netns, destination).arrives == steps[-1].startswith("deliver")


def test_a_way_ends_where_routes_end_it() -> None:
    blackhole = Route("lab.node2", "10.244.1.2/32", type="blackhole")
    assert _told(_world(x=blackhole), "lab.a", "10.244.1.2")[-1] == "stuck node2 in blackhole"
    nobody = Route("lab.node1", "10.244.1.2/32", "198.18.1.77", "eth0")
    assert _told(_world(x=nobody), "lab.a", "10.244.1.2")[-1] == "stuck node1 in nobody has the next hop"
    loop = Route("lab.node2", "10.244.1.2/32", "198.18.2.1", "eth0")
    assert _told(_world(x=loop), "lab.a", "10.244.1.2")[-1].endswith("loop")


def test_the_longest_prefix_wins_then_the_lower_metric() -> None:
    for routes, via in (
        ([Route("lab.node1", "10.244.0.0/16", "198.18.1.9", "eth0")], "198.18.1.1"),
        ([Route("lab.node1", "10.244.1.0/25", "198.18.1.9", "eth0", metric=5)], "198.18.1.9"),
        ([Route("lab.node1", "10.244.1.0/24", "198.18.1.9", "eth0", metric=5)], "198.18.1.1"),
    ):
        world = _world(**{str(i): route for i, route in enumerate(routes)})
        assert world.lookup("lab.node1", "10.244.1.2").via == via
