"""What a boot needs, fetched once and kept: Debian's kernel and a static busybox, unpacked, and an initramfs of them.

Both come by `apt-get download`, which installs nothing. Two runs at once prepare one after the other.
"""

from __future__ import annotations

import fcntl
import lzma
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import initramfs

# By the time that the root file system is there, these have to be loaded: it comes by 9p over virtio.
_BOOT_MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
# Two thirds of the package are drivers for what no virtual machine has.
_UNUSED = ("gpu", "media", "infiniband", "staging", "iio", "scsi", "usb", "hid", "input", "hwmon", "mtd", "ata", "nvme",
           "net/wireless", "net/ethernet", "net/usb", "net/can", "isdn", "thunderbolt", "firewire", "platform", "video",
           "bluetooth", "pinctrl", "mfd", "md", "target", "edac", "leds", "regulator", "power")  # fmt: skip

Say = Callable[[str], None]


class MissingError(Exception):
    """What a boot needs is not here; the text says what, and how to get it."""


class Tree(NamedTuple):
    """What a boot is made of."""

    release: str
    """As `uname -r` says it in the guest."""
    kernel: Path
    modules: Path
    """The folder that holds modules.dep."""
    initramfs: Path
    qemu: str


def prepared(folder: Path, say: Say) -> Tree:
    """What a boot is made of, fetched and unpacked where it is not yet.

    Raises:
        MissingError: a tool or a package is not to be had

    """
    qemu = _tool("qemu-system-x86_64", "qemu-system-x86", "boots the kernel")
    depmod = _tool("depmod", "kmod", "loads its modules, here and in the guest")
    if platform.machine() != "x86_64":
        raise MissingError(f"only Debian's amd64 kernel is known to it, and this machine is {platform.machine()}")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise MissingError(f"{folder}, where the kernel is kept, cannot be made: {error.strerror}") from error
    with _alone(folder):
        root = folder / "kernel"
        if not (root / ".complete").exists():
            _unpack(root, depmod, say)
        kernel = next((root / "boot").glob("vmlinuz-*"))
        release = kernel.name.removeprefix("vmlinuz-")
        modules = root / "lib/modules" / release
        image = folder / "initramfs"
        if not image.exists() or image.stat().st_mtime < _newest_source():
            made = _initramfs(modules, root / "bin/busybox")
            image.with_suffix(".new").write_bytes(made)
            image.with_suffix(".new").rename(image)
    return Tree(release, kernel, modules, image, qemu)


