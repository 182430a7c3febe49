"""What the stage `pii` finds, in its context, on one HTML page for a person to judge: of a finished build, or of anyone's files.

The page holds what was found. It needs no network and no script, and is for its owner alone (mode 0600).
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import os
import secrets
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from jinja2 import Environment, StrictUndefined

from stackbuild.errors import InputError
from stackbuild.hashing import draw
from stackbuild.housekeeping import finished
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.stage import Pii, texts_with
from stackbuild.registry import base_name
from stackbuild.shards import read_batches
from stackbuild.standalone.inputs import plan_units
from stackbuild.standalone.redacting import Found
from stackbuild.standalone.redaction import OWNER_ONLY, TEXT_COLUMNS, check_private
from stackbuild.standalone.texts import check_text, named_column, pieces

LINES = 2  # of context before and behind
CONTEXT = 240  # bytes of it on each side
LONGEST = 2000  # bytes of a finding that are shown
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
COLOURS = ("#ffd54f", "#80cbc4", "#ef9a9a", "#b39ddb", "#a5d6a7", "#90caf9", "#ffab91", "#f48fb1")


class Text(NamedTuple):
    """A text with its spans (bytes), and where it stands."""

    where: str
    language: str
    text: bytes
    spans: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Finding:
    """A finding in its context. It holds the value."""

    entity: str
    rule: str
    replacement: str
    where: str
    language: str
    line: int
    before: str
    value: str
    after: str


@dataclass
class Sample:
    """A sample of findings in which every rule stands, however rare, and the counts of all."""

    size: int
    seed: int
    texts: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _kept: dict[tuple[str, str], list[tuple[int, int, Finding]]] = field(default_factory=dict)
    _order: Iterator[int] = field(default_factory=count)

    def add(self, text: Text) -> None:
        """Count the findings of a text and keep those that the seed draws."""
        self.texts += 1
        for span in text.spans:
            rule = (span["entity"], span["rule"])
            self.counts[rule] += 1
            kept = self._kept.setdefault(rule, [])
            drawn = -draw(self.seed, "review", text.where, str(span["start"]))
            if len(kept) < self.size:
                heapq.heappush(kept, (drawn, next(self._order), _finding(text, span)))
            elif drawn > kept[0][0]:
                heapq.heapreplace(kept, (drawn, next(self._order), _finding(text, span)))

    def findings(self) -> list[Finding]:
        """The sample: of each rule in turn the next one drawn; by entity, rule and place."""
        queues = [sorted(kept, reverse=True) for _, kept in sorted(self._kept.items())]
        turns = [one for turn in range(self.size) for queue in queues for one in queue[turn : turn + 1]]
        return sorted((one[2] for one in turns[: self.size]), key=lambda f: (f.entity, f.rule, f.where, f.line))


def _finding(text: Text, span: dict[str, Any]) -> Finding:
    data, start, end = text.text, span["start"], span["end"]
    first = max(0, start - CONTEXT)
    before = data[first:start].split(b"\n")[-LINES - 1 :]
    after = data[end : end + CONTEXT].split(b"\n")[: LINES + 1]
    value = data[start : min(end, start + LONGEST)]
    return Finding(
        span["entity"],
        span["rule"],
        span["replacement"],
        visible(text.where),
        visible(text.language),
        data.count(b"\n", 0, start) + 1,
        visible(b"\n".join(before).decode("utf-8", "replace")),
        visible(value.decode("utf-8", "replace")) + (" …" if end - start > LONGEST else ""),
        visible(b"\n".join(after).decode("utf-8", "replace")),
    )


def visible(text: str) -> str:
    """The text with numbers for what cannot be seen, so that it draws nothing else than it is."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"\u27e8U+{ord(c):04X}\u27e9" if c not in "\n\t" and unicodedata.category(c) in HIDDEN else c for c in text
    )


# ---------------------------------------------------------------- where texts come from


def texts_of_build(out: Path) -> Iterator[Text]:
    """The texts of a finished build as the stage `pii` saw them, with its spans. InputError if there are none any more."""
    build = finished(out)
    node = next((node for node in build.nodes if base_name(node.stage.name) == "pii"), None)
    if node is None:
        raise InputError(f"The recipe of {out} has no stage pii.")
    for partition in range(build.plan.partitions):
        tags = build.shards(node.slug)[partition].table("tags")
        found = Found(read_batches(build.out, tags, ["pii_spans"]))
        for piece in build.rows(node, partition).slices(["repo_name", "path", "language", "text"]):
            spans = found.take(piece.stop - piece.start).take(pa.array(piece.rows))
            names = piece.batch.select(["repo_name", "path", "language"]).to_pylist()
            values = piece.batch.column("text").cast(pa.large_binary())
            for row, here in enumerate(spans.to_pylist()):
                where = f"{names[row]['repo_name']} {names[row]['path']}"
                text = (values[row].as_py() or b"") if here else b""
                yield Text(where, names[row]["language"] or "", text, here or ())


