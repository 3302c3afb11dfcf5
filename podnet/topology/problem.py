"""One problem of a file: where, what, and what would be right; and how it is printed."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

__all__ = ["MAX_PROBLEMS", "Enough", "Problem", "Span", "closest", "did_you_mean", "quote", "render"]

_WINDOW = 140  # a longer source line is cut around the offending text: a terminal would wrap it
_INDENT = "    "
_CHOICES = 500  # comparing with one takes some 10 microseconds
MAX_PROBLEMS = 500  # nobody reads further, and each costs a search for what was meant


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A piece of one source line; ``line`` and ``column`` count from 1, ``width`` in characters."""

    line: int
    column: int
    width: int = 1


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """What is wrong at one place, and how to get it right (``help``, may be empty)."""

    span: Span
    message: str
    help: str = ""


class Enough(Exception):  # noqa: N818 - it ends the checks, the problems are noted
    """There are ``MAX_PROBLEMS`` problems: looking for more helps nobody."""


def printable(text: str) -> str:
    """The text with everything escaped that would move a terminal's cursor or break the line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quote(text: str, limit: int = 60) -> str:
    """The text in double quotes, printable, and cut at ``limit`` characters."""
    return f'"{printable(text[: limit - 1])}…"' if len(text) > limit else f'"{printable(text)}"'


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that the word is most likely a misspelling of, or ``None``."""
    if len(word) > 200:  # difflib is quadratic, and nobody misspells that much
        return None
    folded = {_fold(c): c for c in islice(choices, _CHOICES)}
    found = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def did_you_mean(word: str, choices: Sequence[str], also: str = "there is") -> str:
    """A help text: the likely choice, else all of them when they are few."""
    near = closest(word, choices)
    if near is not None:
        return f'did you mean "{near}"?'
    if not choices:
        return ""
    shown = ", ".join(choices[:8]) + (f", ... ({len(choices)} in all)" if len(choices) > 8 else "")
    return f"{also} {shown}"


def _fold(word: str) -> str:
    return word.replace("_", "").replace("-", "").lower()


def render(problem: Problem, path: str, lines: Sequence[str]) -> str:
    """``FILE:LINE:COLUMN: message``, the source line, a caret line, and the help where there is one."""
    span = problem.span
    text = [f"{printable(path)}:{span.line}:{span.column}: {problem.message}"]
    source = lines[span.line - 1] if span.line <= len(lines) else ""
    if source.strip():
        text += _excerpt(source, span)
    if problem.help:
        text.append(f"{_INDENT}help: {problem.help}")
    return "\n".join(text)


def _excerpt(source: str, span: Span) -> list[str]:
    source = source.rstrip()
    start = min(span.column - 1, len(source))
    first = 0
    before = after = ""
    if len(source) > _WINDOW:
        first = max(0, min(start - _WINDOW // 3, len(source) - _WINDOW))
        before = "…" if first else ""
        after = "…" if first + _WINDOW < len(source) else ""
        source = source[first : first + _WINDOW]
    # a tab or control character becomes one cell, so that the caret stands where the text stands
    source = "".join(c if c.isprintable() else " " for c in source)
    start -= first
    width = max(1, min(span.width, len(source) - start))
    caret = " " * (len(before) + _cells(source[:start])) + "^" * max(1, _cells(source[start : start + width]))
    return [f"{_INDENT}{before}{source}{after}", f"{_INDENT}{caret}"]


def _cells(text: str) -> int:
    """How many terminal cells the text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