def _tool(name: str, package: str, use: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingError(
            f"{name} is not here; it {use}. Install Debian's package {package}: scripts/setup --vm, as root"
        )
    return found


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _newest_source() -> float:
    return max(path.stat().st_mtime for path in Path(__file__).parent.iterdir() if path.is_file())


def _unpack(root: Path, depmod: str, say: Say) -> None:
    for tool in ("apt-get", "apt-cache", "dpkg-deb", "tar"):
        if shutil.which(tool) is None:
            raise MissingError(f"{tool} is not here, which fetches Debian's kernel: this needs Debian or a relative")
    package = _kernel_package(say)
    say(f"fetching Debian's {package} and busybox-static, once (70 MB; unpacked into {root}, not installed)")
    shutil.rmtree(root, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as name:
        download, new = Path(name), Path(name) / "tree"
        new.mkdir()
        _fetch(download, [package, "busybox-static"], say)
        for archive in sorted(download.glob("*.deb")):
            _extract(archive, new)
        if not list((new / "boot").glob("vmlinuz-*")):
            raise MissingError(f"the package {package} holds no kernel: {_listing(new / 'boot')}")
        # Below /usr on newer releases.
        for inner in ("lib", "bin"):
            if (new / "usr" / inner).exists() and not (new / inner).exists():
                (new / "usr" / inner).rename(new / inner)
        release = next((new / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
        _do([depmod, "-b", str(new), release], "depmod could not index the kernel's modules")
        (new / ".complete").touch()
        new.rename(root)


def _kernel_package(say: Say) -> str:
    """The package behind linux-image-amd64, whose own name stays the same from version to version."""
    for again in (True, False):
        done = _run(["apt-cache", "depends", "linux-image-amd64"])
        found = re.search(r"^\s*Depends: (linux-image-\S*amd64)$", done.stdout, re.MULTILINE)
        if found:
            return found[1]
        if again and not _refresh(say):
            break
    raise MissingError(
        "apt knows no package linux-image-amd64, Debian's kernel: are Debian's package lists here? "
        "(apt-get update, as root)"
    )


def _refresh(say: Say) -> bool:
    """Whether the package lists were read anew; only root can."""
    if os.geteuid():
        return False
    say("reading Debian's package lists (apt-get update)")
    return _run(["apt-get", "-qq", "update"]).returncode == 0


def _fetch(into: Path, packages: list[str], say: Say) -> None:
    # As root, apt would first try a user who may not write here, and warn.
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *packages]
    for again in (True, False):
        done = _run(command, cwd=into)
        if done.returncode == 0:
            return
        # Lists that are some weeks old name files that are no longer on the server.
        if not again or not _refresh(say):
            raise MissingError(f"apt-get could not download {' and '.join(packages)}: {_last_line(done.stderr)}")


def _extract(archive: Path, into: Path) -> None:
    skipped = [f"--exclude=./lib/modules/*/kernel/drivers/{name}" for name in _UNUSED]
    skipped += [f"--exclude=./usr/lib/modules/*/kernel/drivers/{name}" for name in _UNUSED]
    skipped += ["--exclude=./usr/share", "--exclude=*/kernel/sound"]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as source:
        unpack = ["tar", "-x", "--no-same-owner", "-C", str(into), *skipped]
        done = subprocess.run(unpack, stdin=source.stdout, capture_output=True, check=False)
    if done.returncode or source.returncode:
        raise MissingError(f"{archive.name} could not be unpacked: {_last_line(done.stderr.decode(errors='replace'))}")


def _initramfs(modules: Path, busybox: Path) -> bytes:
    files = [initramfs.File("bin/busybox", busybox.read_bytes(), executable=True)]
    here = Path(__file__).parent
    files += [initramfs.File(name, (here / name).read_bytes(), executable=True) for name in ("init", "session")]
    order = _load_order(modules)
    for index, path in enumerate(order):
        # Numbered, so that a loop over the names loads them in order; busybox's insmod knows no compression.
        name = f"modules/{index:02}-{path.name.removesuffix('.xz')}"
        content = path.read_bytes()
        files.append(initramfs.File(name, lzma.decompress(content) if path.suffix == ".xz" else content))
    return initramfs.archive(files)


def _load_order(modules: Path) -> list[Path]:
    """The boot modules and what they need, each after what it needs; without those that are built in."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, before = line.partition(":")
        needs[_module_name(path)] = (path, [_module_name(each) for each in before.split()])
    builtin = {_module_name(line) for line in (modules / "modules.builtin").read_text().splitlines()}
    order: list[str] = []

    def add(name: str) -> None:
        path, before = needs[name]
        for each in reversed(before):
            add(each)
        if path not in order:
            order.append(path)

    for name in _BOOT_MODULES:
        if name in needs:
            add(name)
        elif name not in builtin:
            raise MissingError(f"the kernel in {modules} has no module {name}, without which the guest has no files")
    return [modules / path for path in order]


def _module_name(path: str) -> str:
    return Path(path).name.split(".ko")[0].replace("-", "_")


def _do(command: list[str], failed: str) -> None:
    done = _run(command)
    if done.returncode:
        raise MissingError(f"{failed}: {_last_line(done.stderr)}")


def _run(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["(it said nothing)"])[-1]


def _listing(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing in its /boot"
