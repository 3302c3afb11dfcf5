"""A container image made here: busybox, and nothing from any registry."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

__all__ = ["NAME", "archive"]

NAME = "podnet.test/busybox:1"

_BUSYBOX = Path("/bin/busybox")
_APPLETS = ("cat", "hostname", "httpd", "ip", "nc", "ping", "ping6", "sh", "sleep", "wget")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def _layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "dev", "etc", "proc", "sys", "tmp", "var", "www"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        entry = tarfile.TarInfo("bin/busybox")
        data = _BUSYBOX.read_bytes()
        entry.size, entry.mode = len(data), 0o755
        tar.addfile(entry, io.BytesIO(data))
        for name in _APPLETS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


def archive(path: Path) -> Path:
    """Write the image as ``docker save`` does, which containerd and podman both read; its default is to sleep."""
    layer = _layer()
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Cmd": ["sleep", "1000000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "podnet's tests"}],
    }
    described = json.dumps(config).encode()
    name = hashlib.sha256(described).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [NAME], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for member, data in ((f"{name}.json", described), (f"{digest}/layer.tar", layer),
                             ("manifest.json", json.dumps(manifest).encode())):  # fmt: skip
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path
