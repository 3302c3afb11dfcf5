"""Stand-ins for ``typing`` and ``re`` while a cold call imports its modules: a third of what it takes in all.

``typing`` is imported for type checkers and for ``NamedTuple``, which ``json`` needs no more than it needs the regular
expressions that it compiles when it is imported: its C code does without. Whoever asks for more gets the real modules.
"""

from __future__ import annotations

import sys
from _collections import _tuplegetter  # type: ignore[import-not-found]  # what collections makes of a field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType as Module
    from typing import Any
else:
    Module = type(sys)  # without importing types

__all__ = ["NamedTuple", "install"]

_TRIED = {(3, 11), (3, 12), (3, 13)}
_BLANKS = r"[ \t\n\r]*"  # json.decoder.WHITESPACE


class _StandIn(Module):
    """A module that has little, and makes way for the real one when it is asked for the rest."""

    def __getattr__(self, name: str) -> object:
        if name == "__path__":  # which import asks every module for
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


def _real(name: str) -> Any:
    """The module itself, which from now on is the one that others import."""
    if isinstance(sys.modules.get(name), _StandIn):
        del sys.modules[name]
    return __import__(name)


class _Pattern:
    """A regular expression that is compiled when it is used."""

    def __init__(self, *given: object) -> None:
        self._given = given

    def __getattr__(self, name: str) -> Any:
        return getattr(_real("re").compile(*self._given), name)

    def match(self, *arguments: Any) -> Any:  # json takes it for a default, long before it is called
        return self.__getattr__("match")(*arguments)


class _Blanks(_Pattern):
    """JSON's white space, which is looked for before and behind every document."""

    class Match(int):
        def end(self) -> int:
            return self

    def match(self, text: str, start: int = 0) -> Match:
        end = start
        while end < len(text) and text[end] in " \t\n\r":
            end += 1
        return self.Match(end)


def _compile(pattern: object, flags: int = 0) -> _Pattern:
    return (_Blanks if pattern == _BLANKS else _Pattern)(pattern, flags)


def _completed(name: str, fields: tuple[str, ...], defaults: dict[str, object], args: tuple, given: dict) -> list:  # type: ignore[type-arg]
    """All values of a tuple, from those by position and by name. Raises ``TypeError``."""
    if len(args) > len(fields):
        raise TypeError(f"{name}() takes {len(fields)} values, not {len(args)}")
    known = {**defaults, **dict(zip(fields, args, strict=False)), **given}
    twice = given.keys() & fields[: len(args)]
    missing, unknown = [each for each in fields if each not in known], known.keys() - {*fields}
    if twice or missing or unknown:
        raise TypeError(f"{name}(): missing {missing}, unknown {sorted(unknown)}, given twice {sorted(twice)}")
    return [known[each] for each in fields]


class _Meta(type):
    """Makes of a class of annotations a tuple with names: what ``collections.namedtuple`` takes six times as long for,
    because it compiles a constructor."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict) -> type:  # type: ignore[type-arg]
        if not bases:
            return super().__new__(mcs, name, bases, body)
        fields = tuple(body.get("__annotations__", ()))
        defaults = {each: body.pop(each) for each in fields if each in body}
        count, new = len(fields), tuple.__new__

        def __new__(cls, *args, **given):  # type: ignore[no-untyped-def] # noqa: N807
            if given or len(args) != count:
                return new(cls, _completed(name, fields, defaults, args, given))
            return new(cls, args)

        def _make(cls, values):  # type: ignore[no-untyped-def]
            return cls(*values)

        def _replace(self, **given):  # type: ignore[no-untyped-def]
            unknown = given.keys() - {*fields}
            if unknown:
                raise ValueError(f"Got unexpected field names: {sorted(unknown)!r}")
            return new(self.__class__, [given.get(each, value) for each, value in zip(fields, self, strict=True)])

        def _asdict(self):  # type: ignore[no-untyped-def]
            return dict(zip(fields, self, strict=True))

        def __repr__(self):  # type: ignore[no-untyped-def] # noqa: N807
            values = ", ".join(f"{each}={value!r}" for each, value in zip(fields, self, strict=True))
            return f"{self.__class__.__name__}({values})"

        made = {
            "__slots__": (),
            "_fields": fields,
            "_field_defaults": defaults,
            "__match_args__": fields,
            "__new__": __new__,
            "_make": classmethod(_make),
            "_replace": _replace,
            "_asdict": _asdict,
            "__repr__": __repr__,
            **{each: _tuplegetter(index, each) for index, each in enumerate(fields)},
        }
        return type(name, (tuple,), made | body)


class NamedTuple(metaclass=_Meta):
    """As ``typing.NamedTuple`` is used in podnet: fields with defaults, methods, properties."""


class _Any:
    """A thing of annotations, which nobody looks at."""


def install() -> None:
    """Let what is imported from now on find the stand-ins, unless the real modules are there already."""
    if sys.version_info[:2] not in _TRIED:
        return
    typing, re = _StandIn("typing"), _StandIn("re")
    typing.__dict__.update(
        TYPE_CHECKING=False,
        NamedTuple=NamedTuple,
        TypeVar=lambda *_, **__: _Any,
        **dict.fromkeys(("Any", "NoReturn", "Self"), _Any),
    )
    re.__dict__.update(compile=_compile, VERBOSE=64, MULTILINE=8, DOTALL=16)
    for each in (typing, re):
        sys.modules.setdefault(each.__name__, each)
