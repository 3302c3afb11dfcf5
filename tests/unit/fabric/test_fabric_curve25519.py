"""Public keys as others compute them: RFC 7748, section 6.1 (Bob), and wg(8)."""

from __future__ import annotations

from base64 import b64decode

import pytest

from podnet.fabric.curve25519 import private_key, public_key

BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
PAIRS = [
    (BOB, bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")),
    (
        b64decode("CF7xJLbfIdXcRrUBagAd+1wh2fH6qjl85d+xXkdBEm8="),
        b64decode("9aGLzf4sqeewTt8uUZhM6qpmv0L1GVpKrc4Lai4wel8="),
    ),
    (
        b64decode("kKzQkT0cufD91LQHb3k/gWO++mX11p1TqzfIUgtox0E="),
        b64decode("v0d8IX2jdof+7c/7ukyaXYlTZAp585cW/7Erz1dHGzE="),
    ),
]


@pytest.mark.parametrize(("private", "public"), PAIRS)
def test_the_public_key_of_a_private_one(private: bytes, public: bytes) -> None:
    assert public_key(private) == public


def test_bits_that_do_not_count_are_taken_as_the_kernel_takes_them() -> None:
    other = bytes([BOB[0] ^ 7, *BOB[1:31], BOB[31] ^ 128])
    assert public_key(other) == public_key(BOB)


def test_new_keys_differ_and_have_the_bits_that_they_must_have() -> None:
    made = {private_key() for _ in range(20)}
    assert len(made) == 20
    assert all(key[0] & 7 == 0 and key[31] & 0xC0 == 0x40 for key in made)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a key has 32 bytes, not 31"):
        public_key(BOB[:31])
