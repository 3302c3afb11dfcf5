"""Many checks in columns read as the checks that they stand for."""

from __future__ import annotations

import pytest
from probe_labs import lab

from podnet.errors import UsageError
from podnet.model.probe import Bounds, Check
from podnet.probe.expect import derive
from podnet.probe.plan import Checks

LIST = [
    Check("web", "db", "icmp", 4),
    Check("db", "web", "tcp", 6, 80, "refuse", "node", False, "file", 7, Bounds(ttl=62, within=3)),
    Check("web", "db", "icmp", 4),
]


def test_the_columns_give_back_what_was_put_in() -> None:
    checks = Checks.of(lab(), LIST)
    assert list(checks) == LIST
    assert checks[-1:] == LIST[-1:]
    assert checks[1] == LIST[1]
    assert list(checks.chosen([2, 1])) == [LIST[2], LIST[1]]
    assert len(checks.kinds) == 2


def test_checks_of_the_same_lab_are_taken_as_they_are() -> None:
    checks = derive(lab())
    assert Checks.of(lab(), checks) is checks


def test_a_check_of_an_unknown_target_names_its_line() -> None:
    with pytest.raises(UsageError, match="line 3: no pod, node or client named nobody in lab small"):
        Checks.of(lab(), [Check("web", "nobody", "icmp", 4, line=3)])


def test_a_million_checks_take_little_memory() -> None:
    checks = Checks([f"p{n}" for n in range(1000)])
    kind = checks.number(Checks.of(lab(), LIST).kinds[0])
    for source in range(1000):
        checks.row(source, range(1000), kind)
    assert len(checks) == 1_000_000
    assert sum(len(column) * column.itemsize for column in (checks.source, checks.target, checks.kind)) == 8_000_000
    assert checks[999_999] == Check("p999", "p999", "icmp", 4)
