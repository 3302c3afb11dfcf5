"""The results of the probes as one HTML page that needs nothing else: the topology, the matrix, every check's way."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from podnet.probe.results import Results
from podnet.report.picture import picture
from podnet.report.story import path_line
from podnet.report.text import findings, summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.model.lab import Lab
    from podnet.model.probe import Result

__all__ = ["page"]

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 80em; padding: 0 1em; color: #222; }
pre { background: #f4f4f4; padding: .8em; overflow-x: auto; white-space: pre-wrap; }
canvas { border: 1px solid #ccc; cursor: crosshair; image-rendering: pixelated; }
.good { color: #1a7f37; } .bad { color: #cf222e; } .doubt { color: #9a6700; }
#where { min-height: 1.5em; color: #666; } th, td { text-align: left; padding: .1em .8em .1em 0; vertical-align: top; }
svg text { font: 11px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd; } pre { background: #222; }
  svg { filter: invert(.9) hue-rotate(180deg); } }
"""

_SCRIPT = """
const d = JSON.parse(document.getElementById('data').textContent);
const cells = new Map();
d.results.forEach(r => { const k = r[0] * 65536 + r[1]; (cells.get(k) || cells.set(k, []).get(k)).push(r); });
const rows = [...new Set(d.results.map(r => r[0]))].sort((a, b) => a - b);
const columns = [...new Set(d.results.map(r => r[1]))].sort((a, b) => a - b);
const size = Math.max(3, Math.min(24, Math.floor(1000 / Math.max(columns.length, 1))));
const canvas = document.getElementById('matrix'), pen = canvas.getContext('2d');
canvas.width = columns.length * size; canvas.height = rows.length * size;
const gap = size > 5 ? 1 : 0;
rows.forEach((s, y) => columns.forEach((t, x) => {
  const all = cells.get(s * 65536 + t);
  if (!all) return;
  const broken = all.filter(r => !r[3]), doubt = broken.length && broken.every(r => d.words[r[4]] === 'unproven');
  pen.fillStyle = !broken.length ? '#2da44e' : doubt ? '#d4a72c' : '#cf222e';
  pen.fillRect(x * size, y * size, size - gap, size - gap);
}));
const at = e => { const b = canvas.getBoundingClientRect();
  return [rows[Math.floor((e.clientY - b.top) / size)], columns[Math.floor((e.clientX - b.left) / size)]]; };
canvas.onmousemove = e => { const [s, t] = at(e);
  document.getElementById('where').textContent = s === undefined || t === undefined ? '' :
    d.names[s] + ' \\u2192 ' + d.names[t]; };
function show(s, t) {
  const box = document.getElementById('pair'); box.replaceChildren();
  const title = document.createElement('h3'); box.append(title);
  title.textContent = d.names[s] + ' \\u2192 ' + d.names[t];
  const table = document.createElement('table'); box.append(table);
  (cells.get(s * 65536 + t) || []).forEach(r => {
    const row = table.insertRow(), said = d.words[r[6]], way = d.words[r[8]];
    row.className = r[3] ? 'good' : d.words[r[4]] === 'unproven' ? 'doubt' : 'bad';
    [d.kinds[r[2]], r[3] ? 'ok' : 'FAIL', d.words[r[4]] + (said ? ' (' + said + ')' : ''),
     r[5] === null ? '' : r[5] + ' ms', r[7] ? 'seen as ' + d.words[r[7]] : '', way]
      .forEach(text => { row.insertCell().textContent = text; });
  });
}
canvas.onclick = e => { const [s, t] = at(e); if (s !== undefined && t !== undefined) show(s, t); };
const first = d.results.find(r => !r[3]); if (first) show(first[0], first[1]);
"""


def page(lab: Lab, results: Sequence[Result], when: str) -> str:
    """The page; ``when`` is the time of the run in words."""
    failed = findings(lab, results)
    data = json.dumps(_data(lab, results), separators=(",", ":")).replace("</", "<\\/")
    return (
        "<!DOCTYPE html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>podnet test: {escape(lab.name)}</title>'
        f"<style>{_STYLE}</style></head><body>\n"
        f"<h1>{escape(lab.name)}</h1>\n<p>{escape(when)}: <b>{escape(summary(results))}</b></p>\n"
        f"{picture(lab)}\n"
        + (f"<h2>What failed</h2>\n<pre>{escape(failed)}</pre>\n" if failed else "")
        + "<h2>Matrix</h2>\n<p>Senders down, receivers across; click a cell for its checks"
        " (with <code>--paths</code>, for its way).</p>\n"
        '<div id="where"></div><canvas id="matrix"></canvas><div id="pair"></div>\n'
        f'<script type="application/json" id="data">{data}</script>\n'
        f"<script>{_SCRIPT}</script>\n</body></html>\n"
    )


def _data(lab: Lab, results: Sequence[Result]) -> dict[str, Any]:
    """Everything by number; a row is sender, receiver, kind, passed, observed, ms, detail, address seen, way."""
    names = {target.name: number for number, target in enumerate(lab.targets)}
    words: dict[str, int] = {"": 0}
    kinds: dict[str, int] = {}
    rows: list[list[object]] = []
    for index, result in enumerate(results):
        check = result.check
        kind = f"{check.protocol}{f'/{check.port}' if check.port else ''} ipv{check.version}, {check.verdict}"
        way = ""
        if isinstance(results, Results) and results.paths is not None:
            way = path_line(results.paths.of(index))
        rows.append(
            [
                names[check.source],
                names[check.target],
                kinds.setdefault(kind, len(kinds)),
                int(result.passed),
                words.setdefault(result.observed, len(words)),
                None if result.rtt_ms is None else round(result.rtt_ms, 3),
                words.setdefault(result.detail, len(words)),
                words.setdefault(result.source_seen, len(words)),
                words.setdefault(way, len(words)),
            ]
        )
    return {"names": list(names), "kinds": list(kinds), "words": list(words), "results": rows}
