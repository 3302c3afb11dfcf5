"""Conversations, with podnet and with programs at the other end: TCP connections, HTTP, DNS; for both IP versions."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from probe_cluster import Cluster, Rules, inside

from podnet.kernel.netns import entered
from podnet.model.probe import Check, Result
from podnet.probe.engine import run
from podnet.probe.expect import derive

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize("version", [4, 6])
EACH = pytest.mark.parametrize("protocol", ["connect", "http", "dns"])


def only(cluster: Cluster, check: Check, timeout: float = 0.3) -> Result:
    [result] = run(cluster.lab(), [check], timeout=timeout)
    return result


def on_port(protocol: str, version: int, port: int, verdict: str = "reach") -> Check:
    return Check("p1-1", "p2-1", protocol, version, port, verdict, listen=False)


@contextmanager
def served(netns: str, version: int, kind: int, answer: bytes) -> Iterator[int]:
    """A program that says one thing to whoever asks, on some port; what it takes to see a query is up to the test."""
    family, address = {4: (socket.AF_INET, "0.0.0.0"), 6: (socket.AF_INET6, "::")}[version]
    with entered(netns):
        sock = socket.socket(family, kind)
    with sock:
        sock.settimeout(10)
        sock.bind((address, 0))

        def serve() -> None:
            try:
                if kind == socket.SOCK_DGRAM:
                    asked, peer = sock.recvfrom(2048)
                    sock.sendto(asked[:2] + answer, peer)
                    return
                accepted, _ = sock.accept()
                with accepted:
                    accepted.recv(2048)
                    accepted.sendall(answer)
            except OSError:
                return

        if kind == socket.SOCK_STREAM:
            sock.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield sock.getsockname()[1]
        sock.shutdown(socket.SHUT_RDWR) if kind == socket.SOCK_STREAM else None
        thread.join()


def test_every_pair_is_reached_under_its_own_address(cluster: Cluster) -> None:
    lab = cluster.lab()
    results = run(lab, derive(lab, ("connect", "http", "dns")))
    assert len(results) == (36 - 4) * 6
    assert list(results.failed()) == []
    for result in results:
        assert result.source_seen in {str(a.ip) for a in lab.target(result.check.source).addresses(4)} | {
            str(a.ip) for a in lab.target(result.check.source).addresses(6)
        }
    # Nothing lingers: no connection, no listener, no port in TIME_WAIT.
    for target in lab.targets:
        assert inside(target.netns, "ss", "-Htuna") == ""


@BOTH
@EACH
def test_a_closed_port_refuses(cluster: Cluster, protocol: str, version: int) -> None:
    result = only(cluster, on_port(protocol, version, 81, "refuse"))
    assert (result.observed, result.passed) == ("refuse", True)
    assert result.detail.startswith("ICMP port unreachable" if protocol == "dns" else "TCP reset")


@BOTH
@EACH
def test_a_dropped_request_is_a_drop(cluster: Cluster, rules: Rules, protocol: str, version: int) -> None:
    rules("node2", "table inet t { chain f { type filter hook forward priority 0; policy drop; } }")
    result = only(cluster, Check("p1-1", "p2-1", protocol, version, verdict="drop"))
    assert (result.observed, result.passed, result.detail) == ("drop", True, "never arrived")


@EACH
def test_a_reject_rule_refuses(cluster: Cluster, rules: Rules, protocol: str) -> None:
    rules(
        "node2", "table inet t { chain f { type filter hook forward priority 0; reject with icmpx admin-prohibited; } }"
    )
    result = only(cluster, Check("p1-1", "p2-1", protocol, 4, verdict="refuse"))
    assert (result.observed, result.passed) == ("refuse", True)
    assert result.detail == "ICMP error: No route to host"


@BOTH
@EACH
def test_masquerade_is_seen_by_the_receiver(cluster: Cluster, rules: Rules, protocol: str, version: int) -> None:
    rules("node1", "table inet t { chain p { type nat hook postrouting priority 100; oifname eth0 masquerade; } }")
    result = only(cluster, Check("p1-1", "client", protocol, version, seen="node"))
    node = {4: "192.168.7.1", 6: "fd00:7::1"}[version]
    assert (result.observed, result.source_seen, result.passed) == ("reach", node, True)


@BOTH
@pytest.mark.parametrize(
    ("protocol", "kind", "answer", "observed", "detail"),
    [
        ("connect", socket.SOCK_STREAM, b"", "reach", ""),
        ("http", socket.SOCK_STREAM, b"HTTP/1.1 404 Not Found\r\n\r\n", "reach", ""),
        ("http", socket.SOCK_STREAM, b"SSH-2.0-OpenSSH_9.2\r\n", "refuse", "no HTTP answer"),
        ("http", socket.SOCK_STREAM, b"", "refuse", "closed without an answer"),
        ("dns", socket.SOCK_DGRAM, b"\x81\x83\0\1\0\0\0\0\0\0", "reach", ""),
        ("dns", socket.SOCK_DGRAM, b"what?", "refuse", "no DNS answer"),
    ],
)
def test_a_programs_port_answers_in_its_protocol_or_not(
    cluster: Cluster, version: int, protocol: str, kind: int, answer: bytes, observed: str, detail: str
) -> None:
    with served(cluster.netns("p2-1"), version, kind, answer) as port:
        result = only(cluster, on_port(protocol, version, port, observed), timeout=10)
    assert (result.observed, result.passed, result.detail) == (observed, True, detail)


def test_a_listener_with_a_full_backlog_is_not_reached(cluster: Cluster) -> None:
    # It accepts none: the handshake of the first two is done by the kernel, the others stay without an answer.
    with entered(cluster.netns("p2-1")), socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        sock.listen(0)
        port = sock.getsockname()[1]
        with entered(cluster.netns("p1-2")), socket.socket() as first, socket.socket() as second:
            for each in (first, second):
                each.setblocking(False)
                each.connect_ex(("10.244.2.2", port))
            assert only(cluster, on_port("connect", 4, port)).observed == "drop"


def test_a_slow_program_is_asked_once(cluster: Cluster) -> None:
    """It takes one connection, and answers when others would have been asked three times."""
    asked: list[bytes] = []
    with entered(cluster.netns("p2-1")):
        sock = socket.socket()
    with sock:
        sock.settimeout(30)
        sock.bind(("0.0.0.0", 0))
        sock.listen()

        def serve() -> None:
            accepted, _ = sock.accept()
            with accepted:
                asked.append(accepted.recv(2048))
                time.sleep(0.5)  # that is what slow means
                with suppress(OSError):
                    accepted.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        result = only(cluster, on_port("http", 4, sock.getsockname()[1]), timeout=20)
        thread.join()
    assert (result.observed, result.passed) == ("reach", True)
    assert len(asked) == 1
