"""podnet watch: steady probes while a lab stays as it is, while links and rules change, and while pods go and come."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lab_cli import PODNET, changed, podnet, succeeds, two_nodes, write

pytestmark = pytest.mark.kernel

Line = dict[str, Any]
_DEADLINE = 30.0


class Watch:
    """A running ``podnet watch -o json``; use it by ``with``. ``lines`` are those so far."""

    def __init__(self, *arguments: str) -> None:
        self.lines: list[Line] = []
        self._process = subprocess.Popen(
            [*PODNET, "watch", *arguments, "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(json.loads(line))  # nothing but JSON is there

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def await_(self, condition: Callable[[Line], bool], after: int = 0) -> Line:
        """The first line, after so many, that is as wanted."""
        until = time.monotonic() + _DEADLINE
        while time.monotonic() < until:
            for line in self.lines[after:]:
                if condition(line):
                    return line
            time.sleep(0.02)
        raise AssertionError(f"not told within {_DEADLINE} s; told: {self.lines[-5:]}")

    def told(self) -> str:
        """The first line of standard error."""
        assert self._process.stderr is not None
        return self._process.stderr.readline()

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal, and wait for the end; the exit code."""
        self._process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        code = self._process.wait(_DEADLINE)
        self._reader.join(_DEADLINE)
        return code

    def of(self, kind: str, **fields: object) -> list[Line]:
        return [line for line in self.lines if line["type"] == kind and fields.items() <= line.items()]


def receiving(line: Line) -> bool:
    return line["type"] == "interval" and line["received"] > 0 and not line["loss_window_ms"]


def inside(name: str, *words: str) -> str:
    return subprocess.run(["ip", "netns", "exec", name, *words], check=True, capture_output=True, text=True).stdout


def echoes(name: str) -> int:
    """How many echo requests of IPv4 the kernel of a namespace has seen."""
    rows = [row.split()[1:] for row in inside(name, "cat", "/proc/net/snmp").splitlines() if row.startswith("Icmp:")]
    return int(dict(zip(*rows, strict=True))["InEchos"])


def on_a_terminal(*arguments: str) -> str:
    """All that ``podnet watch`` writes to a terminal of 150 columns."""
    master, slave = os.openpty()
    with open(master, "rb", buffering=0) as read:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 150, 0, 0))
        process = subprocess.Popen([*PODNET, "watch", *arguments], stdout=slave, env=os.environ | {"TERM": "xterm"})
        os.close(slave)
        shown = b""
        with suppress(OSError):  # EIO: nobody has the other end any more
            while some := read.read(4096):
                shown += some
        assert process.wait(_DEADLINE) == 0
    return shown.decode()


COUNTS = {"sent", "received", "lost", "in_flight", "late", "reordered", "duplicates", "unsent", "elsewhere", "skipped"}
HEAD = {"type", "at", "from", "to", "protocol", "family"}
KEYS = {
    "interval": HEAD | COUNTS | {"seconds", "request", "reply", "rtt_ms", "loss_window_ms", "gone"},
    "event": HEAD | {"event", "text"},
    "summary": HEAD
    | COUNTS
    | {"seconds", "request", "reply", "rtt_ms", "loss_windows", "longest_loss_ms", "loss_window_ms", "gone"},
}


