"""podnet watch."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podnet.cli.watch_printer import Printer
    from podnet.lab.record import Record
    from podnet.model.lab import Lab
    from podnet.probe.watch.flow import Flow
    from podnet.probe.watch.watcher import Watcher
    from podnet.report.metrics import Metrics

__all__ = ["command"]

# Packets per second. One costs 45 us of a processor, more than half of them the kernel's: 20,000 is what one can,
# 12,000 what was held on a machine where ten others wanted the same two processors.
_MOST, _MANY = 25_000, 10_000
_LOOK = 0.05  # seconds between two looks at what there is to print


class Endpoint(NamedTuple):
    """Where metrics are served."""

    address: str
    port: int


class _Address(click.ParamType[Endpoint]):
    """``PORT``, ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``."""

    name = "[ADDR:]PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Endpoint:
        if isinstance(value, Endpoint):
            return value
        from ipaddress import ip_address

        address, _, port = str(value).rpartition(":")
        bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
        if not port.isascii() or not port.isdecimal() or not 0 <= int(port) <= 65535:
            self.fail(f"{value!r} has no port: write PORT, ADDR:PORT or [ADDR]:PORT", param, ctx)
        try:
            if address and (":" in bare) != (bare != address):
                raise ValueError  # IPv6 in brackets, IPv4 without
            return Endpoint(str(ip_address(bare)) if address else "127.0.0.1", int(port))
        except ValueError:
            self.fail(f"{address!r} is no IP address: write 127.0.0.1:{port} or [::1]:{port}", param, ctx)


@click.command(short_help="Probe flows at a steady rate while something changes, and report what was lost.")
@click.argument("lab", required=False)
@click.option("--from", "senders", multiple=True, metavar="WHO", help="Who sends (again for more).  [default: pods]")
@click.option("--to", "receivers", multiple=True, metavar="WHO", help="Who receives (again for more).  [default: pods]")
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(["icmp", "tcp", "udp"]),
    help="What is sent: an echo, a SYN, a datagram (again for more).  [default: icmp]",
)
@click.option("--family", type=click.Choice(["ipv4", "ipv6"]), help="The IP version.  [default: all of the lab's]")
@click.option(
    "--rate",
    type=click.FloatRange(1, 1000),
    default=10,
    show_default=True,
    metavar="HZ",
    help="Probes per second of each flow, 1 to 1000.",
)
@click.option("--duration", type=click.FloatRange(0.1), metavar="SECONDS", help="End after so long.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End when each flow has sent so many probes.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to report.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.05, 10),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Silence that means lost; what comes later counts as late, and stays lost.",
)
@click.option("--fail-on-loss", is_flag=True, help="Exit with 1 where a packet was lost.")
@click.option(
    "--metrics", type=_Address(), help="Serve Prometheus metrics there; without ADDR on 127.0.0.1, port 0: a free one."
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="What to print."
)
def command(
    lab: str | None,
    senders: tuple[str, ...],
    receivers: tuple[str, ...],
    protocols: tuple[str, ...],
    family: str | None,
    rate: float,
    duration: float | None,
    count: int | None,
    interval: float,
    timeout: float,
    fail_on_loss: bool,
    metrics: Endpoint | None,
    output: str,
) -> None:
    """Probe the flows of LAB (a name or a topology file; without one, the only lab that runs) until Ctrl-C.

    Each flow is one protocol from one sender to one receiver. Reported are packets lost, late, reordered and
    duplicated, the time there and back, and loss windows: from the last answer before a loss to the first one after.
    A namespace that goes is told, and taken up again when it comes back.

    \b
      podnet watch --from web --to db --rate 1000           and meanwhile: podnet link node1 down
      podnet watch lab.yaml --protocol tcp --duration 30 --fail-on-loss
      podnet watch -o json > run.jsonl                      a line per flow and interval, per event, and at the end
      podnet watch --metrics 9100                           for Prometheus

    WHO is the name of a pod, node or client, of a pod with replicas, 'pods', 'nodes', 'clients', a label KEY=VALUE,
    or node:NAME for the pods on a node; joined by commas, all must fit.

    On a terminal there is a table that moves; else lines, or with -o json JSON lines. Exits with 0, however much was
    lost, unless --fail-on-loss asks otherwise.
    """
    import secrets

    from podnet.cli.watch_printer import printer_of
    from podnet.lab import record
    from podnet.probe.stamp import Run
    from podnet.probe.watch.watcher import Plan, Watcher

    entry = record.find(lab)
    flows = _flows(entry.lab, senders, receivers, protocols, family)
    total = rate * len(flows)
    if total > _MOST:
        from podnet.errors import UsageError

        msg = (
            f"{len(flows)} flows at {rate:g} Hz are {total:,.0f} packets per second, and no more than {_MOST:,} can be"
            " sent: choose fewer with --from and --to, or a lower --rate"
        )
        raise UsageError(msg)
    if total > _MANY:
        click.echo(
            f"podnet: {len(flows)} flows at {rate:g} Hz are {total:,.0f} packets per second, about what one processor"
            " can send: what is not sent in time is counted as skipped",
            err=True,
        )
    plan = Plan(rate, timeout, interval, duration or 0, count or 0)
    this = Run(secrets.randbits(32) | 1 << 24)
    watcher = Watcher(entry.lab, flows, plan, this, _Renewed(entry))
    with ExitStack() as stack:
        if metrics is not None:
            served = stack.enter_context(_served(metrics, watcher))
            shown = f"[{served.address}]" if ":" in served.address else served.address
            click.echo(f"podnet: metrics on http://{shown}:{served.port}/metrics", err=True)
        stack.enter_context(_stopped_by_signals(watcher))
        _follow(watcher, printer_of(output, watcher, f"{entry.name}: {rate:g} probes/s each; Ctrl-C ends"))
    if fail_on_loss and any(sample.counts.lost for sample in watcher.samples):
        sys.exit(1)


def _flows(
    lab: Lab, senders: Sequence[str], receivers: Sequence[str], protocols: Sequence[str], family: str | None
) -> list[Flow]:
    from podnet.errors import UsageError
    from podnet.probe.select import chosen
    from podnet.probe.watch.flow import flows_between

    versions = (int(family[-1]),) if family else lab.versions
    if not set(versions) <= set(lab.versions):
        msg = f"lab {lab.name} has no IPv{versions[0]}: leave out --family, or write the other"
        raise UsageError(msg)
    ends = [chosen(lab, words or ("pods",)) for words in (senders, receivers)]
    return flows_between(lab, ends[0], ends[1], tuple(dict.fromkeys(protocols)) or ("icmp",), versions)


class _Renewed:
    """The lab where its record has changed since the last call, and nobody is changing the lab any more."""

    def __init__(self, entry: Record) -> None:
        self._name, self._lab = entry.name, entry.lab
        self._seen = self._stamp()

    def __call__(self) -> Lab | None:
        from podnet.errors import PodnetError
        from podnet.lab import record

        stamp = self._stamp()
        if stamp == self._seen:
            return None
        try:
            entry = record.load(self._name)
        except PodnetError:
            return None  # another version of podnet, or damage: the namespaces still tell what is there
        if entry is None or not entry.settled:
            return None
        self._seen = stamp
        before, self._lab = self._lab, entry.lab
        return None if before.targets == self._lab.targets else self._lab

    def _stamp(self) -> tuple[int, int]:
        import os

        from podnet.lab import record

        try:
            found = os.stat(f"{record.directory(self._name)}/record.json")
        except OSError:
            return (0, 0)
        return (found.st_ino, found.st_mtime_ns)


@contextmanager
def _served(endpoint: Endpoint, watcher: Watcher) -> Iterator[Metrics]:
    from podnet.report.metrics import Metrics

    with Metrics(endpoint.address, endpoint.port, lambda: watcher.samples) as metrics:
        yield metrics


@contextmanager
def _stopped_by_signals(watcher: Watcher) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the watch with its summary; a second one does not wait for what is in flight."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: watcher.stop()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _follow(watcher: Watcher, printer: Printer) -> None:
    """Have the watch work in a thread of its own, and print here what it tells, until it ends."""
    problems: list[BaseException] = []

    def work() -> None:
        try:
            watcher.run()
        except BaseException as problem:  # noqa: BLE001 - it is raised again by the thread that waits
            problems.append(problem)

    # Printing must not keep the sender from its next probe for longer than that: Python's own 5 ms are 5 probes.
    # A command that lives for hours collects its cycles; those of what was imported it need not look at.
    gc.freeze()
    gc.enable()
    switch = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    worker = threading.Thread(target=work)
    worker.start()
    try:
        with printer:
            while worker.is_alive():
                worker.join(_LOOK)
                printer.show()
    finally:
        watcher.stop()
        if worker.is_alive():
            watcher.stop()
        worker.join()
        sys.setswitchinterval(switch)
    if problems:
        raise problems[0]
    printer.end()
