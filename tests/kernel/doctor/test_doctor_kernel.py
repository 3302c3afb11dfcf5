"""The doctor against the real kernel: it says what `ip`, `tc` and `nft` find, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from podnet.kernel import capabilities

pytestmark = pytest.mark.kernel

PODNET = [sys.executable, "-c", "from podnet.cli import main; main()"]


def in_new_namespace(script: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--net", "sh", "-c", f'{script}; "$@"', "sh", *(command or ("true",))],
        capture_output=True,
        text=True,
        timeout=30,
    )


def works(script: str) -> bool:
    return in_new_namespace(f"set -e; {script}").returncode == 0


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    return {each.name: each.found for each in capabilities.probe_all()}


BELOW = "ip link add below type bridge"

WITNESSES = {
    "bridge": "ip link add trial0 type bridge",
    "veth": "ip link add trial0 type veth peer name trial1",
    "vxlan": "ip link add trial0 type vxlan id 7 dstport 4789",
    "wireguard": "ip link add trial0 type wireguard",
    "ipip": "ip link add trial0 type ipip local 127.0.0.1 remote 127.0.0.1",
    "geneve": "ip link add trial0 type geneve id 7 remote 127.0.0.1",
    "macvlan": f"{BELOW}; ip link add trial0 link below type macvlan",
    "ipvlan": f"{BELOW}; ip link add trial0 link below type ipvlan",
    "vlan": f"{BELOW}; ip link add trial0 link below type vlan id 7",
    "bridge vlan": f"{BELOW}; bridge vlan add vid 7 dev below self",
    "dummy": "ip link add trial0 type dummy",
    "ifb": "ip link add trial0 type ifb",
    "tc tbf": "tc qdisc add dev lo root tbf rate 1mbit burst 2kb latency 50ms",
    "tc htb": "tc qdisc add dev lo root htb",
    "tc netem": "tc qdisc add dev lo root netem delay 1ms",
    "tc ingress": "tc qdisc add dev lo ingress",
    "nftables": "nft 'add table ip t; add chain ip t c { type filter hook forward priority 0; }'",
    "masquerade": "nft 'add table ip t; add chain ip t c { type nat hook postrouting priority 100; };"
    " add rule ip t c masquerade'",
    "numgen": "nft 'add table ip t; add chain ip t c; add rule ip t c meta mark set numgen inc mod 2'",
    "fib": "nft 'add table ip t; add chain ip t c; add rule ip t c fib daddr type local accept'",
    "conntrack": "nft 'add table ip t; add chain ip t c; add rule ip t c ct state established accept'",
    "flowtable": "nft 'add table ip t; add flowtable ip t f { hook ingress priority 0; devices = { lo }; }'",
    "br_netfilter": "test -e /proc/sys/net/bridge/bridge-nf-call-iptables",
    "ipv6": "ip link set lo up; ip -6 address show dev lo | grep -q ::1",
    "packet sockets": f"{sys.executable} -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
}


@pytest.mark.parametrize("name", WITNESSES)
def test_doctor_finds_what_the_tools_of_the_field_find(found: dict[str, str], name: str) -> None:
    assert found[name] == ("yes" if works(WITNESSES[name]) else "no")


def state() -> dict[str, object]:
    def ask(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return {
        "namespace": os.readlink("/proc/self/ns/net"),
        "names": sorted(os.listdir("/run/netns")),
        "links": [link["ifname"] for link in json.loads(ask("ip", "-j", "link"))],
        "qdiscs": ask("tc", "qdisc"),
        "rules": ask("nft", "list", "ruleset"),
        "files": len(os.listdir("/proc/self/fd")),
        "mounts": Path("/proc/self/mountinfo").read_text(encoding="utf-8"),
    }


def test_nothing_is_left_behind() -> None:
    capabilities.probe_all()
    before = state()
    capabilities.probe_all()
    capabilities.require()
    assert state() == before


def test_what_up_checks_takes_milliseconds_of_the_processor() -> None:
    capabilities.require()
    times = []
    for _ in range(9):
        started = time.process_time()
        capabilities.require()
        times.append(time.process_time() - started)
    assert min(times) < 0.02  # 2.2 ms


def test_doctor_exits_with_what_it_says() -> None:
    done = subprocess.run([*PODNET, "doctor", "-o", "json"], capture_output=True, text=True)
    assert done.returncode == (0 if json.loads(done.stdout)["ok"] else 3)


def doctor_after(script: str, *before_podnet: str) -> tuple[int, dict[str, dict[str, object]]]:
    done = in_new_namespace(script, *before_podnet, *PODNET, "doctor", "-o", "json")
    return done.returncode, {each["name"]: each for each in json.loads(done.stdout)["capabilities"]}


@pytest.mark.parametrize(
    ("chain", "found", "detail"),
    [
        ("type filter hook forward priority 0; policy drop;", "no", "policy drop: nft ip fw c"),
        ("type filter hook forward priority 0; policy accept;", "yes", "nothing drops by policy"),
        ("type filter hook input priority 0; policy drop;", "yes", "nothing drops by policy"),
    ],
)
def test_a_firewall_that_drops_what_is_forwarded_is_seen(chain: str, found: str, detail: str) -> None:
    _, rows = doctor_after(f"nft 'add table ip fw; add chain ip fw c {{ {chain} }}'")
    assert (rows["forwarding"]["found"], rows["forwarding"]["detail"]) == (found, detail)


def test_without_the_privilege_doctor_says_so_and_exits_3() -> None:
    code, rows = doctor_after("true", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    assert code == 3
    assert (rows["privileges"]["found"], rows["privileges"]["detail"]) == ("no", "lacks CAP_NET_ADMIN")


@pytest.mark.parametrize(("kind", "detail"), [("ramfs", "on ramfs: "), ("tmpfs", "")])
def test_where_names_of_namespaces_are_no_tmpfs_doctor_says_so(kind: str, detail: str) -> None:
    script = f'mount -t {kind} none /run/netns; exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", *PODNET, "doctor", "-o", "json"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    (said,) = [each for each in json.loads(done.stdout)["capabilities"] if each["name"] == "run"]
    assert (said["found"], said["detail"][: len(detail) or None]) == ("yes", detail)
