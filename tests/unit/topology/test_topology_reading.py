"""Reading a topology: where the text comes from, what is refused before it is looked at, and all problems at once."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from podnet.errors import TopologyError
from podnet.topology.load import MAX_BYTES, load, loads, name_of

GOOD = "name: lab\nnodes: [{name: n1}]\n"
FIRST_LINE = re.compile(r"^.*:\d+:\d+: ")


def problems_of(text: str) -> list[str]:
    with pytest.raises(TopologyError) as caught:
        loads(text, "lab.yaml")
    return caught.value.problems


def file_problem(path: Path | str) -> str:
    with pytest.raises(TopologyError) as caught:
        load(path)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def test_a_problem_shows_the_line_a_caret_and_the_help() -> None:
    text = "name: lab\nnodes:\n  - {name: node1}\npods:\n  - {name: web, node: nod1}\n"
    (problem,) = problems_of(text)
    assert problem == (
        'lab.yaml:5:23: pod "web" runs on node "nod1", which does not exist\n'
        "      - {name: web, node: nod1}\n"
        "                          ^^^^\n"
        '    help: did you mean "node1"?'
    )


def test_all_problems_come_at_once_in_file_order() -> None:
    text = """\
name: Lab
networking: {podSubnet: 10.244.0.1/16, fabric: vlan}
underlay:
  subnets: [{name: left, cidr: 198.18.1.0/24}, {name: right, cidr: 198.18.1.0/25}]
nodes:
  - {name: n1, subnett: left, labels: {a: 1}}
  - {name: n1, subnet: rigth}
pods:
  - {name: web, node: n3, replicas: 0}
  - {name: db}
expect:
  - {from: wbe, to: db, tcp: 0, verdict: reech}
"""
    places = [tuple(map(int, p.split(":")[1:3])) for p in problems_of(text)]
    lines = [line for line, _ in places]
    assert places == sorted(places)
    assert lines == [1, 2, 2, 4, 6, 6, 7, 7, 9, 9, 10, 12, 12, 12]


def test_a_wrong_entry_does_not_make_its_references_wrong() -> None:
    text = """\
name: lab
nodes:
  - {name: n1, subnet: [x]}
pods:
  - {name: web, node: n1, replicas: many}
  - {name: db, node: 5}
expect:
  - {from: web-7, to: db, icmp: true}
"""
    assert [p.split(":")[1] for p in problems_of(text)] == ["3", "5", "6"]


def test_a_long_line_is_cut_around_the_place() -> None:
    text = "name: lab\nnodes: [" + "{name: n1}, " * 20 + "{name: n2, podCIDR: 1.2.3.4}, " + "{name: n3}, " * 40 + "]\n"
    problem = next(p for p in problems_of(text) if "1.2.3.4" in p.split("\n")[0])
    _, source, caret, _ = problem.split("\n")
    assert len(source) < 160
    assert source[caret.index("^") : caret.rindex("^") + 1] == "1.2.3.4"


def test_the_caret_stands_below_wide_characters_and_tabs() -> None:
    _, source, caret, _ = problems_of('name: lab\nnodes: [{name: n1, labels: {"日本": x}, hots: 1}]\n')[-1].split("\n")
    cells = source.index("hots") + len("日本")  # each of the two takes two cells
    assert caret.index("^") == cells


def test_nothing_of_the_file_moves_the_terminal() -> None:
    text = 'name: "\\e[2J\\r"\nnodes: [{name: n1}]\n'
    assert all(c.isprintable() or c == "\n" for c in "".join(problems_of(text)))


@pytest.mark.parametrize("text", ["", " \n\n", "\ufeff", "\ufeff\n"])
def test_empty(text: str) -> None:
    assert "lab.yaml:1:1: the file is empty" in problems_of(text)[0]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        "---\n" + GOOD,
        "%YAML 1.1\n---\n" + GOOD + "...\n",
        "# a comment\n\n" + GOOD,
        '{"name": "lab", "nodes": [{"name": "n1"}]}',
        "name: !!str lab\nnodes: !!seq [!!map {name: n1}]\n",
        "name: ! lab\nnodes: [{name: n1, host: no}]\n",
    ],
)
def test_the_same_topology_in_other_spellings(text: str) -> None:
    assert loads(text) == loads(GOOD)


def test_positions_do_not_count_the_byte_order_mark() -> None:
    assert problems_of("\ufeffname: Lab\nnodes: [{name: n1}]\n")[0].startswith("lab.yaml:1:7: ")


def test_positions_with_carriage_returns() -> None:
    assert problems_of("name: lab\r\nnodes: [{name: N1}]\r\n")[0].startswith("lab.yaml:2:16: ")


def test_anchors_and_merge_keys() -> None:
    text = """\
name: lab
nodes:
  - &node {name: n1, labels: &labels {zone: a, rack: "1"}}
  - {<<: *node, name: n2}
  - {name: n3, labels: {<<: [{zone: b}, *labels]}}
