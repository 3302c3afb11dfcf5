"""Every error that podnet raises on purpose: one tree, one exit code a kind.

A message says what was asked, what was found, and what to do. Nothing outside this tree reaches a user
without ``--debug``.
"""

from __future__ import annotations

__all__ = [
    "CapabilityError",
    "ConflictError",
    "KernelError",
    "LabBusyError",
    "LabNotFoundError",
    "PodnetError",
    "TopologyError",
    "UsageError",
]


class PodnetError(Exception):
    """Base of all podnet errors; ``exit_code`` is what the command line exits with."""

    exit_code = 4


class UsageError(PodnetError):
    """The command was called with something that does not exist or does not fit."""

    exit_code = 2


class LabNotFoundError(UsageError):
    """No running lab of the name asked for, or no way to choose one."""


class TopologyError(PodnetError):
    """The topology is wrong; ``problems`` holds one line each, in file order."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class CapabilityError(PodnetError):
    """This machine lacks a kernel feature, tool, privilege or limit that is needed."""

    exit_code = 3


class KernelError(PodnetError):
    """The kernel or a tool refused; ``errno`` is the kernel's (0 where there is none)."""

    def __init__(self, message: str, errno: int = 0) -> None:
        self.errno = errno
        super().__init__(message)


class ConflictError(PodnetError):
    """Something that podnet did not create stands where it would have to build."""


class LabBusyError(PodnetError):
    """Another podnet process is changing this lab right now."""
