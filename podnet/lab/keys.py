"""WireGuard's keys: a pair a node, made once and kept until ``podnet rekey``.

The record and the kernel objects hold public keys. A private key is in a file of its own, named after the public
one, which only root can read; it goes with the lab.
"""

from __future__ import annotations

import os
from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from podnet.kernel.wireguard import key_file
from podnet.lab.record import directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podnet.model.placement import Placement

__all__ = ["Pair", "folder", "keep", "new_pair", "remove_others", "with_keys"]


class Pair(NamedTuple):
    """A public key as base64, and the private key as it is."""

    public: str
    private: bytes

    def __repr__(self) -> str:
        return f"Pair({self.public!r})"  # a private key is in no message


def folder(lab: str) -> str:
    """Where a lab's private keys are."""
    return f"{directory(lab)}/keys"


def new_pair() -> Pair:
    """A new pair of keys."""
    from podnet.fabric.curve25519 import private_key, public_key

    private = private_key()
    return Pair(b64encode(public_key(private)).decode(), private)


def with_keys(placement: Placement, earlier: Mapping[str, Sequence[str]]) -> tuple[Placement, list[Pair]]:
    """The placement with a public key for every node: the earlier one, else of a new pair, which are returned too."""
    made = []
    nodes = []
    for node in placement.nodes:
        public = next(iter(earlier.get(f"key/{node.node.name}", ())), "")
        if not public or not os.path.exists(key_file(folder(placement.topology.name), public)):
            made.append(new_pair())
            public = made[-1].public
        nodes.append(replace(node, public_key=public))
    return replace(placement, nodes=tuple(nodes)), made


def keep(lab: str, pairs: Iterable[Pair]) -> None:
    """Write private keys down, readable by root only."""
    for pair in pairs:
        with suppress(FileExistsError):
            os.mkdir(folder(lab), mode=0o700)
        fd = os.open(key_file(folder(lab), pair.public), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(pair.private)


def remove_others(lab: str, publics: Iterable[str]) -> None:
    """Delete the private keys that belong to none of these."""
    try:
        there = os.listdir(folder(lab))
    except FileNotFoundError:
        return
    used = {os.path.basename(key_file("", public)) for public in publics}
    for name in there:
        if name not in used:
            os.unlink(f"{folder(lab)}/{name}")
    if not used:
        os.rmdir(folder(lab))
