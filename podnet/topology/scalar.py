"""What YAML makes of a plain scalar: text, a whole number, a boolean, nothing, or something odd.

The rules are YAML 1.1's, as PyYAML has them: the traps of that version (``no`` is false, ``010`` is eight,
``10:20`` is 620) are recognised, so that a message can name them.
"""

from __future__ import annotations

import re

from podnet.topology.tree import Odd

__all__ = ["resolve"]

_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_TRUE = frozenset({"true", "yes", "on"})
_DIGITS = 19  # a 64-bit number; int() itself refuses more than 4,300 digits


def resolve(text: str) -> str | int | bool | Odd | None:
    """The value of an unquoted scalar."""
    from yaml.resolver import Resolver

    tag = _tag(text, Resolver)
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() in _TRUE
    if tag == "int":
        return _whole(text)
    if tag == "float":
        return Odd(text, "a number with a fraction")
    if tag == "timestamp":
        return Odd(text, "a date")
    return text


def _tag(text: str, resolver: type) -> str:
    table = resolver.yaml_implicit_resolvers  # type: ignore[attr-defined]
    for tag, pattern in (*table.get(text[:1], ()), *table.get(None, ())):
        if pattern.match(text):
            return str(tag).rpartition(":")[2]
    return "str"


def _whole(text: str) -> int | Odd:
    if len(text) > _DIGITS:
        return Odd(text, "a number of more than 64 bits")
    if _DECIMAL.fullmatch(text):
        return int(text)
    digits = text.replace("_", "").lstrip("+-")
    sign = -1 if text.startswith("-") else 1
    if ":" in digits:
        number = 0
        for part in digits.split(":"):
            number = number * 60 + int(part)
        return Odd(text, f"the number {sign * number} (base 60)")
    for prefix, base, kind in (("0x", 16, "hexadecimal"), ("0b", 2, "binary"), ("0", 8, "octal")):
        if digits.lower().startswith(prefix) and len(digits) > len(prefix):
            return Odd(text, f"the number {sign * int(digits[len(prefix) :], base)} ({kind})")
    return Odd(text, f"the number {sign * int(digits)}")
