"""From checks to probes that can be sent: open the namespaces, ask for source addresses, listen, capture."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podnet.errors import KernelError, UsageError
from podnet.probe import sctp
from podnet.probe.addressing import primary
from podnet.probe.clock import await_stamps
from podnet.probe.ledger import Ledger
from podnet.probe.limits import allow_files
from podnet.probe.onlink import LINK_PROTOCOLS
from podnet.probe.plan import Kind
from podnet.probe.stamp import MAX_CHECKS
from podnet.probe.tap import Tap
from podnet.probe.template import Aim, Templates
from podnet.probe.vantage import Vantage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podnet.model.lab import Lab
    from podnet.probe.loss import Losses
    from podnet.probe.plan import Checks
    from podnet.probe.stamp import Run
    from podnet.probe.template import Template

__all__ = ["Session", "Unit"]

# Per namespace and IP version: capture, raw, two reserved ports, two listeners; a node sends from several addresses.
_FILES_PER_VANTAGE = 10
_FILES_OF_CONVERSATIONS = 4000
_CLOSERS = 256
_CONVERSATIONS = ("connect", "http", "dns")


@dataclass(slots=True)
class Unit:
    """Probes of one kind from one sender's address, ready to be sent as often as needed.

    ``origin`` is the sender's number, packed address and port; ``aims`` and ``ports`` are by number of the receiver.
    """

    here: int  # the number of the sender's vantage
    raw: int
    template: Template
    origin: tuple[int, bytes, int]
    indexes: Sequence[int]
    aims: Sequence[Aim] | Mapping[int, Aim]
    ports: Sequence[int]


class Session:
    """All sockets of one run, and its probes. Use it by ``with``.

    Raises ``KernelError`` where this process may not open such sockets at all. One namespace that cannot be used is a
    failure of its own checks only.
    """

    def __init__(self, lab: Lab, checks: Checks, run: Run, patience: float, tapped: Sequence[str] = ()) -> None:
        if len(checks) > MAX_CHECKS - 2 * len(lab.targets):
            msg = f"{len(checks)} checks in one run; at most {MAX_CHECKS - 2 * len(lab.targets)} can be told apart"
            raise UsageError(msg)
        self.lab, self._run, self._patience = lab, run, patience
        self._templates = Templates(run)
        self.checks = checks
        # Control checks come behind the others, so that they are told apart in the same way.
        self.source, self.target = checks.source[:], checks.target[:]
        self.ends = (self.source, self.target)
        self.vantages: list[Vantage] = []
        self.tapped = tapped
        self.taps: list[Tap] = []
        self.losses: Losses | None = None
        self.homes = [-1] * len(lab.targets)
        self.units: list[Unit] = []
        self.talks: dict[tuple[int, int], list[int]] = {}  # conversations by kind and sender
        self.asked: dict[tuple[int, int], list[int]] = {}  # questions of ARP and ND, likewise
        self.controls: dict[tuple[int, int], tuple[Unit, int]] = {}
        self._broken: dict[int, str] = {}
        self._aims: dict[int, list[Aim | None]] = {}
        self._own: dict[tuple[int, int], set[bytes]] = {}
        try:
            self._open()
            self.ledger = Ledger(len(self.source))
            self._prepare()
            self._watch()
            self._tap()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every socket. Each capture waits for an RCU grace period of 10 to 20 ms, so they wait together."""
        captures = [*self.taps, *(capture for vantage in self.vantages for capture in vantage.captures)]
        closing = [*captures, self.losses] if self.losses is not None else captures
        if closing:
            with ThreadPoolExecutor(min(_CLOSERS, len(closing))) as pool:
                list(pool.map(lambda each: each.close(), closing))
        for vantage in self.vantages:
            vantage.captures.clear()
            vantage.close()

    def _open(self) -> None:
        """A vantage for every namespace that sends or receives, and a control check for each."""
        versions: dict[str, set[int]] = {}
        members: dict[str, list[int]] = {}
        for kind, ends in self._ends().items():
            for number in sorted(ends):
                netns = self.lab.targets[number].netns
                versions.setdefault(netns, set()).add(self.checks.kinds[kind].version)
                members.setdefault(netns, []).append(number)
        allow_files(
            _FILES_PER_VANTAGE * sum(map(len, versions.values())) + _FILES_OF_CONVERSATIONS + 2 * len(self.tapped)
        )
        for netns, needed in versions.items():
            try:
                vantage = Vantage(netns, tuple(sorted(needed)))
            except (OSError, KernelError) as error:
                self._broken |= dict.fromkeys(members[netns], _explained(netns, error))
                continue
            for number in members[netns]:
                self.homes[number] = len(self.vantages)
            self.vantages.append(vantage)
            for _ in needed:
                self.source.append(members[netns][0])
                self.target.append(members[netns][0])

    def _ends(self) -> dict[int, set[int]]:
        """Numbers of all senders and receivers, by number of the kind."""
        ends: dict[int, set[int]] = {}
        checks = self.checks
        for kind in range(len(checks.kinds)):
            ends[kind] = set()
        if len(ends) == 1:
            ends[0] = set(checks.source) | set(checks.target)
            return ends
        for kind, source, target in zip(checks.kind, checks.source, checks.target, strict=True):
            ends[kind] |= {source, target}
        return ends

    def _groups(self) -> dict[tuple[int, int], list[int]]:
        """The checks' numbers by kind and sender."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, key in enumerate(zip(self.checks.kind, self.checks.source, strict=True)):
            found = groups.get(key)
            if found is None:
                groups[key] = [index]
            else:
                found.append(index)
        return groups

    def _prepare(self) -> None:
        groups = self._groups()
        reached: dict[int, set[int]] = {}
        target = self.checks.target
        for (number, _), indexes in groups.items():
            reached.setdefault(number, set()).update([target[index] for index in indexes])
        ready = {number: self._receivers(self.checks.kinds[number], targets) for number, targets in reached.items()}
        chosen = self._asked(groups)
        for (number, source), indexes in groups.items():
            kind, (ports, failures) = self.checks.kinds[number], ready[number]
            here = self.homes[source]
            if here < 0:
                self._fail(indexes, self._broken[source])
                continue
            for index in indexes if failures else ():
                if target[index] in failures:
                    self.ledger.fail(index, failures[target[index]])
            able = [index for index in indexes if target[index] not in failures] if failures else indexes
            if kind.protocol in _CONVERSATIONS or kind.protocol in LINK_PROTOCOLS:
                (self.talks if kind.protocol in _CONVERSATIONS else self.asked)[number, source] = able
                continue
            for origin, some in self._split(kind, source, able, chosen).items():
                self._unit(kind, source, origin, some, ports)
        self._control(len(self.checks))

    def _receivers(self, kind: Kind, targets: Iterable[int]) -> tuple[list[int], dict[int, str]]:
        """The port of each receiver by its number, and why those that cannot receive cannot."""
        ports, failures = [kind.port] * len(self.lab.targets), {}
        for number in targets:
            aim = self.aim(number, kind.version)
            if self.homes[number] < 0:
                failures[number] = self._broken[number]
            elif aim is None:
                failures[number] = f"{self.lab.targets[number].name} has no IPv{kind.version} address"
            elif kind.protocol == "sctp" or (kind.listen and kind.protocol in ("tcp", "udp")):
                try:
                    if kind.protocol == "sctp":
                        ports[number] = kind.port or sctp.PORT
                        self._vantage(number).respond(kind.version, aim.text, ports[number], self._run)
                        continue
                    ports[number] = self._vantage(number).listen(kind.protocol, kind.version, aim.text)
                except OSError as error:
                    failures[number] = f"no {kind.protocol} port on {aim.text}: {error.strerror}"
        return ports, failures

    def _asked(self, groups: dict[tuple[int, int], list[int]]) -> dict[tuple[int, int], dict[str, str | int]]:
        """What kernels that have several addresses choose, by the numbers of vantage and IP version."""
        wanted: dict[tuple[int, int], dict[str, None]] = {}
        for (number, source), indexes in groups.items():
            here, version = self.homes[source], self.checks.kinds[number].version
            if self.checks.kinds[number].protocol in (*_CONVERSATIONS, *LINK_PROTOCOLS):
                continue
            if here >= 0 and self.vantages[here].only(version) is None:
                aims = (self.aim(self.checks.target[index], version) for index in indexes)
                wanted.setdefault((here, version), {}).update((aim.text, None) for aim in aims if aim)
        return {
            (here, version): self.vantages[here].sources(version, list(destinations), self._patience)
            for (here, version), destinations in wanted.items()
        }

    def _split(
        self, kind: Kind, source: int, indexes: list[int], asked: dict[tuple[int, int], dict[str, str | int]]
    ) -> dict[str, list[int]]:
        """Checks of one sender by the address that its kernel sends from; what it cannot send is noted."""
        here, version = self.homes[source], kind.version
        only = self.vantages[here].only(version)
        if only is not None:
            return {only: indexes} if indexes else {}
        chosen, split = asked[here, version], dict[str, list[int]]()
        for index in indexes:
            aim = self.aim(self.checks.target[index], version)
            origin = chosen[aim.text] if aim else errno.EADDRNOTAVAIL
            if isinstance(origin, int):
                self.ledger.send_errno[index] = origin
            else:
                split.setdefault(origin, []).append(index)
        return split

    def _unit(self, kind: Kind, source: int, origin: str, indexes: list[int], ports: list[int]) -> None:
        here, version = self.homes[source], kind.version
        vantage = self.vantages[here]
        try:
            port = vantage.reserve(kind.protocol, version, origin)
        except OSError as error:
            self._fail(indexes, f"no {kind.protocol} port on {origin}: {error.strerror}")
            return
        packed = Aim.at(origin).packed
        self._own.setdefault((here, version), set()).add(packed)
        # Receivers without an address have failed already; their place is never looked at.
        nowhere = Aim("", b"", 0, b"")
        aims = [aim or nowhere for aim in self._all_aims(version)]
        template = self._templates.of(kind.protocol, version)
        self.units.append(
            Unit(here, vantage.raw[version].fileno(), template, (source, packed, port), indexes, aims, ports)
        )

    def _control(self, index: int) -> None:
        """An echo of every namespace to itself, to be sent where nothing else shows it alive."""
        for here, vantage in enumerate(self.vantages):
            for version in sorted(vantage.raw):
                number = self.source[index]
                own = vantage.only(version) or primary(self.lab, self.lab.targets[number], version)
                if own is not None:
                    aim = Aim.at(own)
                    unit = Unit(
                        here, vantage.raw[version].fileno(), self._templates.of("icmp", version),
                        (number, aim.packed, 0), [index], {number: aim}, (),
                    )  # fmt: skip
                    self.controls[here, version] = (unit, index)
                    self._own.setdefault((here, version), set()).add(aim.packed)
                index += 1

    def _watch(self) -> None:
        """Capture for the addresses of the lab, and for those that a kernel chose besides."""
        for number, target in enumerate(self.lab.targets):
            here = self.homes[number]
            for version in self.vantages[here].raw if here >= 0 else ():
                own = self._own.setdefault((here, version), set())
                own.update(address.ip.packed for address in target.addresses(version))
        for (here, version), addresses in self._own.items():
            self.vantages[here].watch(version, self._run, frozenset(addresses))

    def _tap(self) -> None:
        """Watch every device of the namespaces that the way of packets is asked of."""
        versions = sorted({kind.version for kind in self.checks.kinds})
        for number, netns in enumerate(self.tapped):
            try:
                self.taps += [Tap(netns, number, version, self._run) for version in versions]
            except KernelError as error:
                if error.errno != errno.ENOENT:  # a namespace that is gone sees nothing pass
                    raise
        if self.taps:
            await_stamps()

    def _fail(self, indexes: Iterable[int], why: str) -> None:
        for index in indexes:
            self.ledger.fail(index, why)

    def _vantage(self, number: int) -> Vantage:
        return self.vantages[self.homes[number]]

    def aim(self, number: int, version: int) -> Aim | None:
        """A target's address, by its number."""
        return self._all_aims(version)[number]

    def _all_aims(self, version: int) -> list[Aim | None]:
        """Every target's address, by its number."""
        aims = self._aims.get(version)
        if aims is None:
            texts = [primary(self.lab, target, version) for target in self.lab.targets]
            aims = self._aims[version] = [None if text is None else Aim.at(text) for text in texts]
        return aims


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
