"""host-local's range table: defaults, borders and error texts (requirements 2.3, 3.3.8 to 3.3.10)."""

from __future__ import annotations

import pytest

from podnet.ipam.ranges import RangeError, check, number, parse, text


@pytest.mark.parametrize(
    ("subnet", "shown", "gateway"),
    [
        ("192.0.2.0/24", "192.0.2.1-192.0.2.254", "192.0.2.1"),
        ("192.0.2.0/25", "192.0.2.1-192.0.2.126", "192.0.2.1"),
        ("192.0.2.128/30", "192.0.2.129-192.0.2.130", "192.0.2.129"),
        ("2001:DB8:1::/64", "2001:db8:1::1-2001:db8:1:0:ffff:ffff:ffff:ffff", "2001:db8:1::1"),
    ],
)
def test_3_3_8_the_defaults_of_a_subnet(subnet: str, shown: str, gateway: str) -> None:
    found = parse(subnet)
    assert (str(found), text(found.family, found.gateway)) == (shown, gateway)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("192.0.2.0/31",), "Network 192.0.2.0/31 too small to allocate from"),
        (("192.0.2.0/32",), "Network 192.0.2.0/32 too small to allocate from"),
        (("fd00::/127",), "Network fd00::/127 too small to allocate from"),
        (("10.2.1.1/24",), "Network has host bits set. For a subnet mask of length 24 the network address is 10.2.1.0"),
        (("192.0.2.0/24", "192.0.3.1"), "RangeStart 192.0.3.1 not in network 192.0.2.0/24"),
        (("192.0.2.0/24", "", "192.0.4.0"), "RangeEnd 192.0.4.0 not in network 192.0.2.0/24"),
        (("192.0.2.0/24", "192.0.2.50", "192.0.2.40"), "RangeEnd 192.0.2.40 not in network 192.0.2.0/24"),
        (("192.0.2.0/24", "fd00::1"), "RangeStart fd00::1 not in network 192.0.2.0/24"),
        (("192.0.2.0",), "invalid CIDR address: 192.0.2.0"),
        (("nonsense/24",), "invalid CIDR address: nonsense/24"),
        (("",), "invalid CIDR address: "),
        (("192.0.2.0/24", "1.2.3"), "invalid IP address: 1.2.3"),
    ],
)  # fmt: skip
def test_3_3_8_what_is_no_range(arguments: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(RangeError) as raised:
        parse(*arguments)
    assert str(raised.value) == complaint


def test_2_3_a_gateway_outside_the_subnet_is_accepted() -> None:
    assert text(4, parse("192.0.2.0/24", gateway="10.0.0.1").gateway) == "10.0.0.1"


@pytest.mark.parametrize(
    ("sets", "complaint"),
    [
        ([], "no IP ranges specified"),
        ([["10.0.0.0/24"], []], "invalid range set 1: empty range set"),
        ([["10.0.0.0/24", "fd00::/64"]], "invalid range set 0: mixed address families"),
        (
            [["10.0.0.0/20", "10.0.6.0/24"]],
            "invalid range set 0: subnets 10.0.0.1-10.0.15.254 and 10.0.6.1-10.0.6.254 overlap",
        ),
        ([["10.0.0.0/20"], ["10.0.6.0/24"]], "range set 1 overlaps with 0"),
    ],
)
def test_3_3_9_range_sets_that_cannot_be(sets: list[list[str]], complaint: str) -> None:
    with pytest.raises(RangeError) as raised:
        check([[parse(each) for each in ranges] for ranges in sets])
    assert str(raised.value) == complaint


@pytest.mark.parametrize(
    ("last", "spans"),
    [
        (None, ["10.0.0.1-10.0.0.6", "10.0.1.1-10.0.1.6"]),
        ("10.0.0.3", ["10.0.0.4-10.0.0.6", "10.0.1.1-10.0.1.6", "10.0.0.1-10.0.0.3"]),
        ("10.0.0.6", ["10.0.1.1-10.0.1.6", "10.0.0.1-10.0.0.6"]),
        ("10.0.1.6", ["10.0.0.1-10.0.0.6", "10.0.1.1-10.0.1.6"]),
        ("10.9.9.9", ["10.0.0.1-10.0.0.6", "10.0.1.1-10.0.1.6"]),
    ],
)
def test_3_3_7_the_search_begins_after_the_last_address_and_goes_around(last: str | None, spans: list[str]) -> None:
    (ranges,) = check([[parse("10.0.0.0/29"), parse("10.0.1.0/29")]])
    found = ranges.spans(None if last is None else number(last))
    assert [f"{text(4, low)}-{text(4, high)}" for _, low, high in found] == spans
