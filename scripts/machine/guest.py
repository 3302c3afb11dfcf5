"""One boot: qemu is started, what the command says is passed on as it comes, and its exit code is what remains."""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from prepare import Tree

BOOT_DEADLINE = 300
"""Seconds. A boot takes 10 where nothing else runs, and a minute on a busy machine."""
_POWER_OFF = 30
"""Seconds that a guest may take to switch itself off, once its command is done."""

Say = Callable[[str], None]


class GuestError(Exception):
    """The virtual machine did not carry the command out."""

    def __init__(self, message: str, exit_code: int = 125) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Guest(NamedTuple):
    """What to boot, and what to run in it."""

    tree: Tree
    command: list[str]
    folder: Path
    deadline: int
    """Seconds, for the command."""
    memory: int
    """MiB."""
    cpus: int


def run(guest: Guest, say: Say) -> int:
    """The command's exit code.

    Raises:
        GuestError: the guest did not boot, died, or took longer than its deadline

    """
    with tempfile.TemporaryDirectory(prefix="podnet-vm-") as name:
        folder = Path(name)
        (folder / "command").write_text(_script(guest))
        ports = {label: socket.socketpair() for label in ("control", "stdout", "stderr")}
        try:
            return _boot(guest, folder, ports, say)
        finally:
            for pair in ports.values():
                for end in pair:
                    end.close()


def _script(guest: Guest) -> str:
    """What the guest's shell runs: this process's environment, folder and command."""
    lines = [f"export {key}={shlex.quote(value)}" for key, value in os.environ.items() if key.isidentifier()]
    lines += ["export PODNET_VM=1", f"cd {shlex.quote(str(guest.folder))} || exit 125"]
    # The sandbox's own mark would be a lie in there.
    lines += ["unset PODNET_TEST_SANDBOX", "ulimit -n 1048576"]
    return "\n".join([*lines, f"exec {shlex.join(guest.command)}", ""])


def _arguments(guest: Guest, folder: Path, ports: dict[str, tuple[socket.socket, socket.socket]]) -> list[str]:
    words = ["console=ttyS0", "quiet", "loglevel=4", "panic=-1", "mitigations=off", "apparmor=0", "audit=0", "nokaslr"]
    words += ["random.trust_cpu=on", f"podnet.modules={guest.tree.modules}", f"podnet.run={folder}"]
    arguments = ["setpriv", "--pdeathsig", "KILL", guest.tree.qemu]  # so it does not outlive us, however we end
    arguments += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    arguments += ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]
    arguments += ["-smp", str(guest.cpus), "-m", f"{guest.memory}M", "-serial", f"file:{folder}/console"]
    arguments += ["-kernel", str(guest.tree.kernel), "-initrd", str(guest.tree.initramfs), "-append", " ".join(words)]
    arguments += ["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"]
    arguments += ["-device", "virtio-9p-pci,fsdev=root,mount_tag=root", "-device", "virtio-serial-pci"]
    for label, (_, theirs) in ports.items():
        arguments += ["-chardev", f"socket,id={label},fd={theirs.fileno()}"]
        arguments += ["-device", f"virtserialport,name={label},chardev={label}"]
    return arguments


def _boot(guest: Guest, folder: Path, ports: dict[str, tuple[socket.socket, socket.socket]], say: Say) -> int:
    inherited = [theirs.fileno() for _, theirs in ports.values()]
    complaints = folder / "qemu"
    say(f"booting Linux {guest.tree.release} under software emulation")
    started = time.monotonic()
    with complaints.open("wb") as log:
        qemu = subprocess.Popen(
            _arguments(guest, folder, ports),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=inherited,
        )
    for _, theirs in ports.values():
        theirs.close()
    previous = signal.signal(signal.SIGTERM, _interrupted)
    try:
        said = _listen(guest, {label: ours for label, (ours, _) in ports.items()}, started, say)
        qemu.wait(_POWER_OFF)
    except subprocess.TimeoutExpired:
        raise GuestError("the command ended, but the guest did not switch itself off") from None
    finally:
        signal.signal(signal.SIGTERM, previous)
        qemu.kill()
        qemu.wait()
    words = said.split()
    if "exit" in words:
        return int(words[words.index("exit") + 1])
    what = "ended before the command did" if "booted" in words else "did not boot"
    raise GuestError(
        f"the guest {what}. Its console's last lines:\n{_tail(folder / 'console')}{_tail(complaints)}".rstrip()
    )


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _listen(guest: Guest, ports: dict[str, socket.socket], started: float, say: Say) -> str:
    """Pass output on until the guest closes its ports; what it said on its control port."""
    outputs = {"stdout": 1, "stderr": 2}
    said = ""
    deadline = started + BOOT_DEADLINE
    with selectors.DefaultSelector() as selector:
        for label, end in ports.items():
            selector.register(end, selectors.EVENT_READ, label)
        while selector.get_map():
            events = selector.select(max(0.0, deadline - time.monotonic()))
            if not events and time.monotonic() >= deadline:
                raise _late(guest, "booted" in said)
            for key, _ in events:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.data in outputs:
                    _write(outputs[key.data], data)
                else:
                    if "booted" not in said and "booted" in said + data.decode():
                        deadline = time.monotonic() + guest.deadline
                        say(f"booted in {time.monotonic() - started:.0f} s")
                    said += data.decode()
    return said


def _late(guest: Guest, booted: bool) -> GuestError:
    if booted:
        return GuestError(f"the command did not end within {guest.deadline} s (--deadline SECONDS gives it more)", 124)
    return GuestError(f"the guest did not boot within {BOOT_DEADLINE} s")


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _tail(path: Path, lines: int = 15) -> str:
    text = path.read_text(errors="replace") if path.exists() else ""
    # Where the kernel gave up, the reason stands before many lines of registers.
    found = text.rfind("Kernel panic")
    shown = text[found:].splitlines()[:lines] if found >= 0 else text.splitlines()[-lines:]
    return "".join(f"    {line}\n" for line in shown)
