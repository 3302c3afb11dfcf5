"""SHA-1 for names that must be short, always the same for one text, and need not withstand anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import sha1
else:
    try:
        from _sha1 import sha1  # Python's own; hashlib would load OpenSSL, 3 ms of a cold call
    except ImportError:
        from hashlib import sha1

__all__ = ["sha1"]
