"""One call of a plugin, from the environment and standard input, checked in the reference library's order.

Environment (4), standard input (5), JSON (6), name (7), command (4), version (6, 1), what the version allows (1),
and then the rest of the configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podnet.cni.spec import config, versions
from podnet.cni.spec.environment import Environment, arguments
from podnet.cni.spec.environment import parse as parse_environment
from podnet.cni.spec.errors import CNIError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Request", "parse", "version_of"]


class Request(NamedTuple):
    """A call that may be carried out; ``config`` is ``None`` for VERSION only."""

    environment: Environment
    config: config.NetworkConfig | None
    arguments: dict[str, str]

    @property
    def command(self) -> str:
        return self.environment.command


def parse(environ: Mapping[str, str], read: Callable[[], bytes]) -> Request:
    """A call; ``read`` gives standard input, and is not called for VERSION. Raises ``CNIError``."""
    environment = parse_environment(environ)
    if environment.command == "VERSION":
        return Request(environment, None, {})
    data = read()
    document = config.decode_named(data)
    versions.allow(environment.command, document.text("cniVersion") or versions.OLDEST)
    given: dict[str, str] = {}
    if environment.command in ("ADD", "CHECK", "DEL"):
        try:
            given = arguments(environment.args)
        except CNIError:
            if environment.command != "DEL":  # which cleans as well as it can
                raise
    return Request(environment, config.parse(document, environment.command, given, data), given)


def version_of(data: bytes) -> str:
    """The ``cniVersion`` for an error object or for VERSION, as far as there is one; never raises."""
    from podnet.cni.spec.document import decode

    try:
        version = decode(data).text("cniVersion")
        versions.parse(version)
    except CNIError:
        return ""
    return version