def texts_of_files(
    paths: Sequence[str], options: PiiOptions, text: str | None, language: str, page: Path
) -> Iterator[Text]:
    """The texts of Parquet or JSON lines, searched now. UsageError if `page`, where the findings go, is one of them."""
    units = plan_units(paths, text or TEXT_COLUMNS[0])
    check_private(page, "--output", units)
    column = text or named_column(units, TEXT_COLUMNS)
    for unit in units:
        check_text(unit, column)
    stage = Pii(options)
    for unit in units:
        for piece in pieces(unit, column, language):
            found = stage.tags(texts_with(piece.texts, piece.languages))["pii_spans"].to_pylist()
            for row, here in enumerate(found):
                spoken = piece.languages[row].as_py() if piece.languages is not None else None
                data = (piece.raw[row].as_py() or b"") if here else b""
                yield Text(f"{unit.path} row {piece.numbers[row] + 1}", spoken or "", data, here or ())


def is_build(path: Path) -> bool:
    """Whether a path is a build's output folder."""
    return (path / "build.json").is_file()


# ---------------------------------------------------------------- the page

STYLE = """
 body { font: 15px/1.5 system-ui, sans-serif; color: #1c2530; max-width: 70rem; margin: 1.5rem auto; padding: 0 1rem }
 h1 { font-size: 1.5rem } .warning { background: #fdecea; border: 1px solid #e57373; padding: .5rem .8rem }
 input { margin: 0 .3rem 0 0 } label { display: inline-block; padding: .1rem .6rem .1rem 0; font-variant-numeric: tabular-nums }
 label.entity { font-weight: 600 } h2 { font-size: 1rem; margin: .8rem 0 .2rem }
 article { border: 1px solid #dde3ea; border-radius: 4px; margin: .6rem 0 } header { padding: .3rem .7rem; background: #f4f6f9 }
 header span { color: #5a6877; overflow-wrap: anywhere } pre { margin: 0; padding: .5rem .7rem; white-space: pre-wrap;
 overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, monospace; direction: ltr; unicode-bidi: bidi-override }
 mark { color: inherit; border-radius: 3px; padding: 0 2px; cursor: help } b { border-radius: 3px; padding: 0 .4rem }
"""

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Personal data found: a sample</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '{{ digest }}'; base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer"><meta name="viewport" content="width=device-width">
<style>{{ style | safe }}</style></head><body>
<h1>Personal data found: {{ findings | length }} of {{ total | n }} findings</h1>
<p class="warning">This page shows personal data and secrets as they stand in the texts. It is for you alone: do not pass it on, and
delete it when you have read it.</p>
<p>{{ source }}; {{ texts | n }} texts. A sample by seed {{ seed }}, in which every rule stands. Point at a finding to see what takes its place.</p>
<h2>entities</h2>
{% for one in entities %}<input type="checkbox" id="e{{ loop.index0 }}" checked><label class="entity"
 for="e{{ loop.index0 }}"><b class="e{{ loop.index0 }}">{{ one.name }}</b> {{ one.count | n }}</label>
{% endfor %}<h2>rules</h2>
{% for one in rules %}<input type="checkbox" id="r{{ loop.index0 }}" checked><label for="r{{ loop.index0 }}">{{ one.name }} {{ one.count | n }}</label>
{% endfor %}<main>
{% for one in findings %}<article class="f{{ one.e }} g{{ one.r }}"><header><b class="e{{ one.e }}">{{ one.f.entity }}</b>
 {{ one.f.rule }} <span>{{ one.f.where }}, line {{ one.f.line }}{% if one.f.language %}, {{ one.f.language }}{% endif %}</span></header>
<pre>{{ one.f.before }}<mark class="e{{ one.e }}" title="{{ one.f.entity }} by {{ one.f.rule }}; replaced by {{ one.f.replacement }}">{{ one.f.value }}</mark>{{ one.f.after }}</pre></article>
{% else %}<p>Nothing was found.</p>
{% endfor %}</main></body></html>
"""  # noqa: E501  lines of a <pre> cannot be broken


def page(sample: Sample, source: str) -> str:
    """The page of a sample."""
    findings = sample.findings()
    entities = Counter[str]()
    for (entity, _), number in sample.counts.items():
        entities[entity] += number
    names, rules = sorted(entities), sorted(sample.counts)
    style = STYLE + "".join(
        f" .e{i} {{ background: {COLOURS[i % len(COLOURS)]} }} #e{i}:not(:checked) ~ main .f{i} {{ display: none }}\n"
        for i in range(len(names))
    )
    style += "".join(f" #r{i}:not(:checked) ~ main .g{i} {{ display: none }}\n" for i in range(len(rules)))
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["n"] = lambda number: f"{number:,}"
    return environment.from_string(TEMPLATE).render(
        digest=f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}",
        style=style,
        source=visible(source),
        total=sum(sample.counts.values()),
        texts=sample.texts,
        seed=sample.seed,
        entities=[{"name": name, "count": entities[name]} for name in names],
        rules=[{"name": rule, "count": sample.counts[entity, rule]} for entity, rule in rules],
        findings=[{"f": f, "e": names.index(f.entity), "r": rules.index((f.entity, f.rule))} for f in findings],
    )


def write_private(path: Path, text: str) -> None:
    """Write a file for its owner alone, there as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "w") as file:
            file.write(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
