"""YAML's own syntax errors in the words of somebody who writes a topology."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from podnet.topology.problem import Problem, Span

__all__ = ["syntax_problem"]

# libyaml's text -> (message, help)
_WORDS = {
    "mapping values are not allowed in this context": (
        "a colon is not expected here",
        "quote a text that holds a colon and a space; check that keys of one mapping start in the same column",
    ),
    "did not find expected key": (
        "no key where one is expected: the line does not fit those above it",
        "check the indentation, and that every bracket, brace and quote above is closed",
    ),
    "did not find expected '-' indicator": (
        'this line does not continue the list above it: no "- " in the column of the others',
        "check the indentation",
    ),
    "found a tab character that violates indentation": ("a tab cannot indent", "indent with spaces"),
    "could not find expected ':'": ("this line is no `key: value`", "write a colon and a space after the key"),
    "did not find expected ',' or ']'": ("a list that starts with [ is not closed here", "write a comma or ]"),
    "did not find expected ',' or '}'": ("a mapping that starts with { is not closed here", "write a comma or }"),
    "did not find expected node content": ("a value is missing here", "check commas and brackets"),
    "found unexpected end of stream": ("a quote is opened here and never closed", "close the quote"),
    "found undefined tag handle": ("this YAML tag is not known", "take the tag out"),
    "block sequence entries are not allowed in this context": (
        'a list entry ("- ") is not expected here',
        "start the list on a line of its own below its key",
    ),
    "did not find expected <document start>": (
        "the text goes on after its end",
        "check the indentation of this line and of the first one",
    ),
}
_UNOPENED = "found character that cannot start any token"


def syntax_problem(error: Any, lines: Sequence[str]) -> Problem:
    """The problem that a ``yaml.YAMLError`` stands for; ``lines`` are those of the text."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    text = str(getattr(error, "problem", None) or "the text cannot be read")
    if text == "found unexpected end of stream":
        mark = getattr(error, "context_mark", None) or mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    if line >= len(lines) or (line == len(lines) - 1 and not lines[line].strip()):  # behind the end: show the last line
        line = max((n for n, source in enumerate(lines) if source.strip()), default=0)
        column = len(lines[line].rstrip())
    message, hint = _WORDS.get(text, (text, ""))
    if text == _UNOPENED:
        message, hint = _first_character(lines[line][column : column + 1])
    return Problem(Span(line + 1, column + 1), f"not YAML: {message}", hint)


def _first_character(char: str) -> tuple[str, str]:
    if char == "\t":
        return "a tab cannot indent", "indent with spaces"
    return f"a value cannot start with {char or 'this'}", "put the value in quotes"
