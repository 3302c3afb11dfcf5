"""Send the probes of a lab, watch what comes of them, and judge.

All probes go out in bulk, and the captures are read in between. There is one quiet period for all of them after
the last answer, not one per probe: so a blocked path costs the same as a thousand. What stays silent is sent
again before it is called dropped.
"""

from __future__ import annotations

import errno
import secrets
import select
import socket
import time
from contextlib import closing
from ipaddress import ip_address
from typing import TYPE_CHECKING

from podnet.model.probe import Result
from podnet.probe.addressing import Sources, described
from podnet.probe.decode import ICMP_ERROR, REQUEST_SEEN, RESET
from podnet.probe.limits import neighbour_overflows
from podnet.probe.session import Session
from podnet.probe.stamp import ANSWER, REQUEST, SIZE, STAMP, Run
from podnet.probe.verdict import icmp_error, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podnet.model.lab import Lab
    from podnet.model.probe import Check
    from podnet.probe.capture import Capture
    from podnet.probe.decode import Sighting
    from podnet.probe.session import Probe
    from podnet.probe.vantage import Vantage

__all__ = ["run"]

_BATCH = 128  # probes between two readings; a capture's buffer holds 8,000
_ROUNDS = 3
_LEAST_QUIET = 0.2  # seconds; a path answers within microseconds here, a loaded machine within tens of milliseconds
_P99_FACTOR = 20

# A kernel sends one ICMP error per second to one address after a burst of six (net.ipv4.icmp_ratelimit).
_REFILL = 1.05  # seconds
_REFILLS = 12


