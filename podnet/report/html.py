"""The results of the probes as one HTML page that needs nothing else: the topology, the matrix, every check's way."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from podnet.probe.results import Results
from podnet.report.blame import key_of
from podnet.report.picture import picture
from podnet.report.story import path_line
from podnet.report.text import findings, summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podnet.model.lab import Lab
    from podnet.model.probe import Result
    from podnet.report.blame import Blame

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light dark; --good: #1a7f37; --bad: #cf222e; --doubt: #9a6700; --soft: #59636e; --line: #d1d9e0;
  --back: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --bad: #f85149; --doubt: #d29922; --soft: #9198a1;
  --line: #3d444d; --back: #151b23; } }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 80em; padding: 0 1em; }
pre, code { background: var(--back); } code { padding: .1em .3em; border-radius: 3px; }
pre { padding: .8em; overflow-x: auto; white-space: pre-wrap; }
.scroll { overflow: auto; max-height: 90vh; }
canvas { cursor: crosshair; display: block; }
.good { color: var(--good); } .bad { color: var(--bad); } .doubt { color: var(--doubt); }
#where { min-height: 1.5em; color: var(--soft); }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .2em 1em .2em 0; vertical-align: top; }
.causes td { border-top: 1px solid var(--line); } .causes tr { cursor: pointer; }
.why td { color: var(--soft); padding-left: 1em; } svg { max-width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { svg { filter: invert(.9) hue-rotate(180deg); } }
"""

_SCRIPT = """
const d = JSON.parse(document.getElementById('data').textContent);
const cells = new Map();
d.results.forEach(r => { const k = r[0] * 65536 + r[1]; (cells.get(k) || cells.set(k, []).get(k)).push(r); });
const rows = [...new Set(d.results.map(r => r[0]))].sort((a, b) => a - b);
const columns = [...new Set(d.results.map(r => r[1]))].sort((a, b) => a - b);
const size = Math.max(3, Math.min(24, Math.floor(1000 / Math.max(columns.length, 1))));
const canvas = document.getElementById('matrix'), pen = canvas.getContext('2d');
const dark = matchMedia('(prefers-color-scheme: dark)'), ratio = window.devicePixelRatio || 1;
const named = size >= 8, font = (size < 12 ? 9 : 11) + 'px system-ui, sans-serif';
pen.font = font;
const widths = [...rows, ...columns].map(n => pen.measureText(d.names[n]).width);
const margin = named ? 8 + Math.ceil(Math.max(...widths)) : 0;
let chosen = null, only = null;
function draw() {
  const width = margin + columns.length * size, height = margin + rows.length * size, gap = size > 5 ? 1 : 0;
  canvas.width = width * ratio; canvas.height = height * ratio;
  canvas.style.width = width + 'px'; canvas.style.height = height + 'px';
  pen.scale(ratio, ratio);
  pen.font = font; pen.fillStyle = dark.matches ? '#d1d7e0' : '#1f2328'; pen.textBaseline = 'middle';
  if (named) {
    rows.forEach((s, y) => { pen.textAlign = 'right';
      pen.fillText(d.names[s], margin - 4, margin + y * size + size / 2); });
    columns.forEach((t, x) => { pen.save(); pen.translate(margin + x * size + size / 2, margin - 4);
      pen.rotate(-Math.PI / 2); pen.textAlign = 'left'; pen.fillText(d.names[t], 0, 0); pen.restore(); });
  }
  rows.forEach((s, y) => columns.forEach((t, x) => {
    const all = cells.get(s * 65536 + t);
    if (!all) return;
    const broken = all.filter(r => !r[3]), doubt = broken.length && broken.every(r => d.words[r[4]] === 'unproven');
    pen.fillStyle = !broken.length ? '#2da44e' : doubt ? '#d4a72c' : '#cf222e';
    pen.globalAlpha = only === null || broken.some(r => r[9] === only) ? 1 : .25;
    pen.fillRect(margin + x * size, margin + y * size, size - gap, size - gap);
    pen.globalAlpha = 1;
  }));
  if (chosen) {
    const y = rows.indexOf(chosen[0]), x = columns.indexOf(chosen[1]);
    pen.strokeStyle = dark.matches ? '#fff' : '#000'; pen.lineWidth = 2;
    pen.strokeRect(margin + x * size, margin + y * size, size - gap, size - gap);
  }
}
dark.onchange = draw;
const at = e => { const b = canvas.getBoundingClientRect();
  return [rows[Math.floor((e.clientY - b.top - margin) / size)],
          columns[Math.floor((e.clientX - b.left - margin) / size)]]; };
const where = document.getElementById('where');
canvas.onmousemove = e => { const [s, t] = at(e);
  where.textContent = s === undefined || t === undefined ? '' : d.names[s] + ' \\u2192 ' + d.names[t]; };
canvas.onmouseleave = () => { where.textContent = ''; };
function line(table, name, text, code) {
  if (!text) return;
  const row = table.insertRow(); row.className = 'why';
  row.insertCell().textContent = name;
  const cell = row.insertCell(); cell.colSpan = 5;
  if (code) { const box = document.createElement('code'); box.textContent = text; cell.append(box); }
  else cell.textContent = text;
}
function show(s, t) {
  chosen = [s, t]; draw();
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
    const why = d.causes[r[9]];
    if (why) {
      line(table, 'why', why.text + ' [' + why.kind + ']');
      why.evidence.forEach(text => line(table, 'evidence', text));
    }
    line(table, 'last seen', d.words[r[10]]);
    line(table, 'kernel', d.words[r[11]]);
    line(table, 'note', d.words[r[12]]);
    if (why) { line(table, 'see', why.show, true); line(table, 'mend', why.mend, true); }
  });
}
canvas.onclick = e => { const [s, t] = at(e); if (s !== undefined && t !== undefined) show(s, t); };
document.querySelectorAll('.causes tr[data-cause]').forEach(row => row.onclick = () => {
  const cause = Number(row.dataset.cause);
  only = only === cause ? null : cause;
  const first = d.results.find(r => !r[3] && r[9] === cause);
  if (first) show(first[0], first[1]); else draw();
});
draw();
const first = d.results.find(r => !r[3]); if (first) show(first[0], first[1]);
"""


