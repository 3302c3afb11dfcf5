"""Whatever the file holds: a topology or a ``TopologyError`` that names places, soon, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from podnet.errors import TopologyError
from podnet.model.topology import Topology
from podnet.topology.load import load, loads, name_of

FULL = (Path(__file__).parent / "full.yaml").read_text(encoding="utf-8")
WORDS = [match.span() for match in re.finditer(r"[^\s,{}\[\]:]+", FULL)]
FIRST_LINE = re.compile(r"^.*:\d+:\d+: \S")
# what pydantic and Python say, and no user should read
FOREIGN = re.compile(r"Input should|NoneType|<class|Traceback|ValidationError|\b(str|int|list|dict|bool|model)_type\b")

PIECES = st.sampled_from(
    ["null", "~", "no", "[", "]", "{", "}", ":", "- ", "\t", "&a ", "*a", "!x ", '"', "'", "0x1", "010", "10:20", "1.5",
     "<<", "%", "|", ">", "?", "\0", "\x85", "\u2028", "é", "9" * 30, "-1", "0", "1", "::/0", "0.0.0.0/0", "default",
     "255.255.255.255/32", "10.244.0.0/31", "10.244.0.0/32", "fd00::/8", "fd00::/127", "fd00::/128", "dual", "ipv6",
     "ipv4", "none", "true", "[]", "{}", '""', "\n", "\r", '"*"', "pods", "web-0", "web", "node1", "underlay"]
)  # fmt: skip
EDIT = st.tuples(
    st.sampled_from(["insert", "word", "swap", "drop", "repeat"]), st.integers(0, 10**6), st.integers(0, 10**6), PIECES
)
LIMITS = settings(max_examples=300, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])


def problems_of(read: Callable[[], object]) -> list[str]:
    """The problems, none where there is a topology; any other exception ends the test."""
    try:
        found = read()
    except TopologyError as error:
        return error.problems
    assert isinstance(found, Topology | str)
    return []


def check(text: str) -> None:
    for problem in problems_of(lambda: loads(text)):
        assert FIRST_LINE.match(problem), problem
        assert FOREIGN.search(text) or not FOREIGN.search(problem), problem


def edited(text: str, kind: str, a: int, b: int, piece: str) -> str:
    start, end = WORDS[a % len(WORDS)]
    if kind == "insert":
        return text[: a % len(text)] + piece + text[a % len(text) :]
    if kind == "word":
        return text[:start] + piece + text[end:]
    if kind == "swap":
        other = WORDS[b % len(WORDS)]
        return text[:start] + text[other[0] : other[1]] + text[end:]
    lines = text.split("\n")
    line = lines.pop(a % len(lines)) if kind == "drop" else lines[a % len(lines)]
    if kind == "repeat":
        lines.insert(b % len(lines), line)
    return "\n".join(lines)


@LIMITS
@given(st.text(max_size=300))
@example("\ud800")
@example("a: &a [*a]")
@example("? ? ? ?")
@example("name: lab\nnodes: [{name: n1}]\nunderlay: {subnets: [{name: a, cidr: 255.255.255.255/32}]}\n")
def test_any_text(text: str) -> None:
    check(text)


@LIMITS
@given(
    st.lists(PIECES | st.sampled_from(["name: lab\n", "nodes:\n", "  ", "name", ": ", ", "]), max_size=40).map("".join)
)
def test_text_of_yaml_pieces(text: str) -> None:
    check(text)


@LIMITS
@given(st.lists(EDIT, min_size=1, max_size=5))
def test_edits_of_a_good_file(edits: list[tuple[str, int, int, str]]) -> None:
    text = FULL
    for edit in edits:
        text = edited(text, *edit)
    check(text)


@settings(max_examples=150, deadline=20_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200) | st.text(max_size=100).map(lambda t: t.encode("utf-16")))
def test_any_bytes(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(raw)
    for read in (load, name_of):
        assert all(FIRST_LINE.match(problem) for problem in problems_of(partial(read, path)))
