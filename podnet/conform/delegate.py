"""A plugin of the suite's own that other plugins delegate to: it answers as it is told, and remembers every call.

It is copied to a directory of CNI_PATH and run by its path, with the standard library only. Beside it lie
``answers.json`` (by verb: ``code``, ``stdout``) and the calls, one ``call-*.json`` each, in the order of their names.
"""

from __future__ import annotations

import json
import os
import sys
import time

__all__ = ["main"]

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


def main() -> int:
    """Answer one call; returns the exit code."""
    folder = os.path.dirname(os.path.abspath(__file__))
    verb = os.environ.get("CNI_COMMAND", "")
    if verb == "VERSION":
        json.dump({"cniVersion": VERSIONS[-1], "supportedVersions": VERSIONS}, sys.stdout)
        return 0
    stdin = sys.stdin.read()
    number = time.monotonic_ns()
    call = {"verb": verb, "env": dict(os.environ), "stdin": stdin}
    # Written beside and renamed, so that nobody reads half of it.
    path = os.path.join(folder, f"call-{number:020d}-{os.getpid()}.json")
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(call, file)
    os.rename(path + ".new", path)
    with open(os.path.join(folder, "answers.json"), encoding="utf-8") as file:
        answer = json.load(file).get(verb, {})
    sys.stderr.write(answer.get("stderr", ""))
    sys.stdout.write(answer.get("stdout", ""))
    return int(answer.get("code", 0))


if __name__ == "__main__":
    sys.exit(main())
