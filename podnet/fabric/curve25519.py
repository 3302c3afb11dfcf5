"""The public key that belongs to a private one: X25519 with the base point (RFC 7748, section 5).

In plain integers, which takes about two milliseconds and is not constant in time: for keys of labs.
"""

from __future__ import annotations

import os

__all__ = ["KEY_BYTES", "private_key", "public_key"]

KEY_BYTES = 32
_P = 2**255 - 19
_A24 = 121665
_BASE = 9


def private_key() -> bytes:
    """A new private key, with the bits set that RFC 7748 wants set."""
    return _clamped(os.urandom(KEY_BYTES))


def _clamped(key: bytes) -> bytes:
    return bytes([key[0] & 248, *key[1:31], (key[31] & 127) | 64])


def public_key(private: bytes) -> bytes:
    """The public key of a private one. Raises ``ValueError`` for a key that is not of 32 bytes."""
    if len(private) != KEY_BYTES:
        msg = f"a key has {KEY_BYTES} bytes, not {len(private)}"
        raise ValueError(msg)
    scalar = int.from_bytes(_clamped(private), "little")
    x2, z2, x3, z3, swapped = 1, 0, _BASE, 1, 0
    for bit in range(254, -1, -1):
        now = scalar >> bit & 1
        if swapped != now:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = now
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb = d * a % _P, c * b % _P
        aa, bb = a * a % _P, b * b % _P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % _P, _BASE * (da - cb) ** 2 % _P
        x2, z2 = aa * bb % _P, e * (aa + _A24 * e) % _P
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, _P - 2, _P) % _P).to_bytes(KEY_BYTES, "little")