def page(lab: Lab, results: Sequence[Result], when: str, blame: Blame | None = None) -> str:
    """The page; ``when`` is the time of the run in words, ``blame`` what is known of the causes of failures."""
    failed = findings(lab, results, blame=blame)
    data = json.dumps(_data(lab, results, blame), separators=(",", ":")).replace("</", "<\\/")
    return (
        "<!DOCTYPE html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>podnet test: {escape(lab.name)}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style></head><body>\n"
        f"<h1>{escape(lab.name)}</h1>\n<p>{escape(when)}: <b>{escape(summary(results))}</b></p>\n"
        + (_causes(blame) if blame is not None and blame.causes else "")
        + f'<div class="scroll">{picture(lab)}</div>\n'
        + (f"<h2>What failed</h2>\n<pre>{escape(failed)}</pre>\n" if failed else "")
        + "<h2>Matrix</h2>\n<p>Senders down, receivers across; click a cell for its checks"
        " (with <code>--paths</code>, for its way).</p>\n"
        '<div id="where"></div><div class="scroll"><canvas id="matrix"></canvas></div><div id="pair"></div>\n'
        f'<script type="application/json" id="data">{data}</script>\n'
        f"<script>{_SCRIPT}</script>\n</body></html>\n"
    )


def _causes(blame: Blame) -> str:
    """One row for each cause, those first that broke most."""
    rows = [
        f'<tr data-cause="{number}"><td class="bad">{each.failures}</td><td>{escape(each.place)}</td>'
        f"<td>{escape(each.cause.text)} [{escape(each.cause.kind)}]</td>"
        f"<td>{f'<code>{escape(each.cause.mend)}</code>' if each.cause.mend else ''}</td></tr>\n"
        for number, each in enumerate(blame.causes)
    ]
    return (
        '<h2>Causes</h2>\n<table class="causes"><tr><th>failures</th><th>where</th><th>why</th><th>mend</th></tr>\n'
        f"{''.join(rows)}</table>\n<p>Click a cause to see which cells have it.</p>\n"
    )


def _data(lab: Lab, results: Sequence[Result], blame: Blame | None) -> dict[str, Any]:
    """Everything by number.

    A row is sender, receiver, kind, passed, observed, ms, detail, address seen, way; cause, last seen, the kernel's
    reasons, note.
    """
    names = {target.name: number for number, target in enumerate(lab.targets)}
    causes = {key_of(each.cause): number for number, each in enumerate(blame.causes if blame is not None else ())}
    words: dict[str, int] = {"": 0}
    kinds: dict[str, int] = {}
    rows: list[list[object]] = []
    for index, result in enumerate(results):
        check = result.check
        kind = f"{check.protocol}{f'/{check.port}' if check.port else ''} ipv{check.version}, {check.verdict}"
        way = ""
        if isinstance(results, Results) and results.paths is not None:
            way = path_line(results.paths.of(index))
        row: list[object] = [
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
        if blame is not None and not result.passed:
            cause, facts = blame.cause(result), blame.facts(result)
            told = (facts.get("last seen", ""), facts.get("kernel", ""), facts.get("note", ""))
            row.append(causes[key_of(cause)] if cause is not None else None)
            row += [words.setdefault(t if isinstance(t, str) else ", ".join(t), len(words)) for t in told]
        rows.append(row)
    told_causes = [
        {"text": c.text, "kind": c.kind, "evidence": list(c.evidence), "show": c.show, "mend": c.mend}
        for c in (each.cause for each in (blame.causes if blame is not None else ()))
    ]
    return {"names": list(names), "kinds": list(kinds), "words": list(words), "causes": told_causes, "results": rows}
