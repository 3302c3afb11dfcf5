"""The stand-ins of a cold call for ``typing`` and ``re``: they behave as the real ones, and really are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from podnet.cni import lean

ROOT = Path(__file__).resolve().parents[3]


class Real(NamedTuple):
    """A tuple."""

    one: int
    two: str = "b"
    three: tuple[int, ...] = ()

    @property
    def both(self) -> str:
        return f"{self.one}{self.two}"

    def bigger(self) -> Real:
        return self._replace(one=self.one + 1)


# The same class body, made by the stand-in.
StandIn: Any = type(lean.NamedTuple)(
    "Real",
    (lean.NamedTuple,),
    {"__annotations__": Real.__annotations__, "both": Real.both, "bigger": Real.bigger, **Real._field_defaults},
)
GIVEN: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((1, "x", (2,)), {}),
    ((), {"one": 1}),
    ((1,), {"three": (4,), "two": "y"}),
]


@pytest.mark.parametrize(("args", "given"), GIVEN)
def test_a_tuple_is_what_typing_makes(args: tuple[Any, ...], given: dict[str, Any]) -> None:
    real, ours = Real(*args, **given), StandIn(*args, **given)
    assert (tuple(ours), repr(ours), hash(ours)) == (tuple(real), repr(real), hash(real))
    assert ours == real
    assert ours._asdict() == real._asdict()
    assert (ours.one, ours.two, ours.three, ours.both) == (real.one, real.two, real.three, real.both)
    assert tuple(ours.bigger()) == tuple(real.bigger())
    assert type(ours.bigger()) is StandIn
    assert (StandIn._fields, StandIn._field_defaults) == (Real._fields, Real._field_defaults)
    assert StandIn._make(["a", "b", "c"]) == ("a", "b", "c")
    match ours:
        case StandIn(1, three=three):
            assert three == real.three
    with pytest.raises(AttributeError):
        ours.one = 2
    with pytest.raises(AttributeError):
        ours.four = 4


@pytest.mark.parametrize(
    ("args", "given"),
    [((), {}), ((1, "b", (), 4), {}), ((1,), {"four": 4}), ((1,), {"one": 1}), ((), {"two": "b"})],
)
def test_a_tuple_refuses_what_typing_refuses(args: tuple[Any, ...], given: dict[str, Any]) -> None:
    for kind in (Real, StandIn):
        with pytest.raises(TypeError):
            kind(*args, **given)
        with pytest.raises((ValueError, TypeError)):
            kind(1)._replace(four=4)


_MODULES = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
from podnet.cni import lean
lean.install()
import json
for name in sys.argv[2:]:
    importlib.import_module(name)
assert json.loads(' {"a": [1, 2.5, "b"]} ') == {"a": [1, 2.5, "b"]}
try:
    json.loads("{} {}")
except ValueError as error:
    assert "Extra data" in str(error), error
assert "typing" not in [each for each in sys.modules if type(sys.modules[each]) is type(sys)], "the real typing"
assert "enum" not in sys.modules, "the real re"
import re, typing
assert re.findall("a+", "caaat") == ["aaa"]
assert re.compile("a+").search("caaat").span() == (1, 4)
assert typing.get_type_hints(lambda: None) == {}
"""


def test_a_cold_call_imports_neither_and_others_get_the_real_ones() -> None:
    modules = ("add", "check", "clean", "chained", "main")
    names = [*(f"podnet.cni.plugin.{each}" for each in modules), "podnet.kernel.requests", "podnet.ipam.hostlocal"]
    command = [sys.executable, "-IS", "-c", _MODULES, str(ROOT), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["cold"], []])
def test_the_cold_executable_uses_them(arguments: list[str]) -> None:
    command = [sys.executable, "-IS", "-X", "importtime", str(ROOT / "cni/podnet-python"), *arguments]
    environ = {"CNI_COMMAND": "VERSION", "PODNET_CNI_SOCKET": ""}
    done = subprocess.run(command, input="{}", capture_output=True, text=True, check=True, env=environ, timeout=60)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "json" in imported
    assert not imported & {"typing", "re"}
