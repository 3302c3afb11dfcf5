"""The largest packet of each pair, for people and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.model.lab import Lab
    from podnet.probe.pmtu import Largest

__all__ = ["document", "sizes"]

_MOST = 6


def sizes(found: Sequence[Largest]) -> str:
    """One line for each size and limit with the pairs that it is of, black holes first."""
    groups: dict[tuple[bool, int, str, str], list[Largest]] = {}
    for one in found:
        limit = f"limit of {one.limit}" if one.limit else ""
        if one.black_hole:
            limit = "BLACK HOLE: larger ones vanish, and no ICMP error says so"
        groups.setdefault((not one.black_hole, one.size, limit, one.failure), []).append(one)
    lines = []
    for (_, size, limit, failure), some in sorted(groups.items()):
        pairs = [f"{one.source} -> {one.target}" for one in some]
        more = f" and {len(pairs) - _MOST} more" if len(pairs) > _MOST else ""
        versions = " ".join(f"ipv{v}" for v in sorted({one.version for one in some}))
        what = f"FAIL {failure}" if failure else f"{size:5} bytes{f' ({limit})' if limit else ''}"
        lines.append(f"{what}, {len(pairs)} pairs {versions}: {', '.join(pairs[:_MOST])}{more}")
    holes, failed = sum(one.black_hole for one in found), sum(bool(one.failure) for one in found)
    lines += ["", f"{len(found)} pairs, {holes} black holes, {failed} failed"]
    return "\n".join(lines)


def document(lab: Lab, found: Sequence[Largest]) -> dict[str, Any]:
    """What ``podnet test --pmtu -o json`` prints; sizes are bytes of the IP packet."""
    return {
        "lab": lab.name,
        "largest": [
            {
                "from": one.source,
                "to": one.target,
                "family": f"ipv{one.version}",
                "bytes": one.size or None,
                "limit": one.limit or None,
                "own_interface": one.local,
                "black_hole": one.black_hole,
                "failure": one.failure,
            }
            for one in found
        ],
    }
