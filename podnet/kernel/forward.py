"""iptables' own chain FORWARD: one rule in it that accepts what bears a mark.

An accept in one nftables chain does not hold against a drop in another, and iptables' tables are such others: those
of iptables-nft, which nft can change as well (iptables lists and deletes the rule as one of its own), and those of
iptables-legacy, which only iptables-legacy can.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from podnet.errors import KernelError
from podnet.kernel import nft

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["let_pass", "passes", "stop_passing"]

_COMMENT = "podnet firewall"
_FAMILIES = {4: ("ip", "/proc/thread-self/net/ip_tables_names"), 6: ("ip6", "/proc/thread-self/net/ip6_tables_names")}
_TOOLS = {4: "iptables-legacy", 6: "ip6tables-legacy"}


def passes(family: int, mark: int) -> bool | None:
    """Whether FORWARD of a family (4 or 6) has the rule; ``None`` where iptables has no such chain."""
    rules = _rules(family)
    legacy = _legacy(family)
    if rules is None and not legacy:
        return None
    return (rules is None or any(_own(rules))) and (not legacy or _run_legacy(family, "-C", mark))


def let_pass(family: int, mark: int) -> None:
    """Put the rule in front, where it is missing. Raises ``KernelError``."""
    rules = _rules(family)
    if rules is not None and not any(_own(rules)):
        match = f"meta mark and {mark:#x} == {mark:#x} counter accept"
        nft.run("", f'insert rule {_FAMILIES[family][0]} filter FORWARD {match} comment "{_COMMENT}"\n')
    if _legacy(family) and not _run_legacy(family, "-C", mark) and not _run_legacy(family, "-I", mark):
        msg = f"{_TOOLS[family]} cannot insert a rule into its chain FORWARD"
        raise KernelError(msg)


def stop_passing(family: int, mark: int) -> None:
    """Delete the rule, as often as it is there. Raises ``KernelError``."""
    rules = _rules(family)
    for handle in _own(rules) if rules is not None else ():
        nft.run("", f"delete rule {_FAMILIES[family][0]} filter FORWARD handle {handle}\n")
    while _legacy(family) and _run_legacy(family, "-D", mark):
        pass


def _rules(family: int) -> list[Any] | None:
    try:
        listed = nft.run("", f"list chain {_FAMILIES[family][0]} filter FORWARD\n", as_json=True)
    except KernelError:
        return None
    rows = json.loads(listed)["nftables"]
    chain: dict[str, Any] = next((row["chain"] for row in rows if "chain" in row), {})
    return [row["rule"] for row in rows if "rule" in row] if chain.get("hook") == "forward" else None


def _own(rules: list[Any]) -> Iterator[int]:
    return (each["handle"] for each in rules if each.get("comment") == _COMMENT)


def _legacy(family: int) -> bool:
    """Whether iptables-legacy has a filter table here: the kernel says so, without a tool."""
    try:
        with open(_FAMILIES[family][1], encoding="ascii") as file:
            return "filter" in file.read().split()
    except FileNotFoundError:
        return False


def _run_legacy(family: int, verb: str, mark: int) -> bool:
    import subprocess

    rule = ["-m", "mark", "--mark", f"{mark:#x}/{mark:#x}", "-m", "comment", "--comment", _COMMENT, "-j", "ACCEPT"]
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    try:
        done = subprocess.run(
            [_TOOLS[family], "-w", "5", verb, "FORWARD", *rule],
            env={"PATH": path}, capture_output=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        msg = f"tables of iptables-legacy may drop what is forwarded, and {_TOOLS[family]}, which could see, is missing"
        raise KernelError(msg) from None
    return done.returncode == 0
