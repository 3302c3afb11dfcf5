"""Standard input as JSON: matched as Go matches, refused with the key named, bounded."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from podnet.cni.spec import document
from podnet.cni.spec.document import Document, decode
from podnet.cni.spec.errors import DECODING_FAILURE, IO_FAILURE, CNIError


def refused(act: Callable[[], object], code: int = DECODING_FAILURE) -> str:
    with pytest.raises(CNIError) as caught:
        act()
    assert caught.value.code == code
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "key", "value"),
    [
        (b'{"name":"a"}', "name", "a"),
        (b'{"NAME":"a"}', "name", "a"),
        (b'{"RuntimeConfig":1}', "runtimeConfig", 1),
        (b'{"bandWidth":1}', "bandwidth", 1),
        (b'{"HostPort":1}', "hostPort", 1),
        (b'{"HostIP":"1.2.3.4"}', "hostIP", "1.2.3.4"),
        (b'{"name":"a","name":"b"}', "name", "b"),
        (b'{"name":"a","Name":"b"}', "name", "b"),
        (b'{"Name":"b","name":"a"}', "name", "a"),
        (b'{"name":"a","Name":null}', "name", "a"),
        (b'{"name":null}', "name", None),
        (b"null", "name", None),
        (b"{}", "name", None),
        ('{"\u212aey":1}'.encode(), "key", 1),  # the Kelvin sign folds to k, in Go as well
        ('{"stra\u00dfe":1}'.encode(), "strasse", None),  # but one letter never becomes two
        (b'{"a":"\xff"}', "a", "\ufffd"),
        (b'{"a":"\\ud800x"}', "a", "\ufffdx"),
        (b'{"a":["\\ud83d\\ude00"]}', "a", ["\U0001f600"]),
    ],
)
def test_p7_keys_and_values_are_read_as_go_reads_them(data: bytes, key: str, value: Any) -> None:
    assert decode(data).get(key) == value


@pytest.mark.parametrize(
    "data",
    [b"", b"  \n", b"{", b"[]", b'"a"', b"1", b"true", b"{}x", b"{'a':1}", b'{"a":NaN}', b'{"a":-Infinity}', b"\xff",
     b'{"a":1,}', b"\xef\xbb\xbf{}", b'{"a":"\n"}', b'{"a":' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_e1_what_is_no_json_object_is_a_decoding_failure(data: bytes) -> None:
    assert "network config" in refused(lambda: decode(data))


@pytest.mark.parametrize("levels", [document.MAX_DEPTH + 1, 2_000, 200_000])
@pytest.mark.parametrize(("start", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused(levels: int, start: bytes, end: bytes) -> None:
    data = b'{"a":' + start * levels + b"1" + end * levels + b"}"
    assert "nested" in refused(lambda: decode(data))


def test_nesting_up_to_the_limit_is_taken() -> None:
    levels = document.MAX_DEPTH - 1
    assert decode(b'{"a":' + b"[" * levels + b"]" * levels + b"}").get("a")


def test_many_brackets_are_no_depth() -> None:
    assert len(decode(b'{"a":[' + b",".join([b"{}"] * 1000) + b"]}").array("a")) == 1000


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (lambda d: d.text("k"), 1, "o.k must be a string, not the number 1"),
        (lambda d: d.text("k"), [], "o.k must be a string, not an array"),
        (lambda d: d.flag("k"), "true", 'o.k must be a boolean, not the string "true"'),
        (lambda d: d.flag("k"), 1, "o.k must be a boolean, not the number 1"),
        (lambda d: d.integer("k"), True, "o.k must be an integer, not the boolean true"),
        (lambda d: d.integer("k"), 1.0, "o.k must be an integer, not the number 1.0"),
        (lambda d: d.integer("k"), "1", 'o.k must be an integer, not the string "1"'),
        (lambda d: d.integer("k"), 1 << 63, "o.k is out of range: 9223372036854775808"),
        (lambda d: d.unsigned("k"), -1, "o.k is out of range: -1"),
        (lambda d: d.unsigned("k"), 1 << 64, "o.k is out of range: 18446744073709551616"),
        (lambda d: d.unsigned("k"), 1 << 10_000, "o.k is out of range: of too many digits"),
        (lambda d: d.object("k"), [], "o.k must be an object, not an array"),
        (lambda d: d.array("k"), {}, "o.k must be an array, not an object"),
        (lambda d: d.texts("k"), ["a", None], "o.k[1] must be a string, not null"),
        (lambda d: d.objects("k"), [{}, 2], "o.k[1] must be an object, not the number 2"),
        (lambda d: d.objects("k")[0].text("j"), [{"j": 5}], "o.k[0].j must be a string, not the number 5"),
        (lambda d: d.object("k").text("j"), {"j": False}, "o.k.j must be a string, not the boolean false"),
    ],
)
def test_a_wrong_type_names_the_key(read: Callable[[Document], object], value: Any, message: str) -> None:
    assert refused(lambda: read(Document({"k": value}, "o"))) == message


def test_absent_and_null_give_the_default() -> None:
    for raw in ({}, {"k": None}):
        found = Document(raw)
        assert (found.text("k", "x"), found.flag("k", True), found.integer("k", 7), found.unsigned("k")) == (
            "x", True, 7, 0,
        )  # fmt: skip
        assert (found.object("k"), found.array("k"), found.texts("k"), found.objects("k")) == (None, [], (), [])
        assert found.optional("k") is None
    assert Document({"K": 0}).optional("k") == 0


def test_numbers_at_their_limits() -> None:
    assert Document({"k": (1 << 64) - 1}).unsigned("k") == (1 << 64) - 1
    assert Document({"k": -(1 << 63)}).integer("k") == -(1 << 63)


def test_p4_read_to_the_end_and_not_wait_for_version() -> None:
    reader, writer = os.pipe()
    try:
        assert document.read(reader, patient=False) == b""  # open, and empty
        os.write(writer, b'{"a":1}')
        assert document.read(reader, patient=False) == b'{"a":1}'
        os.write(writer, b"{}")
        os.close(writer)
        writer = -1
        assert document.read(reader) == b"{}"
        assert document.read(reader, patient=False) == b""
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def test_v1_the_version_that_a_runtime_writes_after_the_start_is_read() -> None:
    reader, writer = os.pipe()

    def runtime() -> None:
        time.sleep(0.05)  # the plugin looks before there is anything
        os.write(writer, b'{"cniVersion":"0.3.0"}')
        os.close(writer)

    late = threading.Thread(target=runtime)
    late.start()
    try:
        assert document.read(reader, patient=False) == b'{"cniVersion":"0.3.0"}'
    finally:
        late.join()
        os.close(reader)


def test_e1_a_read_that_fails_is_an_io_failure(tmp_path: Any) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert "error reading from stdin" in refused(lambda: document.read(folder), IO_FAILURE)
    finally:
        os.close(folder)


def test_input_without_end_is_refused() -> None:
    zero = os.open("/dev/zero", os.O_RDONLY)
    try:
        assert "more than 100000 bytes" in refused(lambda: document.read(zero, limit=100_000), IO_FAILURE)
    finally:
        os.close(zero)
