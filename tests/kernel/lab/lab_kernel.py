"""What the kernel says, asked with ip, bridge and nft: nothing of podnet is used here."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

Snapshot = dict[str, list[str]]

# What moves by itself: timers, counters, lifetimes.
_MOVING = {
    "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer", "topology_change", "topology_change_detected",
    "fdb_n_learned", "valid_life_time", "preferred_life_time", "expires", "packets", "bytes", "handle", "cache",
    "hold_timer", "message_age_timer", "forward_delay_timer", "used", "confirmed", "probes", "updated",
}  # fmt: skip
_LOOKS = {
    "links": "ip -j -d link",
    "addresses": "ip -j address",
    "routes": "ip -j -4 route show table all",
    "routes6": "ip -j -6 route show table all",
    "rules": "ip -j -4 rule",
    "rules6": "ip -j -6 rule",
    "neighbours": "ip -j neigh show nud permanent",
    "ports": "bridge -j -d link",
    "nft": "nft -j list ruleset",
}
_SYSCTLS = "cd /proc/sys/net; grep -rs . ipv4/conf ipv6/conf ipv4/ip_forward ipv4/neigh ipv6/neigh core/somaxconn"
_BETWEEN = "-- next --"


def inside(netns: str, *argv: str) -> list[str]:
    """The command line that runs a command in a namespace; the empty name is the machine's own."""
    return ["nsenter", f"--net=/run/netns/{netns}", *argv] if netns else list(argv)


def run(netns: str, *argv: str) -> str:
    done = subprocess.run(inside(netns, *argv), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{argv} in {netns}: {done.stderr}"
    return done.stdout


def ip(netns: str, *arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(run(netns, "ip", "-j", *arguments) or "[]")
    return [row for row in rows if row]


def link(netns: str, name: str) -> dict[str, Any]:
    """A link by its name or altname, with details."""
    return ip(netns, "-d", "link", "show", "dev", name)[0]


def addresses(netns: str, dev: str) -> list[str]:
    """The addresses of a link, link-local ones left out."""
    rows = ip(netns, "address", "show", "dev", dev)
    infos = [info for row in rows for info in row.get("addr_info", []) if info["scope"] != "link"]
    return [f"{info['local']}/{info['prefixlen']}" for info in infos]


def routes(netns: str, family: int = 4) -> dict[str, dict[str, Any]]:
    """The routes that somebody made, by destination; those of the kernel left out."""
    rows = ip(netns, f"-{family}", "route", "show", "table", "all")
    return {row["dst"]: row for row in rows if row.get("protocol") != "kernel"}


def sysctl(netns: str, name: str) -> str:
    return run(netns, "cat", f"/proc/sys/{name}").strip()


def tables(netns: str) -> list[str]:
    rows = json.loads(run(netns, "nft", "-j", "list", "tables"))["nftables"]
    return sorted(f"{row['table']['family']} {row['table']['name']}" for row in rows if "table" in row)


def namespaces() -> set[str]:
    return set(os.listdir("/run/netns"))


def namespaces_of(lab: str) -> list[str]:
    return sorted(name for name in namespaces() if name.startswith(f"{lab}."))


def pairs_with_one_index(lab: str) -> list[str]:
    """Ends of pairs that have the index of the other end: the kernel says late, by up to a second, that they are up."""
    return [
        f"{link['ifname']} in {netns}"
        for netns in namespaces_of(lab)
        for link in ip(netns, "link")
        if link.get("link_index") == link["ifindex"]
    ]


def snapshot(netns: str) -> Snapshot:
    """All that the kernel tells of one namespace, interface indexes and MACs included."""
    script = f"\necho; echo '{_BETWEEN}';\n".join([*_LOOKS.values(), _SYSCTLS])
    parts = run(netns, "sh", "-c", script + "; true").split(f"{_BETWEEN}\n")
    found = {}
    for name, part in zip(_LOOKS, parts[:-1], strict=True):
        value = json.loads(part.strip() or "[]")
        rows = value["nftables"] if isinstance(value, dict) else value
        if name == "ports":
            # bridge(8) looks the index of a veth's other end up here, where it is another link's, or none's.
            rows = [{key: each for key, each in row.items() if key not in {"link", "link_index"}} for row in rows]
        found[name] = sorted(json.dumps(_steady(row), sort_keys=True) for row in rows if row)
    found["sysctls"] = sorted(line for line in parts[-1].splitlines() if "stable_secret" not in line)
    return found


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in value.items() if key not in _MOVING}
    return [_steady(each) for each in value] if isinstance(value, list) else value


def snapshots(lab: str, *others: str) -> dict[str, Snapshot]:
    """Every namespace of a lab, as soon as the kernel has come to rest; ``others`` are namespaces besides."""
    names = [*namespaces_of(lab), *others]
    eventually(lambda: all(at_rest(name) for name in names))
    return {name: snapshot(name) for name in names}


def at_rest(netns: str) -> bool:
    """Whether bridges have seen their ports' carrier, and link-local addresses are there and past detection."""
    links = {row["ifname"]: row for row in ip(netns, "-d", "address") if row["ifname"] != "lo"}
    carrying = {row["master"] for row in links.values() if row["operstate"] == "UP" and "master" in row}
    for name, row in links.items():
        if "UP" not in row["flags"]:
            continue
        if name in carrying and row["operstate"] != "UP":
            return False
        if any(info.get("tentative") for info in row["addr_info"]):
            return False
        local = any(info["family"] == "inet6" and info["scope"] == "link" for info in row["addr_info"])
        if row["operstate"] == "UP" and row.get("inet6_addr_gen_mode") == "eui64" and not local:
            return False
    return True


def differences(before: dict[str, Snapshot], after: dict[str, Snapshot]) -> list[str]:
    """What became other, one line each; empty means that nothing at all did."""
    lines = [f"namespace {name}: {'gone' if name in before else 'new'}" for name in before.keys() ^ after.keys()]
    for name in before.keys() & after.keys():
        for topic, was in before[name].items():
            now = after[name][topic]
            lines += [f"{name} {topic}: was: {line}" for line in was if line not in now]
            lines += [f"{name} {topic}: now: {line}" for line in now if line not in was]
    return lines


def eventually(true: Callable[[], Any], within: float = 30.0) -> Any:
    """The first value that is true; fails after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not (value := true()):
        assert time.monotonic() < deadline, f"not within {within} s: {true}"
        time.sleep(0.02)
    return value
