"""The list of requirements: every row complete, every id once, chosen as the command line asks."""

from __future__ import annotations

import re

import pytest

from podnet.conform.model import ALL_KINDS, KNOWN_VERSIONS
from podnet.conform.requirements import REQUIREMENTS, cases, select


def test_ids_are_unique_and_short() -> None:
    ids = [row.id for row in REQUIREMENTS]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[A-Z]\d{1,2}[a-h]?", each) for each in ids)


def test_each_row_says_what_and_for_whom() -> None:
    for row in REQUIREMENTS:
        assert row.text
        assert row.section
        assert set(row.kinds) <= set(ALL_KINDS)
        assert row.since in KNOWN_VERSIONS
        # What the specification or a library demands says where.
        assert row.source or row.level == "practice", row.id


def test_every_section_of_the_specification_is_there() -> None:
    sections = list(dict.fromkeys(row.section for row in REQUIREMENTS))
    assert len(sections) == 10
    assert {"ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"} <= set(sections)
    assert len(REQUIREMENTS) > 130


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (["A2b"], ["A2b"]),
        (["a2b"], ["A2b"]),
        (["A2"], ["A2a", "A2b", "A2c"]),
        (["A3@0.4.0"], ["A3"]),
        (["V1", "P3"], ["P3", "V1a", "V1b"]),
    ],
)
def test_only(only: list[str], expected: list[str]) -> None:
    rows, unknown = select(only)
    assert [row.id for row in rows] == expected
    assert unknown == []


def test_an_unknown_id_is_named() -> None:
    assert select(["A2b", "Z9"])[1] == ["Z9"]


def test_kind_and_level() -> None:
    rows, _ = select(kind="chained", levels=["MUST"])
    assert rows
    assert all("chained" in row.kinds and row.level == "MUST" for row in rows)


def test_a_requirement_on_shapes_is_judged_in_each_announced_version() -> None:
    rows, _ = select(["A3"])
    assert [version for _, version in cases(rows, ["0.2.0", "0.4.0", "1.0.0"], "interface")] == [
        "0.2.0",
        "0.4.0",
        "1.0.0",
    ]


def test_there_is_no_chained_plugin_before_prevresult() -> None:
    rows, _ = select(["A3"])
    assert [version for _, version in cases(rows, ["0.2.0", "0.4.0", "1.0.0"], "chained")] == ["0.4.0", "1.0.0"]


def test_what_came_later_than_the_plugin_is_still_listed() -> None:
    rows, _ = select(["G1a"])
    assert [(row.id, version) for row, version in cases(rows, ["0.4.0", "1.0.0"], "interface")] == [("G1a", "1.0.0")]