def run(
    lab: Lab,
    checks: Sequence[Check],
    *,
    timeout: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> list[Result]:
    """Send a probe for every check and return one result each, in the same order.

    ``timeout`` is the longest that silence is waited for, in seconds; ``progress`` is told how many checks have
    their answer. Raises ``UsageError`` for a check of a target that the lab does not have and ``KernelError``
    where this process cannot open the sockets; a single namespace that is gone gives ``error`` results.
    """
    this = Run(secrets.randbits(32))
    with (
        Session(lab, checks, this, timeout) as session,
        closing(_Exchange(session, this, timeout, progress)) as exchange,
    ):
        exchange.run()
        return _results(lab, session.probes, exchange.remark())


class _Exchange:
    """The sending and watching of one run."""

    def __init__(self, session: Session, this: Run, timeout: float, progress: Callable[[int], None] | None) -> None:
        self._rate_limited = False
        self._overflows = neighbour_overflows()
        self._run, self._timeout, self._progress = this, timeout, progress
        self._vantages = list(session.vantages.values())
        self._probes = session.probes
        self._open = sum(1 for probe in self._probes if probe.raw is not None)
        self._rtts: list[int] = []
        self._poll = select.epoll()
        self._captures: dict[int, tuple[Capture, Vantage]] = {}
        self._echoes: dict[int, socket.socket] = {}
        for vantage in self._vantages:
            for capture in vantage.captures:
                self._captures[capture.fileno()] = (capture, vantage)
            for echo in vantage.echoes:
                self._echoes[echo.fileno()] = echo
        for number in (*self._captures, *self._echoes):
            self._poll.register(number, select.EPOLLIN)

    def close(self) -> None:
        self._poll.close()

    def run(self) -> None:
        """All rounds, until every probe is settled or has been silent in each of them."""
        held_back: int | None = 0
        for number in range(_ROUNDS):
            silent = self._silent()
            if not silent:
                break
            last = number == _ROUNDS - 1
            before = self._suppressed() if last else 0
            self._send(silent)
            # Silence that was not expected is given the whole time before it is called a loss.
            patient = last and any(probe.check.verdict != "drop" for probe in self._silent())
            self._settle(self._timeout if patient else self._quiet())
            if last:
                held_back = self._grown(before)
        else:
            self._refill(held_back)
        self._blame_lost()

    def remark(self) -> str:
        """What else than the network under test may have kept probes silent; empty if nothing is known."""
        remarks = []
        if self._rate_limited:
            remarks.append("ICMP errors were held back by a rate limit (net.ipv4.icmp_ratelimit, ipv6 likewise)")
        overflows = neighbour_overflows()
        if overflows is not None and self._overflows is not None and overflows > self._overflows:
            remarks.append(
                "the neighbour table overflowed meanwhile (net.ipv4.neigh.default.gc_thresh3, ipv6 likewise)"
            )
        return "; ".join(remarks)

    def _refill(self, held_back: int | None) -> None:
        """Give rate limits time: a kernel that held back ICMP errors in the last round made refusals look like drops.

        Kernels before 6.3 do not count what they hold back; there only an expected refusal is waited for.
        """
        for _ in range(_REFILLS):
            silent = self._silent()
            if not silent or held_back == 0:
                return
            if held_back is None and not any(probe.check.verdict == "refuse" for probe in silent):
                return
            self._settle(_REFILL, whole=True)
            before = self._suppressed()
            self._send(self._silent())
            self._settle(self._quiet())
            held_back = self._grown(before)
        self._rate_limited = bool(held_back)

    def _silent(self) -> list[Probe]:
        return [probe for probe in self._probes if probe.raw is not None and not probe.evidence.settled]

    def _send(self, probes: list[Probe]) -> None:
        clock = time.time_ns
        for number, probe in enumerate(probes, 1):
            evidence, raw = probe.evidence, probe.raw
            if raw is None or evidence.settled:
                continue
            packet = probe.packet()
            evidence.sent = clock()
            try:
                raw.sendto(packet, probe.destination)
            except OSError as error:
                if not evidence.attempts:
                    evidence.send_errno = error.errno or errno.EIO
            else:
                evidence.attempts += 1
                evidence.send_errno = 0
            if number % _BATCH == 0:
                self._read(0)

    def _quiet(self) -> float:
        """Seconds without any news after which nothing more is expected."""
        if not self._rtts:
            return min(self._timeout, _LEAST_QUIET)
        p99 = sorted(self._rtts)[len(self._rtts) * 99 // 100] / 1e9
        return min(self._timeout, max(_LEAST_QUIET, _P99_FACTOR * p99))

    def _settle(self, quiet: float, *, whole: bool = False) -> None:
        """Read until nothing is open, or nothing came for ``quiet`` seconds; ``whole``: for that time anyway."""
        until = time.monotonic() + quiet
        while (left := until - time.monotonic()) > 0:
            if not self._open:
                break
            if self._read(left) and not whole:
                until = time.monotonic() + quiet
        # The last answer may have been read before the request that it answers, from another capture.
        self._read(0)

    def _read(self, wait: float) -> bool:
        """Read all that waits, at most ``wait`` seconds from now; whether there was anything."""
        news = False
        before = self._open
        for number, _ in self._poll.poll(wait):
            watched = self._captures.get(number)
            if watched is None:
                self._echo(self._echoes[number])
                news = True
                continue
            capture, vantage = watched
            for sighting, at in capture.read():
                news = True
                if sighting.check < len(self._probes):
                    self._note(self._probes[sighting.check], vantage, sighting, at)
        if self._progress is not None and self._open != before:
            self._progress(len(self._probes) - self._open)
        return news

    def _note(self, probe: Probe, vantage: Vantage, sighting: Sighting, at: int) -> None:
        """Add a sighting to the evidence: only the receiver's namespace tells of arrivals, the sender's of answers."""
        evidence, version = probe.evidence, probe.check.version
        if sighting.kind == REQUEST_SEEN:
            if probe.target is vantage and not evidence.arrived:
                evidence.arrived = at
                evidence.source_seen = str(ip_address(sighting.sender))
            return
        if probe.source is not vantage or evidence.settled:
            return
        evidence.answered = at
        if sighting.kind == ICMP_ERROR:
            evidence.refused, evidence.error = icmp_error(version, *sighting.error, str(ip_address(sighting.sender)))
        elif sighting.kind == RESET:
            evidence.reset = True
        else:
            evidence.reply = True
        self._open -= 1
        if evidence.rtt_ms is not None:
            self._rtts.append(int(evidence.rtt_ms * 1e6))

    def _echo(self, sock: socket.socket) -> None:
        """Answer the probes that reached a UDP listener of ours."""
        while True:
            try:
                payload, sender = sock.recvfrom(256)
            except BlockingIOError:
                return
            if len(payload) != SIZE:
                continue
            magic, number, source, target, index = STAMP.unpack(payload)
            if magic != REQUEST or number != self._run.number or index >= len(self._probes):
                continue
            evidence = self._probes[index].evidence
            evidence.echoed = time.time_ns()
            try:
                sock.sendto(self._run.payload(source, target, index, ANSWER), sender)
            except OSError as error:
                evidence.echo_errno = error.errno or errno.EIO

    def _suppressed(self) -> int | None:
        counts = [vantage.suppressed() for vantage in self._vantages]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def _grown(self, before: int | None) -> int | None:
        now = self._suppressed()
        return None if now is None or before is None else now - before

    def _blame_lost(self) -> None:
        """A check whose packets may have been lost in our own full buffer has no verdict."""
        deaf = {vantage: sum(c.lost() for c in vantage.captures) for vantage in self._vantages}
        for probe in self._probes:
            evidence = probe.evidence
            if probe.raw is None or (evidence.arrived and evidence.settled):
                continue
            for vantage in (probe.source, probe.target):
                if vantage is not None and deaf[vantage]:
                    evidence.failure = f"the capture in {vantage.netns or 'the machine'} lost {deaf[vantage]} packets"


def _results(lab: Lab, probes: Sequence[Probe], remark: str) -> list[Result]:
    judged = Sources(lab)
    results = []
    for probe in probes:
        check, evidence = probe.check, probe.evidence
        silent_means_reach = check.protocol == "udp" and not check.listen
        observed, detail = judge(evidence, silent_means_reach=silent_means_reach, remark=remark)
        passed = observed == check.verdict
        if passed and observed in ("reach", "refuse") and evidence.source_seen:
            passed = judged.fits(check, evidence.source_seen)
            if not passed:
                detail = f"{check.target} saw {evidence.source_seen}, expected {described(check.seen)}"
        results.append(Result(check, observed, evidence.source_seen, passed, evidence.rtt_ms, detail))
    return results
