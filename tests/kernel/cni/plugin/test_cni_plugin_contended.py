"""CHECK beside the removal of a dead attachment whose address was given on: its rules go, and come back."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

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
