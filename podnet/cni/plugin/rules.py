"""nftables rules of attachments: elements come and go, each call in one transaction; the rest is a static skeleton."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podnet.cni.plugin.machine import Machine
    from podnet.cni.plugin.part import Rules
    from podnet.ipam.book import Element

_TRIES = 5

__all__ = ["add", "delete", "delete_tables", "lacking", "put_back"]


def add(machine: Machine, wanted: Sequence[Rules]) -> None:
    """Add the elements of all, and their skeletons where they are missing. Raises ``KernelError``, changing nothing."""
    elements = [element for each in wanted for element in each.elements]
    if not elements:
        return
    text = _commands("add", elements)
    try:
        machine.nft_addition(text)
    except KernelError:
        # The first in its table or chain, or an element that a crash has left with another value.
        skeleton = "".join(each.skeleton for each in wanted)
        for tries in reversed(range(_TRIES)):
            # All at once: who is killed in between must not have deleted what others have too.
            other = [
                each for each in elements if each.value and (found := _listed(machine, each)) and not _has(found, each)
            ]
            try:
                machine.nft(skeleton + _commands("delete", [each._replace(value="") for each in other]) + text)
            except KernelError:  # maybe one of them is gone by now, or has come
                if not tries:
                    raise
            else:
                return


def delete(machine: Machine, elements: Sequence[Element]) -> None:
    """Delete elements; no error if they are gone. Raises ``KernelError``."""
    if not elements:
        return
    try:
        machine.nft_removal(_commands("delete", [each._replace(value="") for each in elements]))
    except KernelError:
        for each in elements:  # some are gone
            _delete(machine, each)


def put_back(machine: Machine, elements: Sequence[Element]) -> None:
    """Add elements that may have been deleted, and are another's by now. Raises ``KernelError``.

    One that is there stays as it is, and one whose table is not is left to the ADD that is about to make both.
    """
    if not elements:
        return
    try:
        machine.nft(_commands("add", elements))
    except KernelError:
        for each in elements:
            try:
                machine.nft(_commands("add", [each]))
            except KernelError:
                if machine.nft_chains(each.table) and _listed(machine, each) is None:
                    raise


def _delete(machine: Machine, element: Element) -> None:
    """Delete one element; no error if it is gone, also where another's removal puts it back for us at that moment."""
    for tries in reversed(range(_TRIES)):
        try:
            machine.nft_removal(_commands("delete", [element._replace(value="")]))
        except KernelError:
            if _listed(machine, element) is None:
                return
            if not tries:
                raise
        else:
            return


def delete_tables(machine: Machine, tables: Iterable[str]) -> None:
    """Delete tables; no error if they are gone. Raises ``KernelError``."""
    commands = "".join(f"add table {each}\ndelete table {each}\n" for each in tables)
    if commands:
        machine.nft(commands)


def lacking(machine: Machine, wanted: Rules, what: str) -> list[str]:
    """The elements and chains that are not as ``add`` would have them, one reason each."""
    problems = []
    for each in wanted.elements:
        found = _listed(machine, each)
        if found is None or not _has(found, each):
            problems.append(f"{what} of {each.key} is missing")
    if wanted.elements:
        there: dict[str, str] = {}
        for table in dict.fromkeys(each.table for each in wanted.elements):
            there |= machine.nft_chains(table)
        for name, body in machine.nft_meaning(wanted.skeleton).items():
            if there.get(name) != body:
                problems.append(f"{what}: the rules of chain {name} {'differ' if name in there else 'are missing'}")
    return problems


def _listed(machine: Machine, element: Element) -> str | None:
    try:
        return machine.nft(f"get element {element.table} {element.map} {{ {element.key} }}\n")
    except KernelError:
        return None


def _has(listed: str, element: Element) -> bool:
    """Whether what nft lists of an element has its value."""
    return not element.value or _squeezed(f": {element.value} }}") in _squeezed(listed)


def _commands(verb: str, elements: Sequence[Element]) -> str:
    """One command a map: nft reads what it knows of a map once a command."""
    by_map: dict[tuple[str, str], list[str]] = {}
    for each in elements:
        text = f"{each.key} : {each.value}" if each.value else each.key
        by_map.setdefault((each.table, each.map), []).append(text)
    return "".join(f"{verb} element {table} {name} {{ {', '.join(each)} }}\n" for (table, name), each in by_map.items())


def _squeezed(text: str) -> str:
    return "".join(text.split())
