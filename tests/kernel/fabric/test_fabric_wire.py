"""Fabrics that every kernel has: reached by all, in the right form, in full size; for every family and layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fabric_labs import FAMILIES, LAYOUTS, holds

pytestmark = pytest.mark.kernel

TABLE: list[tuple[str, str, str, dict[str, Any]]] = [
    (fabric, family, layout, {}) for fabric in ("host-gw", "vxlan", "bgp") for family in FAMILIES for layout in LAYOUTS
]
TABLE += [
    ("vxlan", "dual", "two subnets", {"directRouting": True}),
    ("vxlan", "ipv4", "one subnet", {"vni": 4097, "port": 4789}),
]


@pytest.mark.parametrize(("fabric", "family", "layout", "settings"), TABLE)
def test_reach_form_and_size(fabric: str, family: str, layout: str, settings: dict[str, Any], tmp_path: Path) -> None:
    holds(fabric, family, layout, tmp_path, **settings)
