"""Percentiles of times in bounded memory: logarithmic buckets, as HdrHistogram has them."""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["BOUNDS", "Histogram"]

_BITS = 6  # 64 buckets for each doubling: a bucket is at most 1/64 of its value wide
_PARTS = 1 << _BITS
_MOST = 1 << 40  # nanoseconds, 18 minutes: longer is counted as this

# Upper bounds in seconds of what is counted apart, exactly, for who wants fixed buckets (Prometheus).
BOUNDS = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0,
)  # fmt: skip
_BOUNDS_NS = tuple(round(bound * 1e9) for bound in BOUNDS)


class Histogram:
    """Times in nanoseconds, counted. At most 2,240 counters, however long it runs; percentiles are exact to 1.6 %.

    ``fixed`` counts what is at most each of ``BOUNDS`` and more than the one before, then all that is more.
    """

    __slots__ = ("_counts", "count", "fixed", "highest", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = self.highest = self.total = 0
        self.fixed = [0] * (len(BOUNDS) + 1)

    def __len__(self) -> int:
        """The number of counters in use."""
        return len(self._counts)

    def add(self, nanoseconds: int) -> None:
        """Count one time."""
        self.count += 1
        self.total += nanoseconds
        self.highest = max(self.highest, nanoseconds)
        place = _bucket(min(nanoseconds, _MOST))
        self._counts[place] = self._counts.get(place, 0) + 1
        self.fixed[bisect_left(_BOUNDS_NS, nanoseconds)] += 1

    def percentiles(self, shares: tuple[float, ...]) -> tuple[int, ...]:
        """The times in nanoseconds that these shares (0 to 1, ascending) of all do not exceed; 0 where there is none.

        Each is the upper end of its bucket, but never more than the highest time of all.
        """
        found: list[int] = []
        ranks = [max(1, -int(-share * self.count // 1)) for share in shares]
        passed = 0
        for place in sorted(self._counts):
            passed += self._counts[place]
            while len(found) < len(ranks) and ranks[len(found)] <= passed:
                found.append(min(_upper(place), self.highest))
        return (*found, *[self.highest] * (len(ranks) - len(found)))


def _bucket(value: int) -> int:
    """Values below 64 have a bucket each; from there on the leading 7 bits tell the bucket."""
    shift = value.bit_length() - _BITS - 1
    return value if shift <= 0 else (shift << _BITS) + (value >> shift)


def _upper(place: int) -> int:
    """The largest value of a bucket."""
    if place < 2 * _PARTS:
        return place
    shift = (place >> _BITS) - 1
    return (((place & (_PARTS - 1)) + _PARTS + 1) << shift) - 1
