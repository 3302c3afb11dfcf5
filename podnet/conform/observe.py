"""What a network namespace and the state directories hold, as lines of text that can be compared.

The lines come from tools that no plugin under test controls: ``ip``, ``tc``, ``nft`` and ``iptables-save``. What
changes by itself (counters, handles, link-local addresses, operational state) is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Snapshot", "added", "files_below", "firewall", "ip_json", "lost", "observe", "run_tool"]

_SAVERS = {
    "iptables-nft-save": "ip",
    "ip6tables-nft-save": "ip6",
    "iptables-legacy-save": "",
    "ip6tables-legacy-save": "",
}
_MOVING = {"handle", "packets", "bytes", "index", "expires", "metainfo"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Lines by topic: ``links``, ``addresses``, ``routes``, ``firewall``, ``shaping``, ``files``."""

    topics: Mapping[str, Counter[str]]

    def lines(self, *topics: str) -> set[str]:
        """The lines of some topics (of all, if none is named)."""
        return {line for topic in topics or self.topics for line in self.topics[topic]}


def added(before: Snapshot, after: Snapshot, *topics: str) -> list[str]:
    """What is there now and was not before, one ``topic: line`` each."""
    return [
        f"{topic}: {line}"
        for topic in topics or after.topics
        for line in sorted((after.topics[topic] - before.topics[topic]).elements())
    ]


def lost(before: Snapshot, after: Snapshot, *topics: str) -> list[str]:
    """What was there before and is not any more."""
    return added(after, before, *topics)


def observe(
    namespace: str = "",
    *,
    folders: Iterable[str] = (),
    skip: Iterable[str] = (),
    owns: Callable[[str, str], bool] | None = None,
) -> Snapshot:
    """Look at a namespace (a name under ``/run/netns``, empty for the caller's own).

    ``owns(path, content)`` chooses which files below ``folders`` count; what is below ``skip`` is not read.
    """
    links = ip_json(namespace, "-d", "link")
    return Snapshot({
        "links": Counter(_link(each) for each in links),
        "addresses": Counter(_addresses(ip_json(namespace, "addr"))),
        "routes": Counter(_routes(namespace)),
        "firewall": Counter(firewall(namespace)),
        "shaping": Counter(_shaping(namespace)),
        "files": Counter(files_below(folders, skip, owns)),
    })  # fmt: skip


def run_tool(argv: list[str], namespace: str = "") -> subprocess.CompletedProcess[str]:
    """Run a tool in a namespace; its exit code is the caller's to judge."""
    if namespace and argv[0] in {"ip", "tc"}:
        argv = [argv[0], "-n", namespace, *argv[1:]]
    elif namespace:
        argv = ["ip", "netns", "exec", namespace, *argv]
    return subprocess.run(argv, capture_output=True, text=True, check=False, errors="replace")


def ip_json(namespace: str, *arguments: str) -> list[dict[str, Any]]:
    """What ``ip -j`` prints; empty where it prints nothing."""
    done = run_tool(["ip", "-j", *arguments], namespace)
    rows = json.loads(done.stdout) if done.stdout.strip() else []
    return [row for row in rows if row]


def _link(row: dict[str, Any]) -> str:
    kind = row.get("linkinfo", {}).get("info_kind", row.get("link_type", ""))
    parts = [row["ifname"], kind, f"mtu {row['mtu']}"]
    if "master" in row:
        parts.append(f"master {row['master']}")
    if "UP" in row["flags"]:
        parts.append("up")
    if row.get("promiscuity") and "PROMISC" in row["flags"]:
        parts.append("promisc")
    if "ALLMULTI" in row["flags"]:
        parts.append("allmulti")
    parts.append(f"txqlen {row.get('txqlen', 0)}")
    # A bridge without a fixed address takes its ports': that is the kernel's doing.
    if kind != "bridge":
        parts.append(row.get("address", ""))
    return " ".join(parts)


def _addresses(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"{row['ifname']} {each['local']}/{each['prefixlen']}"
        for row in rows
        for each in row.get("addr_info", [])
        if "local" in each and each.get("scope") != "link"
    ]


def _routes(namespace: str) -> list[str]:
    rows = ip_json(namespace, "-4", "route", "show", "table", "all")
    rows += ip_json(namespace, "-6", "route", "show", "table", "all")
    lines = []
    for row in rows:
        dst = row["dst"]
        if dst.startswith(("fe80:", "ff00:")) or row.get("type") in {"anycast", "multicast"}:
            continue
        parts = [
            row.get("type", "unicast"),
            dst,
            *(f"{key} {row[key]}" for key in ("gateway", "dev", "table") if key in row),
        ]
        lines.append(" ".join(parts))
    return lines


def _shaping(namespace: str) -> list[str]:
    if shutil.which("tc") is None:
        return []
    done = run_tool(["tc", "-j", "qdisc", "show"], namespace)
    rows = json.loads(done.stdout) if done.stdout.strip() else []
    return [
        f"{row['dev']} {row['kind']} {json.dumps(row.get('options', {}), sort_keys=True)}"
        for row in rows
        if row["kind"] not in {"noqueue", "pfifo_fast", "fq_codel", "mq"}
    ]


def firewall(namespace: str = "") -> list[str]:
    """Every rule, chain and set element, of nftables and of both iptables."""
    lines, covered = [], set()
    for tool, family in _SAVERS.items():
        if shutil.which(tool) is None:
            continue
        table = ""
        for line in run_tool([tool], namespace).stdout.splitlines():
            if line.startswith("*"):
                table = line[1:]
                covered.add((family, table))
            elif line.startswith("-A"):
                lines.append(f"{tool.removesuffix('-save')} {table} {line}")
            elif line.startswith(":") and " - " in line:  # a chain that is no hook of the kernel
                lines.append(f"{tool.removesuffix('-save')} {table} {line.split()[0]}")
    if shutil.which("nft"):
        done = run_tool(["nft", "-j", "list", "ruleset"], namespace)
        rows = json.loads(done.stdout)["nftables"] if done.stdout.strip() else []
        for row in rows:
            ((what, body),) = row.items()
            if what != "metainfo" and (body.get("family"), body.get("table", body.get("name"))) not in covered:
                lines += _nft(what, body)
    return lines


def _nft(what: str, body: dict[str, Any]) -> list[str]:
    where = " ".join(str(body[key]) for key in ("family", "table", "chain", "name") if key in body)
    if what == "rule":
        comment = f" # {body['comment']}" if "comment" in body else ""
        return [f"nft rule {where} {json.dumps(_steady(body['expr']), sort_keys=True)}{comment}"]
    lines = [f"nft {what} {where}"]
    lines += [f"nft element {where} {json.dumps(_steady(each), sort_keys=True)}" for each in body.get("elem", [])]
    return lines


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in value.items() if key not in _MOVING}
    return [_steady(each) for each in value] if isinstance(value, list) else value


def files_below(
    folders: Iterable[str], skip: Iterable[str] = (), owns: Callable[[str, str], bool] | None = None
) -> list[str]:
    """The regular files below some directories but not below others, as paths; ``owns`` by path and content."""
    left_out = set(skip)
    found = []
    for folder in folders:
        for root, below, names in os.walk(folder):
            below[:] = [each for each in below if os.path.join(root, each) not in left_out]
            for name in names:
                path = os.path.join(root, name)
                if os.path.isfile(path) and (owns is None or owns(path, _content(path))):
                    found.append(path)
    return found


def _content(path: str) -> str:
    try:
        with open(path, errors="replace", encoding="utf-8") as file:
            return file.read(65536)
    except FileNotFoundError:  # it went away while we looked
        return ""
