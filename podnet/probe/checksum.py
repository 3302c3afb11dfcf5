"""The Internet checksum (RFC 1071), fast enough for a probe per ten microseconds."""

from __future__ import annotations

__all__ = ["checksum", "complement"]


def complement(total: int) -> int:
    """The checksum of data whose 16-bit words add up to ``total``, which is not zero.

    65,536 is 1 modulo 65,535, so a big number and the sum of its 16-bit digits are the same modulo 65,535:
    the ones' complement sum is one modulo operation on the packet taken as an integer.
    """
    return -total % 0xFFFF


def checksum(data: bytes) -> int:
    """The checksum of any data; an odd number of bytes is padded with a zero byte."""
    total = int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big")
    return complement(total) if total else 0xFFFF
