"""scripts/vm: run a command under Debian's stock kernel, booted by qemu.

The guest sees this machine's files where they are here, and may write anywhere: what it writes stays in its memory.
/run, /proc, /sys and /dev are its own. It has no network but loopback, root's rights, and every module that
Debian's kernel comes with. Nothing is installed on this machine: the kernel is unpacked below .vm/ in the checkout and
kept there for the next run (delete .vm/ to get a newer one).

Exit codes: the command's own; 2 for wrong arguments; 3 when something is missing here; 124 when the deadline
passed; 125 when the virtual machine failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from guest import Guest, GuestError, run
from prepare import MissingError, prepared

CHECKOUT = Path(__file__).resolve().parents[2]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/vm",
        usage="scripts/vm [--deadline SECONDS] [--memory MIB] [--cpus N] -- COMMAND [ARGUMENT...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--deadline", type=positive, default=900, metavar="SECONDS", help="for the command (900)")
    parser.add_argument("--memory", type=memory, default=2048, metavar="MIB", help="of the guest (2048)")
    parser.add_argument("--cpus", type=positive, metavar="N", help="of the guest (2, or 1 where there is one)")
    parser.add_argument("--prepare", action="store_true", help="fetch what is missing and boot nothing")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    args = parser.parse_args()
    if args.command and args.command[0] == "--":
        args.command = args.command[1:]
    if not args.command and not args.prepare:
        parser.error("which command? for example: scripts/vm -- uname -a")
    return args


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text}")
    return int(text)


def memory(text: str) -> int:
    if positive(text) < 512:
        raise argparse.ArgumentTypeError(f"at least 512 MiB, not {text}: the kernel does not start in less")
    return int(text)


def say(text: str) -> None:
    print(f"vm: {text}", file=sys.stderr, flush=True)


def main() -> int:
    args = arguments()
    try:
        tree = prepared(CHECKOUT / ".vm", say)
        if args.prepare:
            return 0
        cpus = args.cpus or min(2, os.cpu_count() or 1)
        return run(Guest(tree, args.command, Path.cwd(), args.deadline, args.memory, cpus), say)
    except MissingError as error:
        say(str(error))
        return 3
    except GuestError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
