"""From checks to probes that can be sent: open the namespaces, ask for source addresses, listen, capture."""

from __future__ import annotations

import errno
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podnet.errors import KernelError, UsageError
from podnet.probe.addressing import primary
from podnet.probe.limits import allow_files
from podnet.probe.stamp import MAX_CHECKS
from podnet.probe.template import Templates
from podnet.probe.vantage import Vantage
from podnet.probe.verdict import Evidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.model.lab import Lab, Target
    from podnet.model.probe import Check
    from podnet.probe.stamp import Run
    from podnet.probe.template import Template

__all__ = ["Probe", "Session"]

# Per namespace and IP version: capture, raw, two reserved ports, two listeners; a node sends from several addresses.
_FILES_PER_VANTAGE = 10
_CLOSERS = 32


@dataclass(slots=True)
class Probe:
    """One check, ready to be sent as often as needed; without a ``raw`` socket it cannot be."""

    index: int
    check: Check
    evidence: Evidence = field(default_factory=Evidence)
    source: Vantage | None = None
    target: Vantage | None = None
    raw: socket.socket | None = None
    template: Template | None = None
    addresses: tuple[bytes, bytes] = (b"", b"")
    ports: tuple[int, int] = (0, 0)
    sequence: int = 0
    payload: bytes = b""
    destination: tuple[str, int] = ("", 0)

    def packet(self) -> bytes:
        """The probe's bytes, from the IP header on."""
        if self.template is None:
            msg = f"probe {self.index} has no template"
            raise UsageError(msg)
        return self.template.packet(*self.addresses, self.ports, self.sequence, self.payload)


