"""The way that a topology alone says a packet takes."""

from __future__ import annotations

import pytest
from probe_labs import target

from podnet.model.lab import Lab
from podnet.probe.predict import Predictor

LEFT, RIGHT = "198.18.1", "198.18.2"
LAB = Lab(
    "two",
    (4,),
    (
        target("router", "router", f"{LEFT}.1/24", f"{RIGHT}.1/24"),
        target("n1", "node", f"{LEFT}.2/24", "10.244.1.1/24"),
        target("n2", "node", f"{LEFT}.3/24", "10.244.2.1/24"),
        target("n3", "node", f"{RIGHT}.2/24", "10.244.3.1/24"),
        target("a", "pod", "10.244.1.2/24", node="n1"),
        target("a2", "pod", "10.244.1.3/24", node="n1"),
        target("b", "pod", "10.244.2.2/24", node="n2"),
        target("c", "pod", "10.244.3.2/24", node="n3"),
        target("laptop", "client", f"{RIGHT}.9/24"),
        target("lonely", "client", "203.0.113.9/24"),
    ),
)


@pytest.mark.parametrize(
    ("source", "receiver", "way"),
    [
        ("a", "a", "a"),
        ("a", "a2", "a n1 a2"),
        ("a", "n1", "a n1"),
        ("n1", "a", "n1 a"),
        ("a", "b", "a n1 n2 b"),
        ("n1", "b", "n1 n2 b"),
        ("a", "c", "a n1 router n3 c"),
        ("c", "laptop", "c n3 laptop"),
        ("laptop", "c", "laptop router n3 c"),  # a client knows no pods' network: its router does
        ("laptop", "a", "laptop router n1 a"),
        ("laptop", "n3", "laptop n3"),
        ("a", "lonely", None),
        ("lonely", "a", None),
    ],
)
def test_ways(source: str, receiver: str, way: str | None) -> None:
    ends = LAB.target(source), LAB.target(receiver)
    assert ends[0] is not None
    assert ends[1] is not None
    predicted = Predictor(LAB, 4).way(*ends)
    assert (None if predicted is None else " ".join(predicted)) == way


def test_an_ip_version_without_addresses_has_no_ways() -> None:
    ends = LAB.target("a"), LAB.target("b")
    assert ends[0] is not None
    assert ends[1] is not None
    assert Predictor(LAB, 6).way(*ends) is None
