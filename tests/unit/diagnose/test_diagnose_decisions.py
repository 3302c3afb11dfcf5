"""Decisions that no lab may be brought into: what the machine as a whole is to blame for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from podnet.diagnose.case import Case
from podnet.diagnose.explain import explain
from podnet.diagnose.trail import Subject, Trail
from podnet.diagnose.walk import World
from podnet.kernel.detail import LinkDetail
from podnet.kernel.fib import Lookup
from podnet.kernel.tracefs import Drop
from podnet.lab.targets import lab_of
from podnet.topology.compile import compile_topology
from podnet.topology.load import loads
from podnet.topology.place import place

TOPOLOGY = """
name: lab
nodes: [{name: node1}]
pods: [{name: web, node: node1}, {name: api, node: node1}]
"""


@dataclass
class _Scene:
    """A scene in which all is as it should be, and no neighbour is known."""

    world: World
    gone: set[str] = field(default_factory=set)

    def exists(self, netns: str) -> bool:
        return netns not in self.gone

    def link(self, netns: str, name: str) -> LinkDetail:
        wanted = self.world.links[netns, name]
        return LinkDetail(7, name, wanted.kind, wanted.mac, wanted.mtu, True, True)

    def links(self, netns: str) -> dict[str, LinkDetail]:
        return {name: self.link(where, name) for where, name in self.world.links if where == netns}

    def name(self, netns: str, index: int) -> str:
        return "eth0"

    def master(self, netns: str, name: str) -> str:
        return getattr(self.world.links.get((netns, name)), "master", "")

    def addresses(self, netns: str) -> list[tuple[str, str]]:
        return [(a.dev, a.address) for a in self.world.addresses.get(netns, [])]

    def has(self, netns: str, address: str) -> bool:
        return any(a.partition("/")[0] == address for _, a in self.addresses(netns))

    def neighbour(self, *_: str) -> None:
        return None

    def lookup(self, netns: str, destination: str, source: str = "", incoming: str = "") -> Lookup:
        return Lookup(0, "unicast", 7, "", "10.244.0.0/24")

    def sysctl(self, *_: str) -> str:
        return "1"


def _case(**fields: Any) -> Case:
    placement = place(loads(TOPOLOGY, "lab.yaml"), {})
    world = World(compile_topology(placement))
    scene: Any = _Scene(world, **fields)
    return Case(lab_of(placement), world, scene)


def _trail(**fields: Any) -> Trail:
    subject = Subject("web", "api", "icmp", 4)
    return Trail(subject, "lab.web", "lab.api", "10.244.0.2", "10.244.0.3", 1, **fields)


def test_a_full_neighbour_table_is_blamed_only_where_it_overflowed_and_nobody_was_asked() -> None:
    found = explain(_case(), _trail(overflowed=True))
    assert found.cause is not None
    assert found.cause.kind == "neighbour-table-full"
    assert "gc_thresh3" in found.cause.show
    assert explain(_case(), _trail()).cause is None


def test_what_is_not_known_is_called_so() -> None:
    drop = Drop("1.1", 2048, "nft_do_chain", "NETFILTER_DROP")
    assert explain(_case(), _trail()).note == "the evidence suffices for no cause"
    assert "iptables-legacy" in explain(_case(), _trail(drops=[drop])).note
    broken = explain(_case(), _trail(failure="no socket"))
    assert (broken.cause, broken.note) == (None, "no socket")


def test_a_namespace_that_is_gone_is_the_cause() -> None:
    found = explain(_case(gone={"lab.api"}), _trail(failure="no namespace lab.api"))
    assert found.cause is not None
    assert (found.cause.kind, found.cause.netns) == ("namespace-gone", "lab.api")
