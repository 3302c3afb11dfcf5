"""The parts of an attachment together: added in their order, removed in the reverse one, compared by CHECK.

Whoever adds a part writes a module with a ``Part`` in it and names it in ``PARTS``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from podnet.cni.plugin import rules, sysctls
from podnet.cni.plugin.aliases import Aliases
from podnet.cni.plugin.bandwidth import Shaping
from podnet.cni.plugin.firewall import Firewall
from podnet.cni.plugin.masquerade import Masquerade
from podnet.cni.plugin.portmap import PortMap
from podnet.cni.plugin.settings import CHAINED
from podnet.cni.plugin.spoof import SpoofCheck
from podnet.cni.spec.errors import HOST_PORT_TAKEN, CNIError, as_cni_error
from podnet.errors import PodnetError
from podnet.ipam.book import Book, Noted
from podnet.ipam.ledger import Holder, boot_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from podnet.cni.plugin.add import Undo
    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.machine import Machine
    from podnet.cni.plugin.part import Part
    from podnet.cni.spec.result import Result
    from podnet.ipam.book import Element, Port
    from podnet.ipam.ledger import Owner

__all__ = ["PARTS", "add", "all_of", "drop_tables", "lacking", "remove", "wanted"]

PARTS: tuple[Part, ...] = (Masquerade(), PortMap(), Firewall(), Aliases(), SpoofCheck(), Shaping())


_REMOVAL = 2.0  # seconds that the removal of another attachment may take


def wanted(call: Call) -> list[Part]:
    """The parts that a call asks for, in their order; one at most of a chained plugin.

    Raises ``CNIError`` where their keys are wrong.
    """
    mode = call.settings.mode
    return [part for part in PARTS if (mode not in CHAINED or mode == part.name) and part.wanted(call)]


def add(call: Call, book: Book, inode: int, result: Result, undo: Undo) -> Result:
    """Make all parts that the call wants; the result with what they add to it. Raises ``PodnetError``."""
    planned = [(part, part.data(call, result)) for part in wanted(call)]
    if not planned:
        return result
    machine, owner = call.machine, call.owner
    names = [part.name for part, _ in planned]
    if any(each.name in names for each in book.parts(owner)):
        remove(machine, book, owner, names)  # what a crash has left
    boot = boot_id()
    made = [part.rules(owner, data) for part, data in planned]
    undo.push("parts", lambda: _take_back(call, book, names))
    noted = [
        Noted(
            owner, part.name, data, call.environment.netns, inode, boot,
            each.elements, part.ports(data), part.settings(data),
        )
        for (part, data), each in zip(planned, made, strict=True)
    ]  # fmt: skip
    taken = _written(machine, book, noted)
    if taken and _cleared(call, book, [other for _, other in taken]):
        taken = _written(machine, book, noted)
    if taken:
        raise CNIError(HOST_PORT_TAKEN, "; ".join(_said(*each) for each in taken))
    rules.add(machine, made)
    machine.apply([sysctls.to_set(setting) for each in noted for setting in each.settings])
    for part, data in planned:
        result = part.make(call, result, data)
    return result


def _take_back(call: Call, book: Book, names: list[str]) -> None:
    remove(call.machine, book, call.owner, names)
    drop_tables(call.machine, book, call.config.name, names)


def _written(machine: Machine, book: Book, noted: list[Noted]) -> list[tuple[Port, Owner]]:
    """Write parts down with their host ports; where others have some of these, which, and nothing is written."""
    with book.transaction():
        taken = [found for each in noted for found in book.taken(each.owner, each.ports)]
        for each in noted if not taken else ():
            book.note(each._replace(settings=sysctls.with_before(machine, book, each.settings)))
    return taken


def _cleared(call: Call, book: Book, others: list[Owner]) -> bool:
    """Whether all of these who have host ports are dead; then those go."""
    parts = [part for other in dict.fromkeys(others) for part in book.parts(other) if part.ports]
    holders = [Holder(each.owner, each.netns, each.inode, each.boot_id) for each in parts]
    if len(call.stale(holders)) < len(holders):
        return False
    for each in parts:
        remove(call.machine, book, each.owner, [each.name])
    return True


def _said(port: Port, owner: Owner) -> str:
    where = "every address" if port.address in ("0.0.0.0", "::") else port.address
    whose = f"container {owner.container_id} ({owner.ifname}, network {owner.network})"
    return f"host port {port.port}/{port.protocol} of {where} is taken by {whose}"


def remove(
    machine: Machine,
    book: Book,
    owner: Owner,
    names: Sequence[str] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Take the parts of an attachment away (of these names), as they are written down.

    ``meanwhile`` is what else is to be deleted, in the same wait for RCU. Every step is tried. Raises ``CNIError`` at
    the end; what could not be removed stays written down.
    """
    noted = {each.name: each for each in book.parts(owner) if names is None or each.name in names}
    known = {part.name: part for part in reversed(PARTS) if part.name in noted}
    stuck = []
    for part in list(known.values()):
        try:
            part.unmake(machine, owner, noted[part.name].data)
        except PodnetError as error:
            stuck.append(as_cni_error(error))
            del known[part.name], noted[part.name]
    elements: list[Element] = []
    for name, each in noted.items():
        # Ledgers of the first layout have the addresses only.
        elements += each.elements or (known[name].rules(owner, each.data).elements if name in known else ())
    # The kernel takes up to 16 ms to delete an element: nobody else waits for that. So others may come to have one of
    # them meanwhile. From the first transaction on, what we have is nobody's for others that go; in the second, what
    # others have that stay comes back. That is what we have deleted, and where an earlier removal was killed between
    # the two, what that one may have.
    alone, before = _going(book, owner, noted, elements)
    try:
        _delete(machine, alone, meanwhile)
    except PodnetError as error:
        _raise_all([*stuck, as_cni_error(error)])
    if not noted:
        _raise_all(stuck)
        return
    with book.transaction():
        for name in noted:
            book.strike(owner, name)
        theirs = book.others(owner, elements)
        places = {each[:3] for each in theirs}
        rules.delete(machine, [each for each in elements if each not in alone and each[:3] not in places])
        gone = {each[:3] for each in alone}
        rules.put_back(machine, [each for each in theirs if before or each[:3] in gone])
        sysctls.put_back(machine, book, noted.values())
    all_of([lambda part=part: part.removed(machine, book, owner, noted[part.name].data) for part in known.values()])  # type: ignore[misc]
    _raise_all(stuck)


