"""What a part of an attachment is: something beyond its link and addresses, in a module of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.machine import Machine
    from podnet.cni.spec.document import Document
    from podnet.cni.spec.result import IP, Result
    from podnet.ipam.book import Book, Element, Port, Setting
    from podnet.ipam.ledger import Owner

__all__ = ["Data", "Part", "Rules", "own_ips", "section"]

Data = dict[str, Any]


class Rules(NamedTuple):
    """A part as nftables rules.

    ``skeleton`` are nft commands that make tables, maps, chains and their rules, as good a second time as a first.
    ``elements`` are what one attachment adds to them, and all that DEL takes away again.
    """

    skeleton: str = ""
    elements: tuple[Element, ...] = ()


class Part:
    """A part. All that ``data`` returns is written down before anything is made, and is all that removal gets.

    What is nftables rules is said by ``rules`` and made by the caller, for all parts in one transaction. ``make``,
    ``lacking`` and ``unmake`` are for what is no rule.
    """

    name = ""

    def wanted(self, call: Call) -> bool:
        """Whether this call asks for the part, by configuration and capabilities only. Asked before anything is made.

        Raises ``CNIError`` where its keys are wrong.
        """
        raise NotImplementedError

    def data(self, call: Call, result: Result) -> Data:
        """What the part is to be, as JSON values. Has no effects. Raises ``CNIError`` for what cannot be."""
        raise NotImplementedError

    def ports(self, data: Data) -> tuple[Port, ...]:
        """The host ports that it needs for itself."""
        return ()

    def settings(self, data: Data) -> tuple[Setting, ...]:
        """The sysctls of the machine that it sets, which go back when the last attachment that set them goes."""
        return ()

    def rules(self, owner: Owner, data: Data) -> Rules:
        """Its nftables rules."""
        return Rules()

    def tables(self, network: str) -> tuple[str, ...]:
        """The nftables tables, with family, that go when nobody has an element in them."""
        return ()

    def disposable(self, machine: Machine, table: str) -> bool:
        """Whether a table that nobody has an element in may go."""
        return True

    def make(self, call: Call, result: Result, data: Data) -> Result:
        """Make what is no rule; the result, with what was made in it. Raises ``PodnetError``; ``unmake`` follows."""
        return result

    def lacking(self, call: Call, result: Result, data: Data) -> list[str]:
        """What of that is missing or differs, one reason each; rules are compared by the caller."""
        return []

    def removed(self, machine: Machine, book: Book, owner: Owner, data: Data) -> None:
        """What is left to do when the rules are gone, and struck from the book: with what they had set going."""

    def dropped(self, machine: Machine) -> None:
        """What else goes when the part's tables have gone."""

    def unmake(self, machine: Machine, owner: Owner, data: Data) -> None:
        """Take away what ``make`` may have made, with neither namespace nor configuration; no error if it is gone."""


def section(call: Call, name: str) -> Document:
    """The keys of a part: a chained plugin's own ones, else those of the object that bears the part's name."""
    from podnet.cni.spec.document import Document

    if call.settings.mode == name:
        return call.config.document
    return call.config.document.object(name) or Document({}, name)


def own_ips(call: Call, result: Result) -> tuple[IP, ...]:
    """The addresses of this attachment in a result: those of its interface, and those of no interface."""
    own = (call.environment.ifname, call.environment.netns)
    return tuple(
        ip
        for ip in result.ips
        if ip.interface is None or ((found := result.interface_of(ip)) and (found.name, found.sandbox) == own)
    )
