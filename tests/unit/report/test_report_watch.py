"""What a watch tells, as lines, as a table, and as metrics."""

from __future__ import annotations

import io
from dataclasses import replace
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from podnet.probe.watch.account import Counts, Window
from podnet.probe.watch.flow import Flow
from podnet.probe.watch.histogram import BOUNDS
from podnet.probe.watch.report import Event, Sample
from podnet.report.metrics import Metrics
from podnet.report.watch import event_json, event_line, summary_json, summary_lines
from podnet.report.watch_table import live_table

FLOW = Flow("web", "db", "udp", 6)
LOST = Window(since=1_000_000_000, first=7, until=1_320_000_000, packets=32, request_lost=30, unsent=2, reason="why")


def sample(number: int = 0, *, lost: int = 0, open_ms: float = 0) -> Sample:
    counts = Counts(sent=100, received=100 - lost, lost=lost, request_lost=lost, windows=int(lost > 0))
    fixed = tuple([0] * 4 + [100 - lost] + [0] * (len(BOUNDS) - 4))
    return Sample(
        Flow(f"pod{number}", "db", "udp", 6), 0.0, 10.0, counts, (1000, 2000, 3000, 4_500_000), 100 - lost,
        250_000_000, fixed, open_ms, 320.0 if lost else 0.0, "", "",
    )  # fmt: skip


def test_a_closed_window_says_how_long_how_many_and_in_which_direction() -> None:
    event = Event("loss-closed", FLOW, 0.0, "why", LOST, 320.0)
    line = event_line(event).partition(" ")[2]
    told = "loss of 320.0 ms ends, 32 packets: 2 never left, 30 never arrived (why)"
    assert line == f"web -> db udp ipv6: {told}"
    assert event_json(event) == {
        "type": "event", "at": "1970-01-01T00:00:00.000Z", "from": "web", "to": "db", "protocol": "udp",
        "family": "ipv6", "event": "loss-closed", "text": "why",
        "window": {
            "ms": 320.0, "packets": 32, "first": 7, "direction": "request", "request_lost": 30, "reply_lost": 0,
            "unsent": 2, "elsewhere": 0,
        },
    }  # fmt: skip
    back = replace(LOST, request_lost=0, unsent=0, reply_lost=32)
    assert "32 arrived, no reply came back" in event_line(event._replace(window=back))


def test_the_summary_has_all_numbers() -> None:
    first, second = summary_lines([sample(lost=3, open_ms=900)])
    assert first == "pod0 -> db udp ipv6: 100 sent, 97 received, 3 lost (3%), 10.0 s, 10.0 packets/s"
    times, *losses = second.strip().split("; ")
    assert times == "p50/p90/p99/max 0.001/0.002/0.003/4.500 ms"
    assert losses == ["1 loss window, the longest 900.0 ms, still open", "3 requests lost"]
    assert summary_json(sample())["rtt_ms"] == {"p50": 0.001, "p90": 0.002, "p99": 0.003, "max": 4.5}


def test_the_table_shows_what_loses_first_where_not_all_fits() -> None:
    samples = [sample(number, lost=5 if number == 17 else 0, open_ms=50 if number == 40 else 0) for number in range(50)]
    out = io.StringIO()
    event = Event("gone", FLOW, 0.0, "db: namespace lab.db is gone")
    Console(file=out, width=140, height=20).print(live_table(samples, [event], 20, "title"))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert len(lines) <= 20
    assert any(line.startswith("pod17 -> db udp ipv6") for line in lines)
    assert any(line.startswith("pod40 -> db udp ipv6") and "50 ms" in line for line in lines)
    assert lines[-1].endswith("web -> db udp ipv6: gone (db: namespace lab.db is gone)")
    shown = sum("udp ipv6" in line for line in lines[:-1])
    assert f"... and {50 - shown} flows more" in lines


def test_80_columns_cut_nothing_off() -> None:
    out = io.StringIO()
    Console(file=out, width=80, height=20).print(live_table([sample(17, lost=5, open_ms=5000)], [], 20, "title"))
    assert "…" not in out.getvalue()
    assert "4.500" in out.getvalue()


def test_metrics_are_what_prometheus_reads() -> None:
    with (
        Metrics("127.0.0.1", 0, lambda: [sample(1, lost=3, open_ms=1500)]) as served,
        urlopen(f"http://127.0.0.1:{served.port}/metrics", timeout=10) as answer,
    ):
        families = {each.name: each for each in text_string_to_metric_families(answer.read().decode())}
    labels = {"from": "pod1", "to": "db", "protocol": "udp", "family": "ipv6"}
    values = {(each.name, each.labels.get("le")): each.value for family in families.values() for each in family.samples}
    assert all(
        labels == {name: value for name, value in each.labels.items() if name != "le"}
        for family in families.values()
        for each in family.samples
    )
    assert values["podnet_watch_sent_total", None] == 100
    assert values["podnet_watch_lost_total", None] == 3
    assert values["podnet_watch_loss_window_seconds", None] == 1.5
    assert values["podnet_watch_rtt_seconds_bucket", "0.0001"] == 0
    assert values["podnet_watch_rtt_seconds_bucket", "0.00025"] == 97
    assert values["podnet_watch_rtt_seconds_bucket", "+Inf"] == values["podnet_watch_rtt_seconds_count", None] == 97
    assert values["podnet_watch_rtt_seconds_sum", None] == 0.25
    assert {families[name].type for name in ("podnet_watch_sent", "podnet_watch_lost")} == {"counter"}
