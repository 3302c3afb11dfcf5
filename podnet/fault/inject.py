"""The verbs: inject a fault, clear it, say whether it is still in effect, judge a student's answer."""

from __future__ import annotations

import random
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from podnet.diagnose.cause import KINDS
from podnet.errors import CapabilityError, KernelError, PodnetError, UsageError
from podnet.fault import ledger
from podnet.fault.effect import Hands
from podnet.fault.library import FAULTS, named
from podnet.fault.site import LIMITS, MACHINE, Place, Site
from podnet.kernel import sysctl
from podnet.lab import record
from podnet.lab.drift import neighbours_of, sysctls_of, tables_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.fault.ledger import Entry
    from podnet.fault.model import Fault
    from podnet.kernel.linux import LinuxKernel
    from podnet.kernel.process import Supervisor
    from podnet.lab.record import Record

__all__ = ["Grade", "Wish", "clear", "clear_machine", "expected", "grade", "inject", "remaining", "site_of"]

_BRIDGED = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}
_PATIENCE = 3.0  # seconds until what was undone shows


class Wish(NamedTuple):
    """What a user asks for; what is left open is chosen, by the ``seed`` where there is one.

    Without a ``name`` any fault that breaks something is taken, but none of the machine's. ``version`` 0 is the lab's
    first one. ``machine`` allows what changes the machine itself.
    """

    name: str = ""
    at: str = ""
    to: str = ""
    version: int = 0
    hidden: bool = False
    seed: int | None = None
    machine: bool = False


class Grade(NamedTuple):
    """How good an answer is: whether it names the fault (or its cause), and its place."""

    named: bool
    placed: bool
    entry: Entry


def site_of(entry: Record, kernel: LinuxKernel) -> Site:
    """The lab as faults see it."""
    wanted = entry.wanted
    found = kernel.observe(
        [name for name in entry.namespaces if name], sysctls_of(wanted), tables_of(wanted), neighbours_of(wanted)
    )
    there = {each.netns for each in found.values() if each.netns}
    pairs = [(netns, name) for netns in there for name in _BRIDGED.values()]
    on = {(s.netns, s.name) for s in sysctl.read(pairs) if s.value == "1"}
    bridged = [(netns, version) for netns in there for version, name in _BRIDGED.items() if (netns, name) in on]
    names = [name for each in LIMITS.values() for name in each if sysctl.writable(name)]
    limits = {each.name: each.value for each in sysctl.read(("", name) for name in names)}
    return Site(entry.lab, wanted, found, bridged, limits)


def inject(name: str, wish: Wish, kernel: LinuxKernel, supervisor: Supervisor) -> Entry:
    """Do a fault to a lab.

    Raises ``UsageError`` where it cannot be done as asked, ``CapabilityError`` where the machine does not allow it,
    ``KernelError`` (all undone).
    """
    with record.locked(name):
        lab = record.find(name)
        if not lab.settled:
            msg = f"lab {name} is half-built: run 'podnet up' first"
            raise UsageError(msg)
        site = site_of(lab, kernel)
        fault, place, version = _chosen(site, wish)
        if fault.machine:
            _allowed(fault, site, wish, version)
        entries = ledger.load(name)
        if any((e.fault, e.place) == (fault.name, place) and e.version in (0, version) for e in entries):
            msg = f"{fault.name} is at {place} already: 'podnet fault clear' first"
            raise UsageError(msg)
        hands = Hands(lab.wanted, kernel, supervisor)
        steps = fault.steps(site, place, version)
        before = [hands.look(step.looks) for step in steps]
        number = max((e.number for e in entries), default=0) + 1
        shown = 0 if fault.versions == "both" else version
        entry = ledger.Entry(
            number, fault.name, place.at, place.to, shown, wish.hidden, False, steps, before, [[] for _ in steps]
        )
        ledger.save(name, [*entries, entry])
        try:
            for step in steps:
                for action in step.do:
                    hands.do(action)
            after = [hands.look(step.looks) for step in steps]
            if after == before:
                msg = f"{fault.name} at {place} changes nothing: it is like that already"
                raise KernelError(msg)
        except BaseException:
            _undo(entry, hands)
            ledger.save(name, entries)
            raise
        entry = entry._replace(settled=True, after=after)
        ledger.save(name, [*entries, entry])
        return entry


def _allowed(fault: Fault, site: Site, wish: Wish, version: int) -> None:
    """Raise where a fault of the machine itself cannot be done, or was not clearly asked for."""
    if not all(name in site.limits for name in LIMITS[version]):
        msg = (
            f"{fault.name} lowers sysctl net.ipv{version}.neigh.default.gc_thresh3, which the machine's first network "
            "namespace alone has: this is another one, or it is read-only here; scripts/vm is a machine to try it on"
        )
        raise CapabilityError(msg)
    if not wish.machine:
        msg = (
            f"{fault.name} changes the machine itself: all of its networks lose neighbours until it is cleared. "
            "Where that does no harm, such as in a virtual machine, say so with --machine"
        )
        raise UsageError(msg)


