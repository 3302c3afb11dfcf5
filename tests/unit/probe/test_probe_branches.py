"""Which sightings are of the packet, and which of copies that were flooded elsewhere."""

from __future__ import annotations

import pytest

from podnet.probe.branches import Sighted, taken

# A switch whose ports 5, 6 and 7 are cables to device 2 of hosts a, b and c.
OUT_A = Sighted("a", 2, 5, True, 64)
IN_SWITCH = Sighted("switch", 5, 2, False, 64)
TO_B, TO_C = Sighted("switch", 6, 2, True, 64), Sighted("switch", 7, 2, True, 64)
IN_B = Sighted("b", 2, 6, False, 64)
INSIDE_B = Sighted("b", 9, 0, True, 63)  # no cable: a bridge of the host


@pytest.mark.parametrize(
    ("way", "kept"),
    [
        ([OUT_A, IN_SWITCH, TO_B, IN_B], [True] * 4),
        ([OUT_A, IN_SWITCH, TO_B, IN_B, TO_C, INSIDE_B], [True, True, True, True, False, True]),
        ([OUT_A, IN_SWITCH, TO_C, TO_B, IN_B], [True, True, False, True, True]),
        ([OUT_A, IN_SWITCH, TO_B, TO_C, IN_B, INSIDE_B], [True, True, True, False, True, True]),
        # None of the copies came out anywhere: here it was lost, and all of them tell so.
        ([OUT_A, IN_SWITCH, TO_B, TO_C], [True] * 4),
        # A later turn of a loop is not part of the first one's flood.
        (
            [OUT_A, IN_SWITCH, TO_B, IN_B, IN_SWITCH._replace(ttl=62), TO_C._replace(ttl=62)],
            [True] * 6,
        ),
        ([], []),
    ],
)
def test_ways(way: list[Sighted], kept: list[bool]) -> None:
    assert taken(way) == kept
