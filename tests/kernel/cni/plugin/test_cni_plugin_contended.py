"""Removal of a dead attachment whose address was given on: beside CHECK, killed on its way, or both removed at once."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from podnet.cni.plugin.machine import Machine
from podnet.ipam.book import Book, Element, Noted
from podnet.ipam.ledger import Owner
from podnet.kernel.netns import entered

pytestmark = pytest.mark.kernel

DEAD = Owner("net", "dead", "eth0")


@pytest.mark.parametrize("noted", [True, False], ids=["being-removed", "really-missing"])
def test_k6_check_waits_for_a_removal_that_is_under_way(host: Any, conf: dict[str, Any], noted: bool) -> None:
    conf["ipam"] = {"type": "podnet", "subnet": "10.1.2.0/29"}
    result = host.add(conf)
    with Book(str(host.state)) as book:
        (masquerade,) = [each for each in book.parts(Owner("net", "c1", "eth0")) if each.name == "masquerade"]
        (element,) = masquerade.elements
        if noted:
            book.note(Noted(DEAD, "masquerade", masquerade.data, "", 0, "another boot", masquerade.elements))
    host.tool("nft", "delete", "element", *element.table.split(), element.map, "{", element.key, "}")
    back = threading.Thread(
        target=put_back, args=(host, element, f"/proc/self/task/{threading.get_native_id()}/ns/net")
    )
    back.start()
    try:
        code, error = host.call("CHECK", conf | {"prevResult": result})
    finally:
        back.join()
    if noted:
        assert (code, error) == (0, None)
    else:
        assert "masquerade of 10.1.2.2 is missing" in error["details"]


def put_back(host: Any, element: Element, netns: str) -> None:
    """As the removal ends: the element of who has it now comes back, then the dead one's is no longer in the book."""
    with entered(netns):
        time.sleep(0.5)  # how long the removal takes
        host.tool("nft", "add", "element", *element.table.split(), element.map,
                  "{", element.key, ":", element.value, "}")  # fmt: skip
    with Book(str(host.state)) as book, book.transaction():
        book.strike(DEAD, "masquerade")


class Killed(BaseException):
    """The process ends here."""


class Interrupted(Machine):
    """A machine whose removals are interrupted: something happens before the elements go, something after."""

    before: Callable[[], object]
    after: Callable[[], object]

    def beside(self, step: Callable[[], None]) -> Callable[[], None]:
        self.before()
        step()
        self.after()
        return lambda: None


def killed() -> None:
    raise Killed


def interrupted(before: Callable[[], object], after: Callable[[], object]) -> Callable[[], Machine]:
    def machine() -> Machine:
        found = Interrupted()
        found.before, found.after = before, after
        return found

    return machine


@pytest.fixture
def shared(host: Any, conf: dict[str, Any]) -> dict[str, Any]:
    """A configuration by which c1 and c2 have the same address; c1 has it."""
    conf["ipam"] = {"type": "podnet", "subnet": "10.1.2.0/30"}
    host.add(conf)
    assert host.elements() == {"10.1.2.2"}
    return conf


def given_on(host: Any, conf: dict[str, Any]) -> None:
    """c1 is gone, and its address goes to c2."""
    host.tool("ip", "netns", "delete", "c1")
    for port in host.ip("link", "show", "master", "br0"):  # the kernel is about to delete it
        subprocess.run(["ip", "link", "delete", port["ifname"]], check=False, capture_output=True)
    host.machine = Machine
    assert host.add(conf, "c2")["ips"][0]["address"] == "10.1.2.2/30"


def test_what_a_killed_removal_has_taken_from_another_comes_back_by_the_next(host: Any, shared: dict[str, Any]) -> None:
    host.machine = interrupted(lambda: given_on(host, shared), killed)
    with pytest.raises(Killed):
        host.call("DEL", shared, "c1")
    assert host.elements() == set(), "it was c2's by then"
    host.machine = Machine
    host.delete(shared, "c1")
    assert host.elements() == {"10.1.2.2"}
    host.delete(shared, "c2")
    assert (host.elements(), host.ledger("element"), host.ledger("going")) == (set(), [], [])


def test_nothing_comes_back_for_who_is_being_removed_too(host: Any, shared: dict[str, Any]) -> None:
    """c1's removal was killed; the next one ends while c2's own has deleted its elements, and not struck them yet."""
    host.machine = interrupted(lambda: given_on(host, shared), killed)
    with pytest.raises(Killed):
        host.call("DEL", shared, "c1")
    host.machine = interrupted(lambda: None, lambda: delete(host, shared, "c1"))
    host.delete(shared, "c2")
    assert (host.elements(), host.ledger("element"), host.ledger("going")) == (set(), [], [])


def test_two_removals_at_once_leave_nothing(host: Any, shared: dict[str, Any]) -> None:
    """c2's begins while c1 has the element as well, and c1's is over before c2's is."""
    given_on(host, shared)

    class Slow(Machine):
        def delete_link(self, name: str) -> None:
            delete(host, shared, "c1")
            super().delete_link(name)

    host.machine = Slow
    host.delete(shared, "c2")
    assert host.ledger("part") == []
    assert (host.elements(), host.ledger("element"), host.ledger("going")) == (set(), [], [])


def delete(host: Any, conf: dict[str, Any], container: str) -> None:
    host.machine = Machine
    host.delete(conf, container)


class Watching(Machine):
    """A machine that looks at an element whenever nft has run."""

    seen: list[bool]

    def nft_addition(self, commands: str) -> None:
        self._look(lambda: Machine.nft_addition(self, commands))

    def nft_removal(self, commands: str) -> None:
        self._look(lambda: Machine.nft_removal(self, commands))

    def nft(self, commands: str) -> str:
        found: str = self._look(lambda: Machine.nft(self, commands))
        return found

    def _look(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        finally:
            self.seen.append('"br0"' in Machine.nft(self, "list set inet podnet_firewall bridges\n"))


def test_an_add_never_takes_what_another_has(host: Any, conf: dict[str, Any]) -> None:
    """Also where its first try is refused, for want of a chain: it could be killed at any moment."""
    host.add(conf | {"firewall": {"ingressPolicy": "same-bridge"}})
    Watching.seen = []
    host.machine = Watching
    host.add(conf | {"firewall": {"ingressPolicy": "same-bridge", "iptablesAdminChainName": "MINE"}}, "c2")
    assert len(Watching.seen) > 1
    assert all(Watching.seen)