def _chosen(site: Site, wish: Wish) -> tuple[Fault, Place, int]:
    for name in filter(None, (wish.at, wish.to)):
        if site.lab.target(name) is None and name != MACHINE:
            msg = f"lab {site.lab.name} has no {name}"
            raise UsageError(msg)
    if wish.version and wish.version not in site.lab.versions:
        msg = f"lab {site.lab.name} has no IPv{wish.version}"
        raise UsageError(msg)
    chance = random.Random(wish.seed)  # noqa: S311 - an exercise, no secret
    version = wish.version or (chance.choice(site.lab.versions) if not wish.name else site.lab.versions[0])
    if not wish.name:
        return _any(site, wish, version, chance)
    fault = named(wish.name)
    if fault.versions == "ipv4" and version != 4:
        if wish.version or 4 not in site.lab.versions:
            msg = f"{fault.name} is a fault of IPv4 only"
            raise UsageError(msg)
        version = 4
    every = fault.places(site, version)
    places = _fitting(every, wish)
    if not places:
        could = ", ".join(dict.fromkeys(str(place) for place in every[:8]))
        where = f"it could be at {could}" if every else "nothing in this lab would break by it"
        asked = f" at {Place(wish.at or '(any)', wish.to)}" if wish.at or wish.to else ""
        msg = f"{fault.name} cannot be applied{asked} in lab {site.lab.name}: {where}"
        raise UsageError(msg)
    return fault, places[0] if wish.seed is None else chance.choice(places), version


def _fitting(places: Sequence[Place], wish: Wish) -> list[Place]:
    return [p for p in places if wish.at in ("", p.at) and wish.to in ("", p.to)]


def _any(site: Site, wish: Wish, version: int, chance: random.Random) -> tuple[Fault, Place, int]:
    """Any fault by which a check of this lab must fail."""
    faults = [f for f in FAULTS if not f.large and not f.machine and (f.versions != "ipv4" or version == 4)]
    chance.shuffle(faults)
    for fault in faults:
        places = _fitting(fault.places(site, version), wish)
        chance.shuffle(places)
        for place in places:
            if any(fault.outcome(site, place, version, trip) for trip in site.trips):
                return fault, place, version
    msg = f"no fault breaks anything in lab {site.lab.name}"
    raise UsageError(msg)


def expected(site: Site, entry: Entry) -> int:
    """How many of the lab's checks must fail by an injected fault."""
    fault, version = named(entry.fault), entry.version or site.lab.versions[0]
    return sum(bool(fault.outcome(site, entry.place, version, trip)) for trip in site.trips)


def remaining(entry: Entry, hands: Hands) -> str:
    """``in effect``, ``repaired`` (everything is as it was before), or ``partly repaired``."""
    same = [hands.look(step.looks) == before for step, before in zip(entry.steps, entry.before, strict=True)]
    return "repaired" if all(same) else "partly repaired" if any(same) else "in effect"


def clear(name: str, numbers: Sequence[int], kernel: LinuxKernel, supervisor: Supervisor) -> list[tuple[Entry, str]]:
    """Undo faults (all, without numbers), the last one first; returns each with what had been left of it.

    Raises ``UsageError`` for a number that is not there, ``PodnetError`` for what could not be undone.
    """
    with record.locked(name):
        lab = record.find(name)
        entries = ledger.load(name)
        unknown = set(numbers) - {entry.number for entry in entries}
        if unknown:
            there = ", ".join(str(entry.number) for entry in entries) or "none"
            msg = f"lab {name} has no fault {min(unknown)} (there: {there})"
            raise UsageError(msg)
        hands = Hands(lab.wanted, kernel, supervisor)
        cleared = []
        for entry in reversed([e for e in entries if not numbers or e.number in numbers]):
            state = remaining(entry, hands)
            _undo(entry, hands)
            entries.remove(entry)
            ledger.save(name, entries)
            cleared.append((entry, state))
            if named(entry.fault).large:
                hands.forget_paths(lab.namespaces)
        return cleared


def clear_machine(name: str, kernel: LinuxKernel, supervisor: Supervisor) -> None:
    """Undo those faults of a lab that are the machine's: ``down`` does not take them along. Raises as ``clear``."""
    numbers = [entry.number for entry in ledger.load(name) if named(entry.fault).machine]
    if numbers:
        clear(name, numbers, kernel, supervisor)


def _undo(entry: Entry, hands: Hands) -> None:
    for step, before in reversed(list(zip(entry.steps, entry.before, strict=True))):
        if hands.look(step.looks) == before:
            continue
        refused = []
        for action in step.undo:
            try:
                hands.do(action)
            except KernelError as error:
                refused.append(str(error))  # a half is undone already, by 'up' or by hand: what counts is the end
        deadline = time.monotonic() + _PATIENCE
        while hands.look(step.looks) != before:
            if time.monotonic() > deadline:
                why = "; ".join(refused) or "it is not as it was before"
                msg = f"fault {entry.number} could not be undone: {why}; 'podnet down' and 'podnet up' begin anew"
                raise PodnetError(msg)
            time.sleep(0.05)


def grade(entries: Sequence[Entry], answer: str) -> Grade | None:
    """Judge an answer against the hidden faults, else against all; the best fit counts, ``None`` without any fault.

    An answer names the fault or the kind of its cause, as the library or the diagnosis calls it, and where it is.
    """
    hidden = [entry for entry in entries if entry.hidden] or list(entries)
    words = _words(answer)
    graded = [Grade(_names(entry, words), entry.at in words, entry) for entry in hidden]
    return max(graded, key=lambda g: (g.named, g.placed), default=None)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9-]+", text.lower())


def _names(entry: Entry, words: list[str]) -> bool:
    text = " ".join(words).replace("-", " ")
    fault = named(entry.fault)
    phrases = [fault.name, *fault.says, *(KINDS[kind] for kind in fault.says)]
    return any(" ".join(_words(phrase)).replace("-", " ") in text for phrase in phrases)
