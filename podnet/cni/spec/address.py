"""Addresses as text in the form that Go prints, checked as strictly as Go parses them.

Not with ``ipaddress``, whose import takes as long as the rest of a parse, while a socket is needed anyway.
"""

from __future__ import annotations

__all__ = ["family", "ip", "mac", "prefix"]

_MAPPED = b"\0" * 10 + b"\xff\xff"


def ip(text: str) -> str:
    """An IPv4 or IPv6 address in its canonical form. Raises ``ValueError``."""
    from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

    try:
        if ":" not in text:
            return inet_ntop(AF_INET, inet_pton(AF_INET, text))
        packed = inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        msg = f"{text[:80]!r} is no IP address"
        raise ValueError(msg) from None
    if packed.startswith(_MAPPED):
        return inet_ntop(AF_INET, packed[12:])
    return inet_ntop(AF_INET6, packed)


def prefix(text: str) -> str:
    """An address with prefix length, its host bits kept, in canonical form. Raises ``ValueError``."""
    from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

    address, slash, length = text.partition("/")
    kind, bits = (AF_INET6, 128) if ":" in address else (AF_INET, 32)
    if slash and length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= bits:
        try:
            # inet_pton refuses zones ("fe80::1%eth0") and leading zeros ("010.0.0.1"), as Go does.
            return f"{inet_ntop(kind, inet_pton(kind, address))}/{int(length)}"
        except (OSError, ValueError):
            pass  # said below, with the whole text
    msg = f"{text[:80]!r} is no IP address with prefix length"
    raise ValueError(msg)


def family(text: str) -> int:
    """4 or 6, of an address or prefix in canonical form."""
    return 6 if ":" in text else 4


def mac(text: str) -> str:
    """An Ethernet address as ``aa:bb:cc:dd:ee:ff``, from any form that Go accepts. Raises ``ValueError``."""
    for separator, width in ((":", 2), ("-", 2), (".", 4)):
        groups = text.split(separator)
        if len(groups) * width == 12 and all(len(group) == width for group in groups):
            try:
                return bytes.fromhex("".join(groups)).hex(":")
            except ValueError:
                break
    msg = f"{text[:80]!r} is no MAC address"
    raise ValueError(msg)
