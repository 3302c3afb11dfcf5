"""A lab drawn as SVG: nodes with their pods, routers and clients, and the networks that they share."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podnet.model.lab import Lab, Target

__all__ = ["picture"]

_WIDTH, _ROW, _GAP = 190, 15, 16
_MOST_PODS = 12  # of a node, by name; of more there is the number
_ACROSS = 5  # boxes in a row


def picture(lab: Lab) -> str:
    """One box for each node, router and client, in file order, joined by lines to the underlay networks."""
    boxes = [target for target in lab.targets if target.kind != "pod"]
    pods: dict[str, list[Target]] = {}
    for target in lab.of_kind("pod"):
        pods.setdefault(target.node, []).append(target)
    networks = _networks(boxes)
    heights = [_ROW * (3 + min(len(pods.get(box.name, ())), _MOST_PODS + 1)) for box in boxes]
    parts: list[str] = []
    y = 20 + 22 * len(networks)
    for start in range(0, len(boxes), _ACROSS):
        row = boxes[start : start + _ACROSS]
        for at, box in enumerate(row):
            x = 10 + at * (_WIDTH + _GAP)
            parts += _box(box, pods.get(box.name, []), x, y, heights[start + at])
            for line, network in enumerate(networks):
                if network in _of(box):
                    cx = x + _WIDTH / 2 + 9 * (line - len(networks) / 2)
                    parts.append(f'<path d="M{cx} {y} V{14 + 22 * line}" stroke="#bbb" fill="none"/>')
        y += max(heights[start : start + _ACROSS]) + _GAP
    width = 20 + min(len(boxes), _ACROSS) * (_WIDTH + _GAP)
    for line, network in enumerate(networks):
        level = 14 + 22 * line
        parts.insert(0, f'<path d="M10 {level} H{width - 20}" stroke="#888" stroke-width="2"/>')
        parts.append(f'<text x="12" y="{level - 3}" fill="#666">{escape(network)}</text>')
    return f'<svg width="{width}" height="{y}" viewBox="0 0 {width} {y}">{"".join(parts)}</svg>'


def _box(box: Target, pods: list[Target], x: int, y: int, height: int) -> list[str]:
    fill = {"node": "#eef4ff", "router": "#fff4e5", "client": "#f3f3f3"}.get(box.kind, "#fff")
    addresses = ", ".join(str(a.ip) for i in box.interfaces for a in i.addresses if i.name == "eth0")
    lines = [f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{height}" rx="6" fill="{fill}" stroke="#888"/>']
    texts = [(f"{box.kind} {box.name}", "#000"), (addresses, "#555")]
    texts += [(f"{pod.name}  {_first(pod)}", "#1a56b0") for pod in pods[:_MOST_PODS]]
    if len(pods) > _MOST_PODS:
        texts.append((f"and {len(pods) - _MOST_PODS} pods more", "#1a56b0"))
    for number, (text, color) in enumerate(texts, 1):
        lines.append(f'<text x="{x + 8}" y="{y + 3 + _ROW * number}" fill="{color}">{escape(text)}</text>')
    return lines


def _first(target: Target) -> str:
    return next((str(a.ip) for i in target.interfaces for a in i.addresses), "")


def _of(box: Target) -> set[str]:
    return {str(a.network) for i in box.interfaces for a in i.addresses}


def _networks(boxes: list[Target]) -> list[str]:
    """The networks that more than one box stands in; a node's own pod network is drawn by its box."""
    counts: dict[str, int] = {}
    for box in boxes:
        for network in _of(box):
            counts[network] = counts.get(network, 0) + 1
    return [network for network, count in sorted(counts.items()) if count > 1]
