"""Names under which others on the network may look for a container: a hosts file a network.

``STATE/hosts/NETWORK`` in the form of hosts(5) is for whoever answers for names: dnsmasq (``addn-hosts``), CoreDNS
(``hosts``). It is written anew from the book with every change, so nothing that a crash leaves stays wrong.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podnet.cni.plugin.part import Data, Part, own_ips
from podnet.cni.spec.errors import IO_FAILURE, CNIError

if TYPE_CHECKING:
    from podnet.cni.plugin.call import Call
    from podnet.cni.plugin.machine import Machine
    from podnet.cni.spec.result import Result
    from podnet.ipam.book import Book
    from podnet.ipam.ledger import Owner

__all__ = ["Aliases", "hosts_file"]

_OF_NAMES = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
_HEAD = "# Names of containers in network {}, by podnet; written anew with every change.\n"


def hosts_file(folder: str, network: str) -> str:
    """The hosts file of a network, in the folder of the machine's book."""
    return os.path.join(folder, "hosts", network[:200])  # a file's name has 255 bytes at most


class Aliases(Part):
    """``runtimeConfig.aliases`` (CONVENTIONS.md): the data are the ``names`` and the ``addresses`` that they mean.

    Nothing of it is in the kernel, and a result has no place for it.
    """

    name = "aliases"

    def wanted(self, call: Call) -> bool:
        return bool(call.config.runtime.aliases)

    def data(self, call: Call, result: Result) -> Data:
        addresses = [ip.address.partition("/")[0] for ip in own_ips(call, result)]
        return {"names": list(call.config.runtime.aliases), "addresses": addresses}

    def make(self, call: Call, result: Result, data: Data) -> Result:
        with call.books(call.state) as book:
            _write(book, call.config.name)
        return result

    def lacking(self, call: Call, result: Result, data: Data) -> list[str]:
        path = hosts_file(call.state, call.config.name)
        try:
            with open(path, encoding="ascii") as file:
                there = file.read().splitlines()
        except OSError:
            there = []
        return [f"{path} lacks {line!r}" for line in _lines(data) if line not in there]

    def removed(self, machine: Machine, book: Book, owner: Owner, data: Data) -> None:
        _write(book, owner.network)


def _lines(data: Data) -> list[str]:
    """One line an address; what is no name of a host would be something else in a file of lines and words."""
    names = [each for each in data["names"] if each and not set(each) - _OF_NAMES]
    return [f"{address} {' '.join(names)}" for address in data["addresses"] if names]


def _write(book: Book, network: str) -> None:
    """Write the hosts file of a network. Raises ``CNIError`` 5."""
    path = hosts_file(book.folder, network)
    fresh = os.path.join(book.folder, "hosts.new")  # not in its folder, of which others read every file
    with book.transaction():  # so that of two who write at once the later one knows more
        lines = [line for data in book.data(network, Aliases.name) for line in _lines(data)]
        try:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            if lines:
                with open(fresh, "w", encoding="ascii") as file:
                    file.write(_HEAD.format(network[:200]) + "".join(f"{line}\n" for line in lines))
                os.chmod(fresh, 0o644)
                os.rename(fresh, path)
            elif os.path.exists(path):
                os.unlink(path)
        except OSError as error:
            raise CNIError(IO_FAILURE, f"cannot write {path}: {error.strerror}") from None
