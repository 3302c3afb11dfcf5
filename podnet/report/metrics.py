"""A watch's flows for Prometheus, on an HTTP port of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.errors import UsageError
from podnet.probe.watch.histogram import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client import Metric

    from podnet.probe.watch.report import Sample

__all__ = ["Metrics"]

_LABELS = ("from", "to", "protocol", "family")


class Metrics:
    """Serves ``/metrics`` of what ``samples`` gives whenever it is asked; use it by ``with``.

    ``address`` is bound before anything else happens; raises ``UsageError`` where that cannot be. ``port`` is the one
    in use, where 0 was asked for a free one.
    """

    def __init__(self, address: str, port: int, samples: Callable[[], Sequence[Sample]]) -> None:
        from prometheus_client import CollectorRegistry, start_http_server

        self._samples = samples
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, address, registry)
        except OSError as error:
            msg = f"cannot serve metrics on {address} port {port}: {error.strerror}; choose another with --metrics"
            raise UsageError(msg) from None
        self.address = address
        self.port: int = self._server.server_port

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is given: each metric with one sample a flow."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        samples = [(sample, list(_labels(sample))) for sample in self._samples()]
        counters = {
            "sent": "Probes sent.",
            "received": "Probes whose answer came back in time.",
            "lost": "Probes lost, on the way there or back.",
            "late": "Answers that came after their probe was given up as lost.",
            "reordered": "Answers that came out of order (RFC 4737).",
            "duplicates": "Answers that came more than once.",
            "skipped": "Probes that were not sent in time, because podnet was behind its schedule.",
        }
        for name, text in counters.items():
            counter = CounterMetricFamily(f"podnet_watch_{name}", text, labels=_LABELS)
            for sample, labels in samples:
                counter.add_metric(labels, getattr(sample.counts, name))
            yield counter
        lost = CounterMetricFamily("podnet_watch_loss_windows", "Runs of consecutive losses.", labels=_LABELS)
        window = GaugeMetricFamily(
            "podnet_watch_loss_window_seconds", "Age of the loss window that is open, 0 without one.", labels=_LABELS
        )
        up = GaugeMetricFamily("podnet_watch_up", "1 while both ends have a namespace, else 0.", labels=_LABELS)
        rtt = HistogramMetricFamily("podnet_watch_rtt_seconds", "Time there and back.", labels=_LABELS)
        for sample, labels in samples:
            lost.add_metric(labels, sample.counts.windows)
            window.add_metric(labels, sample.open_ms / 1e3)
            up.add_metric(labels, 0 if sample.gone else 1)
            rtt.add_metric(labels, _buckets(sample.fixed), sample.total / 1e9)
        yield from (lost, window, up, rtt)


def _labels(sample: Sample) -> tuple[str, str, str, str]:
    flow = sample.flow
    return flow.source, flow.target, flow.protocol, flow.family


def _buckets(fixed: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulative counts, as Prometheus wants them."""
    found, total = [], 0
    for bound, count in zip([*(str(bound) for bound in BOUNDS), "+Inf"], fixed, strict=True):
        total += count
        found.append((bound, float(total)))
    return found
