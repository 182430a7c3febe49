"""The report as one HTML page without scripts: tables, and the funnel as an inline drawing. The figures lie beside it as JSON."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, StrictUndefined

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ r.name }}: build report</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<style>
 body { font: 15px/1.5 system-ui, sans-serif; color: #1c2530; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
 h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
 table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
 th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #dde3ea; vertical-align: top }
 th.n, td.n { text-align: right } td.p { overflow-wrap: anywhere } caption { text-align: left; color: #5a6877; padding: .3rem 0 }
 .facts { display: flex; flex-wrap: wrap; gap: 1.6rem; margin: 1rem 0 } .facts b { display: block; font-size: 1.35rem }
 details { margin: .3rem 0 } code { font-size: .9em } svg text { font: 12px system-ui, sans-serif; fill: #1c2530 }
</style></head><body>
<h1>{{ r.name }}</h1>
<p>What was built, and what became of every file that was read. Recipe <code>{{ r.recipe_digest[:16] }}</code>,
 plan <code>{{ r.plan[:16] }}</code>, seed {{ r.seed }}, stackbuild {{ r.stackbuild }}.</p>
<div class="facts">
 <div><b>{{ r.files | n }}</b>files</div><div><b>{{ r.bytes | mb }} MB</b>of text</div>
 <div><b>{{ r.repositories | n }}</b>repositories</div><div><b>{{ r.languages | length }}</b>languages</div>
 {% if r.tokens %}<div><b>{{ r.tokens.tokens | n }}</b>tokens in {{ r.tokens.documents | n }} documents</div>{% endif %}
</div>

<h2>The funnel</h2>
<svg role="img" aria-label="Files that each stage passed on" width="100%" viewBox="0 0 900 {{ bars | length * 26 + 8 }}">
{% for bar in bars %}<g transform="translate(0 {{ loop.index0 * 26 + 4 }})"><text x="0" y="15">{{ bar.stage }}</text>
<rect x="150" y="2" width="{{ bar.before }}" height="18" fill="#dde3ea"></rect><rect x="150" y="2" width="{{ bar.after }}" height="18" fill="#3b74b8"></rect>
<text x="{{ 158 + bar.before }}" y="15">{{ bar.files | n }}</text></g>
{% endfor %}</svg>
<table><caption>Files in − merged − dropped − quarantined = files out, for every stage; the build fails if it does not add up.</caption>
<tr><th>stage<th class="n">files in<th class="n">merged<th class="n">dropped<th class="n">quarantined<th class="n">files out<th class="n">MB in<th class="n">MB out</tr>
{% for s in r.funnel %}<tr><td>{{ s.stage }}<td class="n">{{ s.rows_in | n }}<td class="n">{{ s.merged | n }}<td class="n">{{ s.dropped | n }}
<td class="n">{{ s.quarantined | n }}<td class="n">{{ s.rows_out | n }}<td class="n">{{ s.bytes_in | mb }}<td class="n">{{ s.bytes_out | mb }}</tr>
{% endfor %}</table>

<h2>What left, rule by rule</h2>
<table><tr><th>stage<th>rule<th class="n">files<th class="n">MB<th class="n">of the stage's files</tr>
{% for s in r.funnel %}{% for rule, c in s.rules.items() %}<tr><td>{{ s.stage }}<td>{{ rule }}<td class="n">{{ c.rows | n }}<td class="n">{{ c.bytes | mb }}
<td class="n">{{ "%.2f" % (100 * c.rows / s.rows_in if s.rows_in else 0) }} %</tr>
{% endfor %}{% endfor %}</table>
{% for name, rows in r.examples.items() %}<details><summary>{{ name }}: examples</summary><table>
<tr><th>repository<th>path<th class="n">value<th class="n">limit<th>detail</tr>
{% for row in rows %}<tr><td class="p">{{ row.repo_name | shown }}<td class="p">{{ row.path | shown }}<td class="n">{{ row.value | g }}<td class="n">{{ row.threshold | g }}
<td class="p">{{ (row.detail or "") | shown }}</tr>
{% endfor %}</table></details>{% endfor %}

<h2>Languages</h2>
{% if r.language_counts %}<p>{{ r.language_counts.mapped | n }} could have been named; {{ r.language_counts.with_files | n }} had a file;
 {{ r.language_counts.after_filters | n }} have one here.</p>
{% endif %}<table><tr><th>language<th class="n">files<th class="n">MB<th class="n">share of bytes</tr>
{% for row in r.languages %}<tr><td>{{ row.language }}<td class="n">{{ row.files | n }}<td class="n">{{ row.bytes | mb }}
<td class="n">{{ "%.2f" % (100 * row.bytes / r.bytes if r.bytes else 0) }} %</tr>
{% endfor %}</table>

<h2>Licences</h2>
<table><tr><th>license_type<th>license_class<th class="n">files<th class="n">MB</tr>
{% for row in r.licenses %}<tr><td>{{ row.license_type }}<td>{{ row.license_class }}<td class="n">{{ row.files | n }}<td class="n">{{ row.bytes | mb }}</tr>
{% endfor %}</table>
<details><summary>detected licences that apply to released files</summary><table><tr><th>licence<th class="n">files</tr>
{% for row in r.detected %}<tr><td>{{ row.license | shown }}<td class="n">{{ row.files | n }}</tr>
{% endfor %}</table></details>

<h2>Duplicates, redactions, tokens</h2>
<p>{{ r.clusters.clusters | n }} clusters of near-duplicates hold {{ r.clusters.files | n }} files; {{ r.redactions | n }} passages of personal data were redacted in released files.
{% if r.redactions_by_entity %}</p><details><summary>redactions by language and kind</summary><table><tr><th>language<th>kind<th class="n">redactions</tr>
{% for row in r.redactions_by_entity %}<tr><td>{{ row.language }}<td>{{ row.entity }}<td class="n">{{ row.redactions | n }}</tr>
{% endfor %}</table></details><p>
{% endif %}
{% for d in r.duplicates %}
</p><p>{{ d.stage }} removed {{ d.removed | n }} files{% if "removed_with_headers" in d %} without regard to licence headers; if these counted
 it would be {{ d.removed_with_headers | n }}{% endif %}.
{% for why, count in d.twins_gone.items() %}{{ count | n }} of them have a kept twin that left later ({{ why }}). {% endfor %}
{% for kind, found in d.alarms.items() %}{% if found.alarms %}{{ found.alarms | n }} {{ kind }} lost most of their files here:
{% for row in found.shown %}{{ row.name | shown }} ({{ row.removed | n }} of {{ row.files | n }}){{ ", " if not loop.last }}{% endfor %}.
{% endif %}{% endfor %}{% endfor %}</p><p>
{% if r.tokens %}{{ r.tokens.tokens | n }} tokens of a vocabulary of {{ r.tokens.vocab_size | n }} in {{ r.tokens.shards }} shards,
 {{ "%.2f" % (r.tokens.bytes / r.tokens.tokens if r.tokens.tokens else 0) }} bytes a token.{% endif %}</p>
{% if r.tokens %}{% for part in r.tokens.parts %}<table><caption>Tokens of {{ part.source }}, {{ part.split }}: {{ part.documents | n }} documents,
 {{ part.tokens | n }} tokens, {{ part.header_tokens | n }} of them in headers; the longest document has {{ part.longest_document | n }}.
 Below are the texts of files.</caption>
<tr><th>language<th class="n">files<th class="n">tokens<th class="n">MB<th class="n">share of tokens<th class="n">bytes a token<th class="n">characters a token</tr>
{% for row in part.languages %}<tr><td>{{ row.language or "–" }}<td class="n">{{ row.files | n }}<td class="n">{{ row.tokens | n }}<td class="n">{{ row.bytes | mb }}
<td class="n">{{ "%.2f" % (100 * row.tokens / part.text_tokens if part.text_tokens else 0) }} %<td class="n">{{ row.bytes_per_token | ratio }}<td class="n">{{ row.characters_per_token | ratio }}</tr>
{% endfor %}</table>{% endfor %}{% endif %}

{% if r.not_read %}<h2>Not read</h2><table><tr><th>input<th>reason</tr>
{% for row in r.not_read %}<tr><td class="p">{{ row.what | shown }}<td class="p">{{ row.reason | shown }}</tr>{% endfor %}</table>{% endif %}
{% if r.deviations %}<h2>Deviations from the published recipe</h2><ul>{% for k, v in r.deviations.items() %}<li><b>{{ k }}</b>: {{ v }}</li>{% endfor %}</ul>{% endif %}

<h2>Tools</h2>
<table>{% for name, version in r.engines.items() %}<tr><td>{{ name }}<td>{{ version }}</tr>{% endfor %}</table>
</body></html>
"""


def page(report: dict[str, Any]) -> str:
    """The report (of `figures.report_of`) as HTML; every name of a stranger is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        n=lambda value: f"{value:,}",
        mb=lambda value: f"{value / 1e6:,.2f}",
        g=lambda value: "" if value is None else f"{value:g}",
        ratio=lambda value: "–" if value is None else f"{value:.3f}",
        shown=lambda text: "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text),
    )
    return environment.from_string(TEMPLATE).render(r=report, bars=bars(report["funnel"]))


def bars(funnel: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Widths in the drawing: what a stage was given, and what it passed on, as shares of what was read."""
    most = max((stage["rows_in"] for stage in funnel), default=0) or 1
    return [
        {
            "stage": stage["stage"],
            "before": round(600 * stage["rows_in"] / most, 1),
            "after": round(600 * stage["rows_out"] / most, 1),
            "files": stage["rows_out"],
        }
        for stage in funnel
    ]


def as_json(report: dict[str, Any]) -> bytes:
    """The figures, indented; ASCII, as names may hold what UTF-8 has no bytes for."""
    return (json.dumps(report, indent=1) + "\n").encode()
