"""The error object, and which exception becomes which."""

from __future__ import annotations

import pickle

import pytest

from podnet.cni.spec import errors
from podnet.cni.spec.errors import CNIError
from podnet.errors import ConflictError


def test_e1_the_codes_are_those_of_the_specification_and_ones_own_begin_at_100() -> None:
    names = [name for name in vars(errors) if name.isupper()]
    assert {getattr(errors, name) for name in names if name != "TYPE_CHECKING"} == {
        1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51, 100, 999,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "version", "value"),
    [
        (CNIError(7, "m", "d"), "1.0.0", {"cniVersion": "1.0.0", "code": 7, "msg": "m", "details": "d"}),
        (CNIError(7, "m"), "0.4.0", {"cniVersion": "0.4.0", "code": 7, "msg": "m"}),
        (CNIError(7, "m"), "", {"code": 7, "msg": "m"}),
    ],
)
def test_e1_the_error_object(error: CNIError, version: str, value: object) -> None:
    assert error.to_json(version) == value


def test_e2_a_typed_error_passes_unchanged() -> None:
    error = CNIError(11, "later")
    assert errors.as_cni_error(error) is error
    passed = errors.from_json(error.to_json("1.1.0"))
    assert passed is not None
    assert (passed.code, passed.msg, passed.details) == (11, "later", "")


@pytest.mark.parametrize(
    ("error", "message"),
    [(ConflictError("in the way"), "in the way"), (KeyError("x"), "unexpected KeyError: 'x'")],
)
def test_p12_any_other_error_is_internal(error: Exception, message: str) -> None:
    found = errors.as_cni_error(error)
    assert (found.code, found.msg) == (999, message)


@pytest.mark.parametrize(
    "value", [{}, {"code": "7", "msg": "m"}, {"code": 7, "msg": []}, {"code": -1, "msg": "m"}, {"x": 1}]
)
def test_what_is_no_error_object(value: dict[str, object]) -> None:
    assert errors.from_json(value) is None


def test_p7_keys_of_an_error_object_match_as_in_go() -> None:
    found = errors.from_json({"Code": 7, "Msg": "m", "Details": "d"})
    assert found is not None
    assert str(found) == "m; d"


def test_it_survives_another_process() -> None:
    copy = pickle.loads(pickle.dumps(CNIError(7, "m", "d")))  # noqa: S301 - our own bytes
    assert (copy.code, copy.msg, copy.details) == (7, "m", "d")
