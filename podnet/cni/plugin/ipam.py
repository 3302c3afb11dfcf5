"""Addresses for an attachment: from our own ledger, or from another plugin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podnet.cni.plugin.settings import IN_PROCESS
from podnet.cni.spec.errors import INVALID_CONFIG, IO_FAILURE, CNIError
from podnet.cni.spec.result import DNS, IP, Result, Route
from podnet.cni.spec.result import parse as parse_result
from podnet.errors import PodnetError
from podnet.ipam.allocation import allocate
from podnet.ipam.ranges import RangeError, check, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from podnet.cni.plugin.machine import Machine
    from podnet.cni.spec.config import NetworkConfig
    from podnet.cni.spec.document import Document
    from podnet.ipam.ledger import Holder, Ledger, Owner
    from podnet.ipam.ranges import Range, RangeSet

__all__ = [
    "assign",
    "delegate",
    "delegate_add",
    "delegated",
    "own",
    "ranges_of",
    "reservation_folder",
    "resolv_conf",
    "state_folder",
]


_RESOLV_CONF_LIMIT = 1 << 16  # characters; /dev/zero has no end


def own(config: NetworkConfig) -> bool:
    """Whether our own ledger hands the addresses out."""
    return config.ipam_type in IN_PROCESS


def state_folder(config: NetworkConfig, default: str) -> str:
    """Where the ledger of a network is."""
    given = config.ipam.text("dataDir") if config.ipam is not None and own(config) else ""
    return _path(given, "ipam.dataDir") if given else default


def _path(text: str, where: str) -> str:
    """An absolute path that can be a file's. Raises ``CNIError`` 7."""
    if not os.path.isabs(text) or "\0" in text:
        raise CNIError(INVALID_CONFIG, f"{where}: {text[:80]!r} is no absolute path")
    return text


def reservation_folder(config: NetworkConfig, state: str) -> str:
    """Where host-local keeps a network's reservations: in ``dataDir``, else in ``networks`` beside our own state.

    Empty where another plugin hands the addresses out.
    """
    if not own(config):
        return ""
    given = state_folder(config, "")
    return os.path.join(given or os.path.join(os.path.dirname(state), "networks"), config.name)


def ranges_of(config: NetworkConfig) -> tuple[RangeSet, ...]:
    """The range sets in host-local's order: the runtime's, the old single range, ``ranges``. Raises ``CNIError``."""
    ipam = config.ipam
    assert ipam is not None  # noqa: S101 - its type has been read
    try:
        sets = [
            [parse(r.subnet, r.range_start, r.range_end, r.gateway) for r in each] for each in config.runtime.ip_ranges
        ]
        if ipam.text("subnet"):
            sets.append([_range(ipam)])
        from podnet.cni.spec.document import Document

        given = Document({str(i): each for i, each in enumerate(ipam.array("ranges"))}, ipam.path("ranges"))
        sets += [[_range(each) for each in given.objects(key)] for key in given.raw]
        found = check(sets)
    except RangeError as error:
        raise CNIError(INVALID_CONFIG, str(error)) from None
    families = [each.family for each in found]
    if config.version in ("0.1.0", "0.2.0") and len(set(families)) < len(families):
        raise CNIError(INVALID_CONFIG, f"CNI version {config.version} does not support more than 1 address per family")
    return found


def _range(document: Document) -> Range:
    return parse(
        document.text("subnet"), document.text("rangeStart"), document.text("rangeEnd"), document.text("gateway")
    )


def resolv_conf(path: str) -> DNS:
    """A resolver configuration (resolv.conf(5)) as a result's DNS. Raises ``CNIError`` 5."""
    try:
        with open(_path(path, "ipam.resolvConf"), encoding="utf-8", errors="replace") as file:
            lines = file.read(_RESOLV_CONF_LIMIT).splitlines()
    except OSError as error:
        raise CNIError(IO_FAILURE, f"ipam.resolvConf: cannot read {path}: {error.strerror}") from None
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    domain = ""
    for line in lines:
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] == "domain":
            domain = words[1]
        elif words[0] == "search":
            search += words[1:]
        elif words[0] == "options":
            options += words[1:]
    return DNS(tuple(servers), domain, tuple(search), tuple(options))


def assign(
    ledger: Ledger,
    owner: Owner,
    config: NetworkConfig,
    stale: Callable[[Iterable[Holder]], list[Holder]],
) -> Result:
    """What our own IPAM gives an attachment, in the caller's transaction. Raises ``PodnetError``."""
    ipam = config.ipam
    assert ipam is not None  # noqa: S101 - its type has been read
    sets = ranges_of(config)
    path = ipam.text("resolvConf")
    dns = resolv_conf(path) if path else DNS()
    routes = _routes(ipam, config.version)
    found = allocate(ledger, owner, sets, config.ips, stale)
    return Result((), tuple(IP(each.address, each.gateway) for each in found), routes, dns)


def _routes(ipam: Document, version: str) -> tuple[Route, ...]:
    """The ``routes`` of the ``ipam`` object, which are written as a result's."""
    from podnet.cni.spec.document import Document

    wrapped = Document({"cniVersion": "1.1.0", "routes": ipam.array("routes")}, ipam.where)
    return parse_result(wrapped, version).routes


def delegated(config: NetworkConfig) -> bool:
    """Whether another plugin hands the addresses out."""
    return bool(config.ipam_type) and not own(config)


def delegate(machine: Machine, config: NetworkConfig, environ: Mapping[str, str], command: str) -> bytes:
    """Call the IPAM plugin with what we were called with; its answer. Raises ``CNIError``."""
    from podnet.cni.runtime.invoke import find

    paths = [each for each in environ.get("CNI_PATH", "").split(":") if each]
    executable = find(config.ipam_type, paths)
    return machine.delegate(executable, config.data, {**environ, "CNI_COMMAND": command})


def delegate_add(machine: Machine, config: NetworkConfig, environ: Mapping[str, str]) -> Result:
    """The addresses from another plugin; where it fails, it is told to clean up. Raises ``CNIError``."""
    from podnet.cni.spec.document import decode

    try:
        return parse_result(decode(delegate(machine, config, environ, "ADD"), "ipam result"), config.version)
    except PodnetError as error:
        try:
            delegate(machine, config, environ, "DEL")
        except CNIError as second:
            if isinstance(error, CNIError):
                details = "; ".join(filter(None, [error.details, f"and its DEL: {second}"]))
                raise CNIError(error.code, error.msg, details) from error
        raise
