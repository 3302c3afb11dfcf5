"""What an installation consists of: executables, systemd's units, and a network's configuration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, NamedTuple

import podnet
from podnet.cni.install import bundle
from podnet.cni.install.place import Content, InstallError, installed
from podnet.cni.server.protocol import SOCKET
from podnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CONFLIST", "Executable", "conflist", "executable", "programs", "python", "units"]

CONFLIST = "10-podnet.conflist"

_ROOT = os.path.dirname(os.path.abspath(podnet.__file__))
_CHECKOUT = os.path.join(os.path.dirname(_ROOT), "cni")
_SOURCES = (os.path.join(_CHECKOUT, "podnet.c"), os.path.join(_ROOT, "cni", "podnet.c"))
_BUILD = ("gcc", "-Os", "-static", "-s", "-o")
_INTERPRETERS = ("/usr/bin/python3", "/usr/local/bin/python3")

_SOCKET_UNIT = f"""\
[Unit]
Description=The socket of podnet's warm server, which makes the podnet CNI plugin fast

[Socket]
ListenSequentialPacket={SOCKET}
SocketMode=0600
DirectoryMode=0755

[Install]
WantedBy=sockets.target
"""
_SERVICE_UNIT = """\
[Unit]
Description=podnet's warm server, which makes the podnet CNI plugin fast
Requires=podnet-cni.socket
After=podnet-cni.socket

[Service]
ExecStart={command} serve
Restart=on-failure
# Calls that run are answered before it ends.
TimeoutStopSec=240
KillMode=mixed
"""


class Executable(NamedTuple):
    """The small executable; ``data`` is empty where there is neither one nor a compiler, and ``note`` says so."""

    data: bytes
    note: str = ""


def python() -> str:
    """The interpreter that an installation can count on: the system's, or else the one that runs this."""
    for path in _INTERPRETERS:
        if os.path.exists(path):
            question = "import sys, _sqlite3, _ctypes; sys.exit(sys.version_info < (3, 11))"
            asked = subprocess.run([path, "-IS", "-c", question], capture_output=True, check=False)
            if asked.returncode == 0:
                return path
    return os.path.realpath(sys.executable)


def executable() -> Executable:
    """The small executable: compiled from its source here, or as the set-up has compiled it."""
    source = next((path for path in _SOURCES if os.path.exists(path)), "")
    problem = "its source is not here"
    if source:
        with tempfile.TemporaryDirectory(prefix="podnet-") as folder:
            target = os.path.join(folder, "podnet")
            try:
                subprocess.run([*_BUILD, target, source], check=True, capture_output=True, text=True)
                return Executable(_read(target))
            except FileNotFoundError:
                problem = "there is no gcc here"
            except subprocess.CalledProcessError as error:
                problem = f"gcc says: {error.stderr.strip().splitlines()[-1] if error.stderr.strip() else error}"
    ready = os.path.join(_CHECKOUT, "podnet")
    if os.path.isfile(ready) and (data := _read(ready)).startswith(b"\x7fELF"):
        return Executable(data)
    return Executable(b"", f"the plugin is the Python program alone, which starts in 15 ms instead of 1: {problem}")


def programs(folder: str, small: bytes, interpreter: str) -> list[Content]:
    """What goes into the CNI bin directory: what needs Python only with ``interpreter``.

    ``small`` is the small executable, or empty. Raises ``InstallError`` where nothing is left.
    """
    found = []
    script = b""
    if interpreter:
        made = bundle.make(interpreter)
        script, path = made.script, os.path.join(folder, made.name)
        there = path in installed(folder) and os.path.exists(path)
        found.append(Content(path, _read(path) if there else made.data))
        found.append(Content(os.path.join(folder, "podnet-python"), script, 0o755))
    if not (small or script):
        msg = "nothing to install: without Python there must be the small executable (apt-get install gcc libc6-dev)"
        raise InstallError(msg)
    found.append(Content(os.path.join(folder, "podnet"), small or script, 0o755))
    return found


def units(folder: str, bin_dir: str) -> list[Content]:
    """systemd's units: the socket, and the server that it starts."""
    command = os.path.join(bin_dir, "podnet-python")
    if any(c.isspace() or c in "%\\\"'" for c in command):
        msg = f"--bin-dir {bin_dir}: systemd's units cannot name a path with white space, quotes, backslash or percent"
        raise UsageError(msg)
    return [
        Content(os.path.join(folder, "podnet-cni.service"), _SERVICE_UNIT.format(command=command).encode()),
        Content(os.path.join(folder, "podnet-cni.socket"), _SOCKET_UNIT.encode()),
    ]


def conflist(name: str, subnets: Sequence[str]) -> bytes:
    """A network as a cluster's node has it: a bridge with the gateways, masquerading, host ports.

    Raises ``UsageError`` for a name or subnet that is none.
    """
    from podnet.cni.runtime import conflist as lists
    from podnet.cni.spec.errors import CNIError
    from podnet.ipam.ranges import RangeError, check, parse

    try:
        check([[parse(each)] for each in subnets])
    except RangeError as error:
        msg = f"--subnet: {error}"
        raise UsageError(msg) from None
    plugin = {
        "type": "podnet",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {"type": "podnet", "ranges": [[{"subnet": each}] for each in subnets]},
        "capabilities": {"portMappings": True, "bandwidth": True},
    }
    data = json.dumps({"cniVersion": "1.1.0", "name": name, "plugins": [plugin]}, indent=2).encode() + b"\n"
    try:
        lists.parse(data, "--name")
    except CNIError as error:
        raise UsageError(str(error)) from None
    return data


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
