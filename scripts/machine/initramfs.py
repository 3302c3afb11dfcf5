"""The archive that a kernel unpacks before all else: cpio, "newc" (Documentation/driver-api/early-userspace)."""

from __future__ import annotations

import stat
from pathlib import PurePosixPath
from typing import NamedTuple


class File(NamedTuple):
    """One file of the archive."""

    name: str
    content: bytes
    executable: bool = False


def archive(files: list[File]) -> bytes:
    """All files, and the folders that hold them."""
    folders = sorted({str(folder) for file in files for folder in PurePosixPath(file.name).parents} - {"."})
    parts = [_entry(name, stat.S_IFDIR | 0o755) for name in ["dev", *folders]]
    # The kernel opens it for the first process; without it there is nothing to say that the boot went wrong.
    parts.append(_entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    parts += [_entry(each.name, stat.S_IFREG | (0o755 if each.executable else 0o644), each.content) for each in files]
    return b"".join(parts) + _entry("TRAILER!!!", 0)


def _entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    label = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device of the file, device that it is, size of the name, checksum
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(label), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + label
    return header + _pad(header) + content + _pad(content)


def _pad(data: bytes) -> bytes:
    return bytes(-len(data) % 4)
