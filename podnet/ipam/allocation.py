"""Which addresses an attachment gets: ``host-local``'s rules over the ledger, with that plugin's error texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.errors import PodnetError
from podnet.ipam.ranges import family_of, number, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from podnet.ipam.ledger import Holder, Ledger, Owner
    from podnet.ipam.ranges import RangeSet

__all__ = ["Allocated", "AllocationError", "ExhaustedError", "allocate", "exhausted"]


class AllocationError(PodnetError):
    """The addresses that were asked for cannot be had."""


class ExhaustedError(AllocationError):
    """No address is left."""


class Allocated(NamedTuple):
    """An address with prefix length, and its gateway."""

    address: str
    gateway: str


def allocate(
    ledger: Ledger,
    owner: Owner,
    sets: Sequence[RangeSet],
    requested: Sequence[str],
    stale: Callable[[Iterable[Holder]], list[Holder]],
) -> list[Allocated]:
    """One address from each range set, in the caller's transaction.

    ``requested`` are addresses with or without prefix length. ``stale`` tells which attachments have lost their
    namespace; they give their addresses up when a range set is full. Raises ``AllocationError``.
    """
    wanted = list(dict.fromkeys(each.partition("/")[0] for each in requested))
    found = []
    for index, ranges in enumerate(sets):
        asked = next((each for each in wanted if ranges.range_of(family_of(each), number(each))), None)
        try:
            if asked is None:
                found.append(_next(ledger, owner, index, ranges, stale))
            else:
                wanted.remove(asked)
                found.append(_asked(ledger, owner, index, ranges, asked, stale))
        except AllocationError as error:
            raise type(error)(f"failed to allocate for range {index}: {error}") from None
    if wanted:
        msg = f"failed to allocate all requested IPs: {' '.join(wanted)}"
        raise AllocationError(msg)
    return found


def _asked(
    ledger: Ledger,
    owner: Owner,
    index: int,
    ranges: RangeSet,
    asked: str,
    stale: Callable[[Iterable[Holder]], list[Holder]],
) -> Allocated:
    address = number(asked)
    holder = ranges.range_of(ranges.family, address)
    assert holder is not None  # noqa: S101 - the caller has looked
    if address == holder.gateway:
        msg = f"requested ip {asked} is subnet's gateway"
        raise AllocationError(msg)
    _refuse_second(ledger, owner, ranges)
    if not ledger.take(owner, ranges.family, address):
        _reclaim(ledger, owner.network, stale)
        if not ledger.take(owner, ranges.family, address):
            msg = f"requested IP address {asked} is not available in range set {ranges}"
            raise AllocationError(msg)
    ledger.note_latest(owner.network, index, ranges.family, address)
    return Allocated(f"{text(ranges.family, address)}/{holder.length}", text(ranges.family, holder.gateway))


def _next(
    ledger: Ledger, owner: Owner, index: int, ranges: RangeSet, stale: Callable[[Iterable[Holder]], list[Holder]]
) -> Allocated:
    _refuse_second(ledger, owner, ranges)
    last = ledger.latest(owner.network, index, ranges.family)
    for again in (False, True):
        for each, low, high in ranges.spans(last):
            address = ledger.free(owner.network, ranges.family, low, high, each.gateway)
            if address is None or not ledger.take(owner, ranges.family, address):
                continue
            ledger.note_latest(owner.network, index, ranges.family, address)
            return Allocated(f"{text(ranges.family, address)}/{each.length}", text(ranges.family, each.gateway))
        if again or not _reclaim(ledger, owner.network, stale):
            break
    msg = f"no IP addresses available in range set: {ranges}"
    raise ExhaustedError(msg)


def _refuse_second(ledger: Ledger, owner: Owner, ranges: RangeSet) -> None:
    for family, address in ledger.leases(owner):
        if ranges.range_of(family, address):
            msg = (
                f"{text(family, address)} has been allocated to {owner.container_id}, "
                "duplicate allocation is not allowed"
            )
            raise AllocationError(msg)


def _reclaim(ledger: Ledger, network: str, stale: Callable[[Iterable[Holder]], list[Holder]]) -> int:
    """Take the addresses of dead attachments back; their rows stay, for what else they may have left."""
    dead = stale(ledger.holders(network))
    for holder in dead:
        ledger.release(holder.owner)
    return len(dead)


def exhausted(
    ledger: Ledger, network: str, sets: Sequence[RangeSet], stale: Callable[[Iterable[Holder]], list[Holder]]
) -> str:
    """Why the next allocation would fail for want of addresses; empty where it would not. Changes nothing."""
    reclaimable: list[tuple[int, int]] | None = None
    for index, ranges in enumerate(sets):
        spans = ranges.spans(None)
        if any(ledger.free(network, ranges.family, low, high, each.gateway) is not None for each, low, high in spans):
            continue
        if reclaimable is None:
            reclaimable = [lease for holder in stale(ledger.holders(network)) for lease in ledger.leases(holder.owner)]
        if not any(ranges.range_of(*lease) for lease in reclaimable):
            return f"range {index}: no IP addresses available in range set: {ranges}"
    return ""
