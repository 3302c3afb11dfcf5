"""Which targets a word means, and what is said about a word that means none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from probe_labs import lab, target

from podnet.errors import UsageError
from podnet.probe.select import chosen

LAB = replace(
    lab(),
    targets=(
        *lab().targets,
        target("r1", "router"),
        replace(target("shop-0", "pod", node="n2"), labels=(("run", "shop"), ("tier", "web"))),
        replace(target("shop-1", "pod", node="n1"), labels=(("run", "shop"),)),
    ),
)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["web"], {"web"}),
        (["nodes"], {"n1", "n2"}),
        (["clients"], {"outside"}),
        (["*"], {"n1", "n2", "web", "api", "db", "outside", "shop-0", "shop-1"}),
        (["shop"], {"shop-0", "shop-1"}),
        (["shop-1", "db"], {"shop-1", "db"}),
        (["run=shop"], {"shop-0", "shop-1"}),
        (["run=shop,node:n1"], {"shop-1"}),
        (["pods,node:n2"], {"db", "shop-0"}),
        (["run=shop,tier=web", "n1"], {"shop-0", "n1"}),
    ],
)
def test_words(words: list[str], names: set[str]) -> None:
    assert chosen(LAB, words) == names


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("wep", "did you mean web?"),
        ("r1", "did you mean"),
        ("pods,nodes", "did you mean"),
        ("run=nothing", "write a name, pods, nodes, clients, KEY=VALUE or node:NAME"),
        ("", "write a name"),
    ],
)
def test_a_word_that_means_nothing_is_an_error_with_a_hint(word: str, says: str) -> None:
    with pytest.raises(UsageError, match=r"nothing in lab small is meant by") as raised:
        chosen(LAB, [word])
    assert says in str(raised.value)
