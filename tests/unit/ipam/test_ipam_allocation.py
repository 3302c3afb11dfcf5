"""host-local's allocation over the ledger (requirements 2.3, 3.3, A11; reclaim of dead attachments)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podnet.ipam.allocation import AllocationError, ExhaustedError, allocate, exhausted
from podnet.ipam.ledger import BusyError, Holder, Ledger, Owner
from podnet.ipam.ranges import RangeSet, check, parse


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(str(tmp_path / "state")) as found:
        yield found


def sets(*given: str) -> tuple[RangeSet, ...]:
    """Range sets, one of each text: ``subnet[,start[,end[,gateway]]]``, several ranges separated by a space."""
    return check([[parse(*each.split(",")) for each in one.split()] for one in given])


def nobody(_: Iterable[Holder]) -> list[Holder]:
    return []


def get(ledger: Ledger, name: str, ranges: tuple[RangeSet, ...], *requested: str, ifname: str = "eth0") -> list[str]:
    owner = Owner("net", name, ifname)
    with ledger.transaction():
        ledger.record(Holder(owner, "/run/netns/x", 1, "boot"))
        return [each.address for each in allocate(ledger, owner, ranges, requested, nobody)]


def test_3_3_1_the_first_address_is_the_one_after_the_gateway(ledger: Ledger) -> None:
    assert get(ledger, "a", sets("10.1.2.0/24", "fd00::/64")) == ["10.1.2.2/24", "fd00::2/64"]


def test_3_3_7_round_robin_a_released_address_is_not_given_at_once_again(ledger: Ledger) -> None:
    ranges = sets("10.0.0.0/29")
    assert get(ledger, "a", ranges) == ["10.0.0.2/29"]
    ledger.forget(Owner("net", "a", "eth0"))
    assert [get(ledger, f"b{i}", ranges)[0] for i in range(5)] == [
        "10.0.0.3/29", "10.0.0.4/29", "10.0.0.5/29", "10.0.0.6/29", "10.0.0.2/29",
    ]  # fmt: skip
    with pytest.raises(ExhaustedError) as raised:
        get(ledger, "c", ranges)
    assert str(raised.value) == (
        "failed to allocate for range 0: no IP addresses available in range set: 10.0.0.1-10.0.0.6"
    )


def test_3_3_7_a_refused_allocation_leaves_nothing(ledger: Ledger) -> None:
    ranges = sets("10.0.0.0/24", "10.0.1.0/30")
    get(ledger, "a", ranges)
    with pytest.raises(ExhaustedError):
        get(ledger, "b", ranges)
    assert ledger.leases(Owner("net", "b", "eth0")) == []
    assert ledger.holder(Owner("net", "b", "eth0")) is None


def test_3_3_7_several_subnets_in_a_pool_advance_and_roll_over(ledger: Ledger) -> None:
    ranges = sets("10.0.0.0/30 10.0.1.0/30")
    assert get(ledger, "a", ranges) == ["10.0.0.2/30"]
    assert get(ledger, "b", ranges) == ["10.0.1.2/30"]
    ledger.forget(Owner("net", "a", "eth0"))
    assert get(ledger, "c", ranges) == ["10.0.0.2/30"]


def test_3_3_7_the_only_free_address_is_found_wherever_it_is(ledger: Ledger) -> None:
    ranges = sets("10.0.0.0/27")
    names = [f"a{i}" for i in range(29)]
    given = {get(ledger, name, ranges)[0]: name for name in names}
    assert len(given) == 29
    for address, name in sorted(given.items()):
        ledger.forget(Owner("net", name, "eth0"))
        assert get(ledger, name, ranges) == [address]


def test_3_3_3_a11_a_second_allocation_of_one_attachment_is_refused(ledger: Ledger) -> None:
    ranges = sets("10.0.0.0/24")
    get(ledger, "a", ranges)
    with pytest.raises(AllocationError) as raised:
        get(ledger, "a", ranges)
    assert str(raised.value) == (
        "failed to allocate for range 0: 10.0.0.2 has been allocated to a, duplicate allocation is not allowed"
    )
    assert get(ledger, "a", ranges, ifname="eth1") == ["10.0.0.3/24"]


@pytest.mark.parametrize(
    ("requested", "found"),
    [
        (["10.0.0.9"], ["10.0.0.9/24", "fd00::2/64"]),
        (["10.0.0.9/16"], ["10.0.0.9/24", "fd00::2/64"]),
        (["fd00::9"], ["10.0.0.2/24", "fd00::9/64"]),
        (["fd00::9", "10.0.0.9"], ["10.0.0.9/24", "fd00::9/64"]),
    ],
)
def test_3_3_6_requested_addresses(ledger: Ledger, requested: list[str], found: list[str]) -> None:
    assert get(ledger, "a", sets("10.0.0.0/24", "fd00::/64"), *requested) == found


@pytest.mark.parametrize(
    ("requested", "complaint"),
    [
        (["10.0.0.1"], "failed to allocate for range 0: requested ip 10.0.0.1 is subnet's gateway"),
        (
            ["10.0.0.2"],
            (
                "failed to allocate for range 0: requested IP address 10.0.0.2 is not available "
                "in range set 10.0.0.1-10.0.0.100"
            ),
        ),
        (["10.0.0.101"], "failed to allocate all requested IPs: 10.0.0.101"),
        (["10.0.0.8", "10.0.0.9"], "failed to allocate all requested IPs: 10.0.0.9"),
    ],
)
def test_3_3_6_requested_addresses_that_cannot_be_had(ledger: Ledger, requested: list[str], complaint: str) -> None:
    ranges = sets("10.0.0.0/24,,10.0.0.100")
    get(ledger, "a", ranges)
    with pytest.raises(AllocationError) as raised:
        get(ledger, "b", ranges, *requested)
    assert str(raised.value) == complaint


def test_dead_attachments_give_their_addresses_before_a_range_counts_as_full(ledger: Ledger) -> None:
    ranges = sets("10.0.0.0/29")
    for i in range(5):
        get(ledger, f"a{i}", ranges)

    def dead(holders: Iterable[Holder]) -> list[Holder]:
        return [each for each in holders if each.owner.container_id == "a3"]

    assert exhausted(ledger, "net", ranges, nobody).endswith("range set: 10.0.0.1-10.0.0.6")
    assert exhausted(ledger, "net", ranges, dead) == ""
    with ledger.transaction():
        found = allocate(ledger, Owner("net", "b", "eth0"), ranges, (), dead)
    assert [each.address for each in found] == ["10.0.0.5/29"]
    assert ledger.holder(Owner("net", "a3", "eth0")) is not None, "what else it has left must still be found"


def test_networks_do_not_share_addresses(ledger: Ledger) -> None:
    ranges = sets("10.0.0.0/24")
    for network in ("one", "two"):
        with ledger.transaction():
            (found,) = allocate(ledger, Owner(network, "a", "eth0"), ranges, (), nobody)
        assert found.address == "10.0.0.2/24"


def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    with (
        Ledger(str(tmp_path)) as one,
        Ledger(str(tmp_path), patience=0.05) as two,
        one.transaction(),
        pytest.raises(BusyError, match="locked"),
        two.transaction(),
    ):
        raise AssertionError


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([4, 6]),
    st.sets(st.integers(0, 40)),
    st.integers(0, 40),
    st.integers(0, 40),
    st.one_of(st.integers(0, 40), st.just(1000)),
)
def test_the_lowest_free_address_is_found(
    ledger: Ledger, family: int, taken: set[int], low: int, high: int, without: int
) -> None:
    base = 10 << 24
    owner = Owner("net", "a", "eth0")
    ledger.forget(owner)
    for each in taken:
        ledger.take(owner, family, base + each)
    free = [base + each for each in range(low, high + 1) if each not in taken and each != without]
    assert ledger.free("net", family, base + low, base + high, base + without) == (free[0] if free else None)
    ledger.forget(owner)
