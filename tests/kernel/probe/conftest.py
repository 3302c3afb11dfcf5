from __future__ import annotations

from collections.abc import Iterator

import pytest
from probe_cluster import Cluster, Rules, inside


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    made = Cluster(nodes=2, pods=2)
    try:
        made.build()
        made.settle()
        yield made
    finally:
        made.remove()


@pytest.fixture
def rules(cluster: Cluster) -> Iterator[Rules]:
    """Load nftables rules into a target's namespace, and take them away after the test."""
    touched: list[str] = []

    def load(name: str, text: str) -> None:
        touched.append(cluster.netns(name))
        inside(touched[-1], "nft", "-f", "-", text=text.replace("} }", "}\n}\n"))

    yield load
    for netns in touched:
        inside(netns, "nft", "flush", "ruleset")
