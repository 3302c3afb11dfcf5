"""Actions and looks carried out: the one place of this room that touches the kernel."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from podnet.errors import CapabilityError, KernelError
from podnet.kernel import netns as namespaces
from podnet.kernel import nft, sysctl
from podnet.kernel.objects import Process
from podnet.kernel.schedule import Op
from podnet.lab.rows import from_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podnet.fault.step import Row
    from podnet.kernel.linux import LinuxKernel
    from podnet.kernel.objects import State
    from podnet.kernel.process import Supervisor

__all__ = ["Hands"]

# What moves by itself in the answers of ip(8).
_MOVING = {"valid_life_time", "preferred_life_time", "expires", "used", "cache", "cacheinfo", "tentative", "flags",
           "operstate", "pref", "qdisc", "ifindex", "link_index"}  # fmt: skip


class Hands:
    """What faults are done and undone with."""

    def __init__(self, wanted: State, kernel: LinuxKernel, supervisor: Supervisor) -> None:
        self._wanted, self._kernel, self._supervisor = wanted, kernel, supervisor

    def do(self, action: Row) -> None:
        """Carry one action out. Raises ``KernelError`` with what the kernel or the tool said."""
        kind, *rest = action
        if kind == "run":
            netns, text, *words = rest
            done = _run(netns, words, text)
            if done.returncode:
                msg = f"'{' '.join(words)}' in {netns}: {done.stderr.strip() or f'exit code {done.returncode}'}"
                raise KernelError(msg)
        elif kind == "op":
            verb, row = rest
            (each,) = from_rows([row]).values()
            self._kernel.apply([Op(verb, each)])
        elif kind == "stop":
            self._supervisor.stop(rest)
        else:
            self._supervisor.start([p for p in self._wanted.values() if isinstance(p, Process) and p.name in rest])

    def forget_paths(self, names: Iterable[str]) -> None:
        """Let namespaces forget the path MTUs that they learned from ICMP errors: they would outlive their cause."""
        for netns in names:
            if namespaces.exists(netns):
                for family in ("-4", "-6"):
                    # IPv6's net.ipv6.route.flush keeps them (Linux 6.18); this deletes them one by one.
                    _run(netns, ["ip", family, "route", "flush", "cache"])

    def look(self, looks: Iterable[Row]) -> list[str]:
        """What each look shows, as text that is the same as long as the thing is; empty where it is not there."""
        return [self._look(*look) for look in looks]

    def _look(self, kind: str, *words: str) -> str:
        if kind == "containers":
            running = {s.process.name for s in self._supervisor.observe() if s.state == "running"}
            return " ".join(f"{name}={'runs' if name in running else 'ended'}" for name in words)
        netns, *rest = words
        if netns and not namespaces.exists(netns):
            return ""
        if kind == "sysctl":
            return "".join(each.value for each in sysctl.read([(netns, rest[0])]))
        if kind == "nft":
            family, table = rest
            if (family, table) not in nft.list_tables(netns):
                return ""
            return nft.list_ruleset(netns, family, table)
        if kind == "link":
            rows = _json(netns, ["ip", "-j", "-d", "link", "show", "dev", *rest])
            return json.dumps([_link(row) for row in rows])
        if kind == "fdb":
            dev, mac = rest
            rows = [row for row in _json(netns, ["bridge", "-j", "fdb", "show", "dev", dev]) if row.get("mac") == mac]
            return json.dumps([sorted(row.get("flags", [])) for row in rows if row.get("state") == "static"])
        return json.dumps([_steady(row) for row in _json(netns, ["ip", "-j", *rest]) if row], sort_keys=True)


def _run(netns: str, words: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        with namespaces.entered(netns):
            return subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        msg = f"{words[0]} is not here: apt-get install iproute2 nftables procps"
        raise CapabilityError(msg) from None


def _json(netns: str, words: list[str]) -> list[dict[str, Any]]:
    done = _run(netns, words)
    if done.returncode or not done.stdout.strip():
        return []
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in value.items() if key not in _MOVING}
    return [_steady(each) for each in value if each != {}] if isinstance(value, list) else value


def _link(row: dict[str, Any]) -> list[Any]:
    port = row.get("linkinfo", {}).get("info_slave_data", {})
    # A port that is down is disabled, and forwards a moment after it came up: what of its state was set by hand?
    running = {"UP", "LOWER_UP"} <= set(row["flags"])
    state = "disabled" if running and port.get("state") == "disabled" else ""
    flags = [port.get("hairpin"), port.get("isolated"), state]
    return [row["ifname"], "UP" in row["flags"], row["mtu"], row.get("address"), row.get("master"), *flags]
