"""Fabrics that not every kernel has: reached by all, in the right form, in full size; and keys that stay private."""

from __future__ import annotations

import json
import os
import stat
from base64 import b64encode
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from fabric_labs import FAMILIES, LAYOUTS, holds, topology
from lab_cli import changed, clean, named, podnet, proved, succeeds, write
from lab_kernel import run

pytestmark = [pytest.mark.vm, pytest.mark.kernel]

# Each family and each layout; every one in every other with PODNET_STRESS_COUNT above 10.
_LONG = int(os.environ.get("PODNET_STRESS_COUNT", "10")) > 10
_FEW = [("ipv4", "two subnets"), ("ipv6", "two subnets"), ("dual", "one subnet")]
TABLE = [("wireguard", *row) for row in (product(FAMILIES, LAYOUTS) if _LONG else _FEW)]
TABLE += [("ipip", "ipv4", layout) for layout in LAYOUTS]
KEYS = Path("/run/podnet/labs/lab/keys")


@pytest.fixture(autouse=True)
def _no_lab_outlives_its_test() -> Iterator[None]:
    yield
    assert podnet("down", "--all").code == 0


@pytest.mark.parametrize(("fabric", "family", "layout"), TABLE)
def test_reach_form_and_size(fabric: str, family: str, layout: str, tmp_path: Path) -> None:
    holds(fabric, family, layout, tmp_path)


def test_ipip_routes_directly_where_nodes_share_a_subnet(tmp_path: Path) -> None:
    holds("ipip", "ipv4", "two subnets", tmp_path, directRouting=True)


def public_keys() -> dict[str, str]:
    return {f"node{i}": run(f"lab.node{i}", "wg", "show", "podnet-wg", "public-key").strip() for i in (1, 2, 3)}


def peers(node: str) -> dict[str, str]:
    """Public key to endpoint, as wg(8) shows them."""
    lines = run(f"lab.{node}", "wg", "show", "podnet-wg", "endpoints").splitlines()
    return dict(line.split("\t") for line in lines)


def test_keys_are_private_kept_and_renewed(tmp_path: Path) -> None:
    lab = topology("wireguard", "ipv4", "one subnet")
    file = write(tmp_path, lab)
    planned = succeeds("plan", file, "-o", "json").out
    assert not KEYS.exists()  # a plan writes nothing
    succeeds("up", file)
    before = public_keys()

    assert stat.S_IMODE(KEYS.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in KEYS.iterdir()} == {0o600}
    shown = planned + succeeds("status", "lab", "-o", "json").out + succeeds("plan", file, "-o", "json").out
    shown += (KEYS.parent / "record.json").read_text()
    for each in KEYS.iterdir():
        private = each.read_bytes()
        assert b64encode(private).decode() == run(
            f"lab.{next(n for n, key in before.items() if _file(key) == each.name)}",
            "wg", "show", "podnet-wg", "private-key",
        ).strip()  # fmt: skip
        assert b64encode(private).decode() not in shown
        assert private.hex() not in shown

    succeeds("up", file)
    assert public_keys() == before
    moved = changed(lab, lambda t: named(t, "nodes", "node2").update(addresses=["198.18.1.99"]))
    succeeds("up", write(tmp_path, moved))
    assert public_keys() == before
    assert peers("node1")[before["node2"]] == "198.18.1.99:51820"

    assert succeeds("rekey", "node2").out == "lab lab: new keys for node2\n"
    after = public_keys()
    assert [name for name in before if before[name] != after[name]] == ["node2"]
    assert set(peers("node1")) == {after["node2"], after["node3"]}
    assert len(list(KEYS.iterdir())) == 3
    clean()
    proved()
    succeeds("rekey")
    assert not set(public_keys().values()) & set(after.values())
    clean()
    proved()

    refused = podnet("rekey", "node9")
    assert refused.code == 2
    assert "no keys for node9: its nodes are node1, node2, node3" in refused.err
    two = changed(moved, lambda t: (t["nodes"].pop(), t["pods"].pop()))
    succeeds("up", write(tmp_path, two))
    assert len(list(KEYS.iterdir())) == 2
    clean()
    succeeds("up", write(tmp_path, topology("host-gw", "ipv4", "one subnet")))
    assert not KEYS.exists()
    assert "lab lab has no keys: its fabric is not wireguard" in podnet("rekey").err


def _file(public: str) -> str:
    from base64 import b64decode

    return b64decode(public).hex()


def test_what_kernels_have_is_told_as_it_is(tmp_path: Path) -> None:
    rows = {row["name"]: row["found"] for row in json.loads(succeeds("doctor", "-o", "json").out)["capabilities"]}
    lacking = [
        name for name in ("wireguard", "ipip", "ipvlan", "dummy", "vlan", "tc netem", "ipvs") if rows[name] != "yes"
    ]
    assert lacking == []