def test_where_nothing_happens_nothing_is_lost_and_the_metrics_agree(tmp_path: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    succeeds("up", write(tmp_path, two_nodes(podSubnet="10.244.0.0/16,fd00:10:244::/56", ipFamily="dual")))
    before = echoes("lab.db")
    protocols = ["--protocol", "icmp", "--protocol", "tcp", "--protocol", "udp"]
    with Watch("lab", "--from", "web", "--to", "db,pods", *protocols, "--rate", "50", "--timeout", "10",
               "--interval", "0.5", "--metrics", "0", "--fail-on-loss") as watch:  # fmt: skip
        said = watch.told()
        assert said.startswith("podnet: metrics on http://127.0.0.1:")
        port = int(said.split(":")[3].partition("/")[0])
        watch.await_(lambda line: line["type"] == "interval")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            families = {each.name: each for each in text_string_to_metric_families(answer.read().decode())}
        assert watch.stop() == 0
    flows = {(line["protocol"], line["family"]) for line in watch.of("summary")}
    assert flows == {(protocol, family) for protocol in ("icmp", "tcp", "udp") for family in ("ipv4", "ipv6")}
    for line in watch.of("summary"):
        assert (line["from"], line["to"]) == ("web", "db")
        sent = line["sent"]
        assert sent > 10
        assert (line["received"], line["lost"], line["in_flight"]) == (sent, 0, 0), line
        assert (line["request"]["arrived"], line["loss_windows"], line["late"]) == (sent, 0, 0)
        assert (line["reordered"], line["duplicates"], line["elsewhere"]) == (0, 0, 0)
        times = line["rtt_ms"]
        assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
        parts = watch.of("interval", protocol=line["protocol"], family=line["family"])
        assert sum(part["sent"] for part in parts) == sum(part["received"] for part in parts) == sent
    assert {line["event"] for line in watch.of("event")} <= {"behind"}
    for line in watch.lines:
        assert set(line) == KEYS[line["type"]]
    [plain] = watch.of("summary", protocol="icmp", family="ipv4")
    assert echoes("lab.db") - before == plain["sent"]  # the kernel of the receiver agrees

    labels = {"from": "web", "to": "db", "protocol": "udp", "family": "ipv4"}
    values = {
        sample.name: sample.value
        for family in families.values()
        for sample in family.samples
        if labels.items() <= sample.labels.items() and sample.labels.get("le", "+Inf") == "+Inf"
    }
    assert families["podnet_watch_rtt_seconds"].type == "histogram"
    assert 0 < values["podnet_watch_received_total"] <= values["podnet_watch_sent_total"]
    assert values["podnet_watch_rtt_seconds_count"] == values["podnet_watch_rtt_seconds_bucket"]
    assert values["podnet_watch_rtt_seconds_count"] == values["podnet_watch_received_total"]
    assert 0 < values["podnet_watch_rtt_seconds_sum"] < 60
    assert (values["podnet_watch_lost_total"], values["podnet_watch_loss_window_seconds"]) == (0, 0)
    assert values["podnet_watch_up"] == 1

    for arguments, said in {
        "--rate 0": "not in the range 1<=x<=1000",
        "--rate 1001": "not in the range 1<=x<=1000",
        "--from web --to web": "there is nothing to watch",
        "--from wbe": "did you mean web?",
        "--metrics 70000": "has no port",
        "--metrics ::1:9100": "is no IP address",
        "--metrics 192.0.2.1:9100": "cannot serve metrics on 192.0.2.1",
    }.items():
        done = podnet("watch", "lab", *arguments.split())
        assert (done.code, done.out, said in done.err) == (2, "", True), (arguments, done.text)


def test_a_link_that_is_down_for_a_moment_is_one_loss_window(tmp_path: Path) -> None:
    succeeds("up", write(tmp_path, two_nodes()))
    rate = 100
    with Watch("lab", "--from", "web", "--to", "db", "--protocol", "icmp", "--protocol", "tcp", "--rate", str(rate),
               "--timeout", "0.5", "--fail-on-loss") as watch:  # fmt: skip
        watch.await_(receiving)
        assert not watch.of("event", event="loss-opened")
        begun = time.monotonic()
        succeeds("link", "db", "down")
        down = time.monotonic()
        time.sleep(0.3)
        up = time.monotonic()
        succeeds("link", "db", "up")
        ended = time.monotonic()
        for protocol in ("icmp", "tcp"):
            watch.await_(lambda line, of=protocol: line.get("event") == "loss-closed" and line["protocol"] == of)
        seen = len(watch.lines)
        watch.await_(receiving, seen)

        # A reply that is dropped on the way is not a request that never arrived.
        rule = "table inet t { chain f { type filter hook forward priority 0; icmp type echo-reply drop; }; }"
        added = time.monotonic()
        inside("lab.node1", "nft", rule)
        dropping = time.monotonic()
        time.sleep(0.3)
        deleting = time.monotonic()
        inside("lab.node1", "nft", "delete table inet t")
        deleted = time.monotonic()
        watch.await_(lambda line: line.get("event") == "loss-closed", seen)
        seen = len(watch.lines)
        watch.await_(receiving, seen)
        assert watch.stop() == 1

    for protocol in ("icmp", "tcp"):
        closed = watch.of("event", event="loss-closed", protocol=protocol)
        opened = watch.of("event", event="loss-opened", protocol=protocol)
        assert len(opened) == len(closed) == (2 if protocol == "icmp" else 1)
        [summary] = watch.of("summary", protocol=protocol)
        assert summary["loss_windows"] == len(closed)
        assert summary["lost"] == sum(each["window"]["packets"] for each in closed)
        assert summary["sent"] == summary["received"] + summary["lost"]
        window = closed[0]["window"]
        # Until the neighbours know each other again, a second or two pass.
        assert (up - down) * 1000 < window["ms"] < (ended - begun + 10) * 1000, window
        # What waits for the neighbour's MAC comes late, but may come in time: it lengthens the window and is not lost.
        due = window["ms"] * rate / 1000
        assert due - rate * 0.5 - 2 - summary["skipped"] <= window["packets"] <= due + 2, window
        assert window["packets"] == window["request_lost"] + window["reply_lost"]
        assert window["request_lost"] > 0.3 * rate - 2 - summary["skipped"]
    back = watch.of("event", event="loss-closed", protocol="icmp")[1]["window"]
    assert (deleting - dropping) * 1000 < back["ms"] < (deleted - added + 1) * 1000
    assert (back["direction"], back["reply_lost"]) == ("reply", back["packets"])
    assert all(line["sent"] <= rate * 3 for line in watch.of("interval"))


def test_a_pod_that_goes_is_told_and_taken_up_again_when_it_comes_back(tmp_path: Path) -> None:
    whole = two_nodes()
    path = write(tmp_path, whole)
    succeeds("up", path)

    def event(kind: str, source: str) -> Callable[[Line], bool]:
        return lambda line: line.get("event") == kind and line["from"] == source

    with Watch("lab", "--from", "web,pods", "--to", "db", "--from", "db", "--to", "web", "--protocol", "icmp",
               "--protocol", "udp", "--rate", "20", "--timeout", "0.3", "--interval", "0.3") as watch:  # fmt: skip
        for source in ("web", "db"):
            watch.await_(lambda line, of=source: receiving(line) and line["from"] == of)
        succeeds("up", write(tmp_path, changed(whole, lambda t: t["pods"].pop())))
        for source in ("web", "db"):
            watch.await_(event("gone", source))
        assert "lab.db" not in os.listdir("/run/netns")
        watch.await_(event("loss-opened", "web"))
        # The way of the sender that is gone is not called lost: it sends nothing.
        gone = len(watch.lines)
        watch.await_(lambda line: line["type"] == "interval" and line["from"] == "db" and not line["sent"], gone)
        succeeds("up", write(tmp_path, whole))
        for source in ("web", "db"):
            watch.await_(event("back", source), gone)
            for protocol in ("icmp", "udp"):
                watch.await_(
                    lambda line, of=(source, protocol): receiving(line) and (line["from"], line["protocol"]) == of,
                    len(watch.lines),
                )
        assert watch.of("event", event="loss-closed")
        # Another address is where the probes go from then on.
        moved = changed(whole, lambda t: t["pods"][2].update(addresses=["10.244.1.77"]))
        before = len(watch.lines)
        succeeds("up", write(tmp_path, moved))
        watch.await_(event("changed", "web"), before)
        for source in ("web", "db"):
            watch.await_(lambda line, of=source: receiving(line) and line["from"] == of, len(watch.lines))
        assert "10.244.1.77" in inside("lab.db", "ip", "-4", "addr", "show", "dev", "eth0")
        before = len(watch.lines)
        succeeds("down", "lab")
        watch.await_(event("gone", "web"), before)
        assert watch.stop() == 0
    for line in watch.of("summary"):
        assert line["sent"] == line["received"] + line["lost"], line
        assert "lab." in line["gone"]


def test_without_a_terminal_it_is_lines_and_a_port_in_use_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    succeeds("up", write(tmp_path, two_nodes()))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        before = echoes("lab.db")
        done = podnet("watch", "lab", "--to", "db", "--metrics", str(port))
    assert (done.code, done.out) == (2, "")
    assert f"cannot serve metrics on 127.0.0.1 port {port}: Address already in use" in done.err
    assert echoes("lab.db") == before
    counted = podnet("watch", "lab", "--from", "web", "--to", "db", "--count", "7", "--rate", "50", "-o", "json")
    summary = json.loads(counted.out.splitlines()[-1])
    assert (summary["type"], summary["sent"], summary["received"]) == ("summary", 7, 7)
    assert echoes("lab.db") == before + 7
    done = podnet("watch", "lab", "--from", "web", "--to", "db", "--duration", "1.2", "--rate", "20")
    lines = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    # A loaded machine may be late for one or the other.
    told = re.compile(r"^\d\d:\d\d:\d\d\.\d\d\d web -> db icmp ipv4: (\d+) sent, \d+ received, 0 lost")
    sent = sum(int(found[1]) for line in lines if (found := told.match(line)))
    assert 0 < sent <= 24
    assert lines[-2].startswith(f"web -> db icmp ipv4: {sent} sent, {sent} received, 0 lost (0%)")
    assert lines[-1].startswith("    p50/p90/p99/max ")

    # On a terminal there is a table, which is gone in the end.
    shown = on_a_terminal("lab", "--from", "web", "--to", "db", "--duration", "2", "--rate", "20")
    table, _, summary = shown.rpartition("\x1b[?25h")  # the cursor is back
    assert "worst" in table
    assert "web -> db icmp ipv4" in table
    assert re.search(r"web -> db icmp ipv4: (\d+) sent, \1 received, 0 lost \(0%\)", summary)