class Session:
    """All sockets of one run, and its probes. Use it by ``with``.

    Raises ``UsageError`` for checks of targets that the lab does not have, ``KernelError`` where this process may
    not open such sockets at all. One namespace that cannot be used is a failure of its own checks only.
    """

    def __init__(self, lab: Lab, checks: Sequence[Check], run: Run, patience: float) -> None:
        if len(checks) > MAX_CHECKS:
            msg = f"{len(checks)} checks in one run; at most {MAX_CHECKS} can be told apart"
            raise UsageError(msg)
        self._lab, self._run, self._patience = lab, run, patience
        self._targets = {target.name: target for target in lab.targets}
        self._number = {target.name: number for number, target in enumerate(lab.targets)}
        self._address: dict[tuple[str, int], str | None] = {}
        self._broken: dict[str, str] = {}
        self._templates = Templates(run)
        self._packed: dict[str, bytes] = {}
        self.vantages: dict[str, Vantage] = {}
        self.probes = [Probe(index, check) for index, check in enumerate(checks)]
        try:
            self._open()
            self._prepare()
            self._watch()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every socket. Each capture waits for an RCU grace period of 10 to 20 ms, so they wait together."""
        captures = [capture for vantage in self.vantages.values() for capture in vantage.captures]
        if captures:
            with ThreadPoolExecutor(min(_CLOSERS, len(captures))) as pool:
                list(pool.map(lambda capture: capture.close(), captures))
        for vantage in self.vantages.values():
            vantage.close()

    def _of(self, name: str, check: Check) -> Target:
        target = self._targets.get(name)
        if target is None:
            where = f"line {check.line}: " if check.line else ""
            msg = f"{where}no pod, node or client named {name} in lab {self._lab.name}"
            raise UsageError(msg)
        return target

    def _open(self) -> None:
        """A vantage for every namespace that sends or receives."""
        versions: dict[str, set[int]] = {}
        for probe in self.probes:
            for name in (probe.check.source, probe.check.target):
                versions.setdefault(self._of(name, probe.check).netns, set()).add(probe.check.version)
        allow_files(_FILES_PER_VANTAGE * sum(map(len, versions.values())))
        for netns, needed in versions.items():
            try:
                self.vantages[netns] = Vantage(netns, tuple(sorted(needed)))
            except (OSError, KernelError) as error:
                self._broken[netns] = _explained(netns, error)

    def _prepare(self) -> None:
        wanted: dict[tuple[str, int], dict[str, None]] = {}
        for probe in self.probes:
            check = probe.check
            source, target = self._targets[check.source], self._targets[check.target]
            probe.source, probe.target = self.vantages.get(source.netns), self.vantages.get(target.netns)
            address = self._primary(target, check.version)
            broken = self._broken.get(source.netns) or self._broken.get(target.netns)
            if broken or address is None:
                probe.evidence.failure = broken or f"{target.name} has no IPv{check.version} address"
            else:
                probe.destination = (address, 0)
                wanted.setdefault((source.netns, check.version), {})[address] = None
        chosen = {
            key: self.vantages[key[0]].sources(key[1], list(destinations), self._patience)
            for key, destinations in wanted.items()
        }
        for probe in self.probes:
            if not probe.evidence.failure:
                self._fill(probe, chosen[self._targets[probe.check.source].netns, probe.check.version])

    def _fill(self, probe: Probe, sources: dict[str, str | int]) -> None:
        check, source, target = probe.check, probe.source, probe.target
        if source is None or target is None:
            return
        address = probe.destination[0]
        origin = sources[address]
        if isinstance(origin, int):
            probe.evidence.send_errno = origin
            return
        probe.raw = source.raw[check.version]
        probe.template = self._templates.of(check.protocol, check.version)
        probe.addresses = (self._pack(origin), self._pack(address))
        if check.protocol == "icmp":
            probe.ports = (self._run.identification, probe.index & 0xFFFF)
        else:
            try:
                port = target.listen(check.protocol, check.version, address) if check.listen else check.port
                probe.ports = (source.reserve(check.protocol, check.version, origin), port)
            except OSError as error:
                probe.raw = None
                probe.evidence.failure = f"no {check.protocol} port on {address} or {origin}: {error.strerror}"
                return
        probe.sequence = self._run.sequence(probe.index)
        probe.payload = self._run.payload(self._number[check.source], self._number[check.target], probe.index)

    def _watch(self) -> None:
        """Capture for the addresses of the lab, and for those that a kernel chose besides."""
        own: dict[tuple[str, int], set[bytes]] = {}
        for probe in self.probes:
            if probe.source is not None and probe.target is not None and probe.raw is not None:
                version = probe.check.version
                own.setdefault((probe.source.netns, version), set()).add(probe.addresses[0])
                own.setdefault((probe.target.netns, version), set()).add(probe.addresses[1])
        for target in self._lab.targets:
            for version in (4, 6):
                if (target.netns, version) in own:
                    own[target.netns, version] |= {a.ip.packed for a in target.addresses(version)}
        for (netns, version), addresses in own.items():
            self.vantages[netns].watch(version, self._run, frozenset(addresses))

    def _primary(self, target: Target, version: int) -> str | None:
        key = (target.name, version)
        if key not in self._address:
            self._address[key] = primary(self._lab, target, version)
        return self._address[key]

    def _pack(self, address: str) -> bytes:
        packed = self._packed.get(address)
        if packed is None:
            packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
            self._packed[address] = packed
        return packed


def _explained(netns: str, error: OSError | KernelError) -> str:
    """Why a namespace cannot be used. What would fail in every namespace is raised instead."""
    number = error.errno or 0
    where = f"namespace {netns}" if netns else "the machine's own namespace"
    if number in (errno.EPERM, errno.EACCES):
        msg = f"cannot send probes from {where}: {os.strerror(number)}; this needs root"
        raise KernelError(msg, number) from error
    if number in (errno.EMFILE, errno.ENFILE):
        msg = f"cannot open all sockets of the probes: {os.strerror(number)}; raise `ulimit -n` or test fewer targets"
        raise KernelError(msg, number) from error
    return str(error) if isinstance(error, KernelError) else f"no socket in {where}: {error.strerror}"
