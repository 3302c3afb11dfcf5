"""The fast checksum against the definition of RFC 1071."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podnet.probe.checksum import checksum


def rfc1071(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(data[i] << 8 | data[i + 1] for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(max_size=200))
def test_any_data(data: bytes) -> None:
    assert checksum(data) == rfc1071(data)


@given(st.lists(st.sampled_from([0, 1, 0xFFFE, 0xFFFF]), max_size=20))
def test_the_two_zeros_of_ones_complement(words: list[int]) -> None:
    data = b"".join(word.to_bytes(2, "big") for word in words)
    assert checksum(data) == rfc1071(data)


def test_the_example_of_the_rfc() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
