"""``podnet-python``: the plugin as a Python program, alone or behind the small executable; and the server's start."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """``podnet-python``: by the server or else here; ``cold``: here; ``serve``: be the server. Returns exit codes."""
    if arguments == ["cold"]:
        from podnet.cni.lean import install

        install()
        from podnet.cni.plugin.main import main as cold

        return cold()
    if not arguments:
        return _warm_or_cold()
    if arguments[0] == "serve":
        return _serve(arguments[1:])
    os.write(2, b"usage: podnet-python [cold | serve [--socket PATH] [--idle MINUTES]]\n")
    return 2


def _warm_or_cold() -> int:
    from podnet.cni.lean import install

    install()
    from podnet.cni.plugin.main import main as cold
    from podnet.cni.server.protocol import SOCKET

    path = os.environ.get("PODNET_CNI_SOCKET", SOCKET)
    if not path or not os.path.exists(path):
        return cold()
    from podnet.cni.server import client
    from podnet.cni.server.protocol import write_all
    from podnet.cni.spec.document import encode, read
    from podnet.cni.spec.errors import TRY_AGAIN_LATER, CNIError

    command = os.environ.get("CNI_COMMAND", "")
    try:
        data = read(patient=command != "VERSION") if command else b""
    except CNIError:
        return cold()  # it finds the same, and has words for it
    try:
        answer = client.ask(path, os.environ, data)
    except client.LostError:
        if command == "ADD":
            details = "nothing is lost: DEL removes what was made"
            error = CNIError(TRY_AGAIN_LATER, "the podnet server has ended during this ADD", details)
            write_all(1, encode(error.to_json()))
            return 1
        answer = None
    except client.LateError:
        error = CNIError(TRY_AGAIN_LATER, "the podnet server took the call, and has not answered", "waited for 180 s")
        write_all(1, encode(error.to_json()))
        return 1
    if answer is None:
        return cold(data)
    write_all(2, answer.stderr)
    write_all(1, answer.stdout)
    return answer.code


def _serve(arguments: list[str]) -> int:
    from podnet.cni.server.protocol import SOCKET
    from podnet.cni.server.serve import serve
    from podnet.errors import PodnetError

    options = {"--socket": SOCKET, "--idle": "0"}
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    options |= given
    if len(arguments) % 2 or len(options) != 2 or not options["--idle"].isdecimal():
        os.write(2, b"usage: podnet-python serve [--socket PATH] [--idle MINUTES]\n")
        return 2
    try:
        serve(options["--socket"], idle=int(options["--idle"]) * 60)
    except PodnetError as error:
        sys.stderr.write(f"podnet: {error}\n")
        return error.exit_code
    return 0