pods: [{name: web, node: n1, labels: *labels}]
"""
    topology = loads(text)
    assert [node.labels for node in topology.nodes] == [
        (("zone", "a"), ("rack", "1")),
        (("zone", "a"), ("rack", "1")),
        (("zone", "b"), ("rack", "1")),
    ]
    assert topology.pods[0].labels == (("zone", "a"), ("rack", "1"))


def test_alias_bomb() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
    start = time.perf_counter()
    (problem,) = problems_of(GOOD + bomb)
    assert "alias bomb" in problem
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting(opening: str) -> None:
    (problem,) = problems_of("name: " + opening * 100_000)
    assert "nested more than 64 deep" in problem or "not YAML" in problem


def test_many_values() -> None:
    (problem,) = problems_of("name: lab\nnodes: [" + "a, " * 500_000 + "]\n")
    assert "more than 400,000 values" in problem


NODES = "name: lab\nnodes: [{name: n1}]\n"
HUGE = {
    "tag directives": ("%TAG !a! x\n" * 300_000, "more than 64 %TAG lines"),
    "quotes": ('"' * 1_000_000, "not YAML"),
    "unknown keys": (NODES + "".join(f"k{i}: 1\n" for i in range(20_000)), "unknown key `k0`"),
    "unknown nodes": (
        NODES + "pods: [" + ", ".join(f"{{name: p{i}, node: m{i}}}" for i in range(5_000)) + "]\n",
        'pod "p0" runs on node "m0"',
    ),
    "replicas": (
        NODES + "pods: [" + ", ".join(f"{{name: p{i}, node: n1, replicas: 1000}}" for i in range(5_000)) + "]\n",
        "the file asks for 5,000,000 pods",
    ),
    "expectations": (
        NODES + "pods: [{name: p, node: n1, replicas: 200}]\nexpect: ["
        + ", ".join(['{from: "*", to: [p, pods], tcp: [1, 2]}'] * 9_999) + "]\n",
        None,
    ),
    "routes": (
        "name: lab\nnodes: [{name: n1, routes: [" + "{dst: default, dev: eth0}, " * 1_001 + "]}]\n",
        "`routes` has 1,001 entries, and at most 1,000 are allowed",
    ),
    "subnets": (
        NODES + "underlay: {subnets: ["
        + ", ".join(f"{{name: s{i}, cidr: 11.{i // 256}.{i % 256}.0/24}}" for i in range(1_001)) + "]}\n",
        "`subnets` has 1,001 entries",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), HUGE.values(), ids=HUGE.keys())
def test_no_file_takes_long(text: str, message: str | None) -> None:
    start = time.perf_counter()
    if message is None:
        loads(text)
    else:
        assert message in problems_of(text)[0]
    assert time.perf_counter() - start < 20  # a second or two here; without the bounds minutes or hours


def test_the_name_of_deeply_nested_text(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text("[" * 1_000_000 + "\nname: lab\n")
    assert name_of(path) == "lab"


def test_problems_end_at_five_hundred() -> None:
    problems = problems_of(NODES + "".join(f"k{i}: 1\n" for i in range(600)))
    assert len(problems) == 501
    assert "k499" in problems[-2]
    assert problems[-1] == "lab.yaml:503:1: and more problems from here on"


def test_a_pair_of_surrogates_is_no_text() -> None:
    assert "U+D800" in problems_of("name: \ud800\n")[0]


def test_a_file_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(GOOD)
    assert load(path) == load(str(path)) == loads(GOOD)
    assert load(path).path == str(path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert load("-").path == "<stdin>"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert file_problem(tmp_path / "none.yaml").endswith(
        "none.yaml: cannot read the topology: no such file or directory"
    )
    assert "is a directory" in file_problem(tmp_path)
    assert "cannot read the topology" in file_problem("a\0b")
    if os.geteuid():
        (tmp_path / "secret").write_text(GOOD)
        (tmp_path / "secret").chmod(0)
        assert "permission denied" in file_problem(tmp_path / "secret")


@pytest.mark.parametrize(
    ("raw", "place", "message"),
    [
        (b"", "1:1", "the file is empty"),
        (b"name: lab\nnodes: \xff\n", "2:8", "the file is not UTF-8: byte 0xff"),
        ("name: lab".encode("utf-16"), "1:1", "the file is UTF-16"),
        (b"\x7fELF\x02\x01\x01\0\0", "1:1", "the character U+007F"),
        (b"#" * (MAX_BYTES + 1), "1:1", "the file is larger than 4 MiB"),
    ],
)
def test_files_that_are_no_topology(tmp_path: Path, raw: bytes, place: str, message: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(raw)
    assert file_problem(path).startswith(f"{path}:{place}: {message}")


def test_an_endless_file_is_read_as_far_as_the_limit() -> None:
    assert "larger than 4 MiB" in file_problem("/dev/zero")


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "nodes: nonsense\nname: lab\nfoo: bar\n",
        "nodes: [{name: n1}]\npods: [name: x]\nname: 'lab'\n",
        "name: lab\nnodes: [\n",
        "nodes: [{name: n1}}\nname: lab\n",
        "\ufeffname: lab # the lab\n\tbroken",
    ],
)
def test_the_name_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(text, encoding="utf-8")
    assert name_of(path) == "lab"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: []\n", "1:1: the file does not say the lab's `name`"),
        ("nodes: [{name: n1}]\n", "1:1: the file does not say the lab's `name`"),
        ("", "1:1: the file does not say the lab's `name`"),
        ("x: 1\nname: ../../etc\n", '2:7: "../../etc" is no name of a lab'),
        ("name: [a]\n", "does not say"),
    ],
)
def test_no_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(text)
    with pytest.raises(TopologyError, match=FIRST_LINE) as caught:
        name_of(path)
    assert message in str(caught.value)


def test_a_thousand_pods_are_read_in_less_than_100_ms() -> None:
    text = f"name: lab\nnodes: [{', '.join(f'{{name: n{i}}}' for i in range(10))}]\npods:\n"
    text += "".join(f"- {{name: p{i}, node: n{i}, replicas: 100, labels: {{a: b}}}}\n" for i in range(10))
    text += 'expect: [{from: "*", to: pods, icmp: true}]\n'
    loads(GOOD)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert len(loads(text).pods) == 1000
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1


def test_importing_the_loader_is_light() -> None:
    code = "import sys, podnet.topology.load; print([m for m in ('yaml', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
