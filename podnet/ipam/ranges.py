"""Address ranges as ``host-local`` writes and checks them, as pure arithmetic with that plugin's error texts.

An address is a number with its family (4 or 6). Without ``ipaddress``, whose import takes as long as the rest of
a plugin's parse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.errors import PodnetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Range", "RangeError", "RangeSet", "check", "family_of", "number", "parse", "text"]

_BITS = {4: 32, 6: 128}


class RangeError(PodnetError):
    """A range that cannot be used."""

    exit_code = 2


class Range(NamedTuple):
    """The addresses ``start`` to ``end`` of a network, without ``gateway``, which is never handed out."""

    family: int
    network: int
    length: int
    start: int
    end: int
    gateway: int

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.start <= address <= self.end

    def __str__(self) -> str:
        return f"{text(self.family, self.start)}-{text(self.family, self.end)}"

    def overlaps(self, other: Range) -> bool:
        """Whether an address is in both."""
        return self.family == other.family and self.start <= other.end and other.start <= self.end


class RangeSet(NamedTuple):
    """Ranges of one family that an attachment gets one address of."""

    ranges: tuple[Range, ...]

    @property
    def family(self) -> int:
        return self.ranges[0].family

    def __str__(self) -> str:
        return ",".join(map(str, self.ranges))

    def range_of(self, family: int, address: int) -> Range | None:
        """The range that holds an address."""
        return next((each for each in self.ranges if each.family == family and address in each), None)

    def spans(self, last: int | None) -> Iterator[tuple[Range, int, int]]:
        """Where to look for a free address, in order: after ``last``, around to ``last`` itself."""
        holder = None if last is None else self.range_of(self.family, last)
        if holder is None or last is None:
            for each in self.ranges:
                yield each, each.start, each.end
            return
        at = self.ranges.index(holder)
        if last < holder.end:
            yield holder, last + 1, holder.end
        for each in (*self.ranges[at + 1 :], *self.ranges[:at]):
            yield each, each.start, each.end
        yield holder, holder.start, last


def family_of(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


def number(address: str) -> int:
    """An address without prefix length as a number. Raises ``ValueError``."""
    from _socket import AF_INET, AF_INET6, inet_pton

    try:
        return int.from_bytes(inet_pton(AF_INET6 if ":" in address else AF_INET, address), "big")
    except (OSError, ValueError):
        msg = f"invalid IP address: {address[:80]}"
        raise ValueError(msg) from None


def text(family: int, address: int) -> str:
    """A number as an address in canonical text."""
    from _socket import AF_INET, AF_INET6, inet_ntop

    if family == 4:
        return inet_ntop(AF_INET, address.to_bytes(4, "big"))
    return inet_ntop(AF_INET6, address.to_bytes(16, "big"))


def parse(subnet: str, start: str = "", end: str = "", gateway: str = "") -> Range:
    """A range from its text; what is empty gets ``host-local``'s default. Raises ``RangeError``."""
    address, slash, suffix = subnet.partition("/")
    family = family_of(address)
    bits = _BITS[family]
    try:
        network = number(address)
        if not (slash and suffix.isascii() and suffix.isdigit() and len(suffix) <= 3 and int(suffix) <= bits):
            raise ValueError
    except ValueError:
        msg = f"invalid CIDR address: {subnet[:80]}"
        raise RangeError(msg) from None
    length = int(suffix)
    shown = f"{text(family, network)}/{length}"
    if length > bits - 2:
        msg = f"Network {shown} too small to allocate from"
        raise RangeError(msg)
    hosts = (1 << (bits - length)) - 1
    if network & hosts:
        msg = (
            f"Network has host bits set. For a subnet mask of length {length} "
            f"the network address is {text(family, network & ~hosts)}"
        )
        raise RangeError(msg)
    first, last = network, network + hosts
    low = _inside(start, family, first, last, f"RangeStart {start} not in network {shown}", network + 1)
    # IPv4's last address is the broadcast's.
    default = last - 1 if family == 4 else last
    high = _inside(end, family, low, last, f"RangeEnd {end} not in network {shown}", default)
    router = _inside(
        gateway, family, 0, (1 << bits) - 1, f"gateway {gateway} is not of the family of {shown}", first + 1
    )
    return Range(family, network, length, low, high, router)


def _inside(given: str, family: int, low: int, high: int, complaint: str, default: int) -> int:
    if not given:
        return default
    try:
        found = number(given)
    except ValueError as error:
        raise RangeError(str(error)) from None
    if family_of(given) != family or not low <= found <= high:
        raise RangeError(complaint)
    return found


def check(sets: Sequence[Sequence[Range]]) -> tuple[RangeSet, ...]:
    """Range sets, with each of its rules as ``host-local`` has them. Raises ``RangeError``."""
    if not sets:
        msg = "no IP ranges specified"
        raise RangeError(msg)
    for index, ranges in enumerate(sets):
        problem = _problem(ranges)
        if problem:
            msg = f"invalid range set {index}: {problem}"
            raise RangeError(msg)
        for other in range(index):
            if any(one.overlaps(two) for one in ranges for two in sets[other]):
                msg = f"range set {index} overlaps with {other}"
                raise RangeError(msg)
    return tuple(RangeSet(tuple(ranges)) for ranges in sets)


def _problem(ranges: Sequence[Range]) -> str:
    if not ranges:
        return "empty range set"
    if len({each.family for each in ranges}) > 1:
        return "mixed address families"
    for index, one in enumerate(ranges):
        for two in ranges[:index]:
            if one.overlaps(two):
                return f"subnets {two} and {one} overlap"
    return ""
