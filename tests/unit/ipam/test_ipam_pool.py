"""Pools: which address comes next, and that none comes twice."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podnet.errors import PodnetError
from podnet.ipam.pool import Pool, PoolExhaustedError


@pytest.mark.parametrize(
    ("network", "gateway", "first", "last"),
    [
        ("10.244.0.0/24", "10.244.0.1/24", "10.244.0.2/24", "10.244.0.254/24"),
        ("10.244.0.0/30", "10.244.0.1/30", "10.244.0.2/30", "10.244.0.2/30"),
        ("fd00::/64", "fd00::1/64", "fd00::2/64", None),
        ("fd00::/126", "fd00::1/126", "fd00::2/126", "fd00::3/126"),
    ],
)
def test_first_and_last(network: str, gateway: str, first: str, last: str | None) -> None:
    pool = Pool(ip_network(network))
    assert str(pool.gateway) == gateway
    taken = [pool.take()]
    assert str(taken[0]) == first
    if last is not None:
        taken += [pool.take() for _ in range(pool.last - pool.first)]
        assert str(taken[-1]) == last
        assert len(set(taken)) == len(taken)
        with pytest.raises(PoolExhaustedError, match=f"no address is left in {network}: all {len(taken)} are taken"):
            pool.take()


def test_an_exhausted_pool_is_an_error_of_the_topology() -> None:
    assert issubclass(PoolExhaustedError, PodnetError)
    assert PoolExhaustedError.exit_code == 2


@given(prefix=st.integers(24, 30), claims=st.lists(st.integers(0, 255), max_size=30), takes=st.integers(0, 40))
def test_no_address_is_given_twice_whatever_was_claimed(prefix: int, claims: list[int], takes: int) -> None:
    network = ip_network(f"10.0.0.0/{prefix}")
    pool = Pool(network)
    base = int(network.network_address)
    claimed = {base + number for number in claims if pool.holds(base + number) and pool.claim(base + number)}
    assert not any(pool.claim(number) for number in claimed)
    taken: list[int] = []
    for _ in range(takes):
        try:
            taken.append(int(pool.take().ip))
        except PoolExhaustedError:
            assert len(claimed) + len(taken) == pool.last - pool.first + 1  # really all
            break
    assert len(set(taken)) == len(taken)
    assert not claimed & set(taken)
    assert taken == sorted(taken)
    reserved = {base, base + 1, int(network.broadcast_address)}
    assert not reserved & set(taken)
