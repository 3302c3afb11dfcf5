"""Which targets words of the command line mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podnet.model.lab import Lab, Target

__all__ = ["chosen"]

_WORDS = {"pods": "pod", "nodes": "node", "clients": "client"}


def chosen(lab: Lab, words: Iterable[str]) -> frozenset[str]:
    """The names of all targets that at least one of the words means.

    A word is a name, the name of a pod with ``replicas``, ``pods``, ``nodes``, ``clients``, ``*``, ``KEY=VALUE`` (a
    label), or ``node:NAME`` (the pods on a node); several words may be joined by commas, and then all must fit.
    Raises ``UsageError`` for what means nothing.
    """
    return frozenset(target.name for word in words for target in _meant(lab, word))


def _meant(lab: Lab, word: str) -> list[Target]:
    found = [target for target in lab.targets if target.kind != "router"]
    for part in word.split(","):
        found = [target for target in found if _fits(target, part.strip())]
    if found:
        return found
    from difflib import get_close_matches

    close = get_close_matches(word, [*(target.name for target in lab.targets), *_WORDS], 1)
    hint = f"did you mean {close[0]}?" if close else "write a name, pods, nodes, clients, KEY=VALUE or node:NAME"
    msg = f"nothing in lab {lab.name} is meant by {word!r}: {hint}"
    raise UsageError(msg)


def _fits(target: Target, word: str) -> bool:
    if word in ("*", target.name):
        return True
    if word in _WORDS:
        return target.kind == _WORDS[word]
    if word.startswith("node:"):
        return target.kind == "pod" and target.node == word[5:]
    if "=" in word:
        key, _, value = word.partition("=")
        return (key, value) in target.labels
    base, _, number = target.name.rpartition("-")
    return target.kind == "pod" and number.isdecimal() and base == word