def _going(book: Book, owner: Owner, names: Iterable[str], elements: list[Element]) -> tuple[list[Element], bool]:
    """Begin a removal: which of the elements nobody else has who stays, and whether a removal was begun before."""
    if not elements:
        return [], False
    with book.transaction():
        before = book.going(owner, names)
        places = {each[:3] for each in book.others(owner, elements)}
    return [each for each in elements if each[:3] not in places], before


def _delete(machine: Machine, elements: Sequence[Element], meanwhile: Callable[[], None]) -> None:
    """Delete elements, and what else there is, at once.

    Both make the kernel wait for RCU. The waits are one if the other has begun first (26 ms on a busy machine, where
    one after the other takes 39): a link that comes second waits for the whole of the nftables transaction.
    """
    if not elements:
        meanwhile()
        return
    wait = machine.beside(lambda: rules.delete(machine, elements))
    all_of([meanwhile, wait])


def drop_tables(machine: Machine, book: Book, network: str, names: Sequence[str] | None = None) -> None:
    """Delete the nftables tables of these parts that nobody has an element in."""
    owned = {table: part for part in PARTS if names is None or part.name in names for table in part.tables(network)}
    if not book.unused(owned):
        return
    with book.transaction():
        # In one go: the kernel waits once for every deletion of tables, however many they are.
        unused = [each for each in book.unused(owned) if owned[each].disposable(machine, each)]
        rules.delete_tables(machine, unused)
        for part in {owned[each].name: owned[each] for each in unused}.values():
            part.dropped(machine)


def lacking(call: Call, result: Result) -> list[str]:
    """What of the wanted parts is missing or differs, one reason each.

    Where another attachment has one of the elements too (a dead one, whose address was given on), it may be on its
    way to removal: then the element is gone for a moment, until that is in the book as well.
    """
    until = time.monotonic() + _REMOVAL
    made = [(part, data, part.rules(call.owner, data)) for part in wanted(call) for data in [part.data(call, result)]]
    with call.books(call.state) as book:
        while True:
            elements = [element for _, _, each in made for element in each.elements]
            shared = book.others(call.owner, elements, going=True)
            problems = []
            for part, data, each in made:
                problems += rules.lacking(call.machine, each, part.name)
                problems += part.lacking(call, result, data)
            if not (problems and shared) or time.monotonic() > until:
                return problems
            time.sleep(0.01)


def all_of(steps: Sequence[Callable[[], object]]) -> None:
    """Take every step; raise what went wrong at the end, the first error's code in front."""
    errors = []
    for step in steps:
        try:
            step()
        except PodnetError as error:
            errors.append(as_cni_error(error))
    _raise_all(errors)


def _raise_all(errors: list[CNIError]) -> None:
    if errors:
        first = errors[0]
        raise CNIError(first.code, first.msg, "; ".join(filter(None, [first.details, *map(str, errors[1:])])))
