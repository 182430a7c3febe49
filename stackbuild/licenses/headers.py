"""What a source file says of its own licence, at its head.

For the lines of each file's notice (`notices`: the first 4 KB, a notice under way to its end, at most 16 KB; what stands
further down is not read):

1. SPDX tags (`tags`), in lines that are not code; also `__license__ = "..."` of Python.
2. The rest in its normal form: comment signs, lines that only name holders, authors or files, and case are gone, so that
   thousands of files share one form. Each form is matched once by ScanCode's exact matchers, and searched for riders.
3. What states a licence (a tag, a notice, a licence's text) is told from what only names one, or states it of other people's
   code ("taken from libfoo, which is under the MIT license"), or one that the file's is like (`wording`): a mention.
4. A file gets the AND of all that is found. Matches whose keys a tag names already add nothing: `MIT OR GPL-2.0-only` above
   both texts stays a choice. Short mentions in prose ("MIT", a link) count only in a line that speaks of a licence.

The outcome is a licence (an SPDX expression), a `mention` of one, `refers` (only "see LICENSE": the licence file speaks),
`unknown` (it speaks of a licence that nobody recognises) or nothing; "All rights reserved" and a disclaimer of warranty alone
are nothing. It is a function of the content alone: caches are keyed by all that an answer depends on. Time is linear in the
head.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from stackbuild.licenses import riders, tags, wording
from stackbuild.licenses.contained import Cells, cells_of, line_at, notebooks, wide_encoding, wide_files
from stackbuild.licenses.decide import UNKNOWN, UNKNOWN_REFERENCE
from stackbuild.licenses.expression import keys_of, plain_key
from stackbuild.licenses.header_form import header_form
from stackbuild.licenses.lists import SEVERITY
from stackbuild.licenses.notices import NOTICE_BYTES, WORDS, Bytes, Offsets, binary_buffers, notice_lines
from stackbuild.licenses.scancode import (
    Match,
    engine_name,
    matches,
    severity_of,
    stands_for_a_license,
    tag_expression,
)

STRENGTH = ("license", "unknown", "mention", "refers")
Kind = Literal["license", "mention", "refers", "unknown"]

CACHED = 1 << 15  # answers by form, and lines by bytes: some 20 MB each
ENGINE = "stackbuild headers 2"
SHORT_WORDS = 5  # a match of fewer words is a mention

HEADER = pa.struct(
    [
        pa.field("kind", pa.string(), nullable=False),  # license, mention, refers, unknown
        pa.field("expression", pa.string()),  # SPDX expression; null unless kind is license or mention
        pa.field("start", pa.int64(), nullable=False),  # bytes of the file, half open: the lines that say so
        pa.field("end", pa.int64(), nullable=False),
        pa.field("first_line", pa.int32(), nullable=False),  # lines of the file, from 1, both included
        pa.field("last_line", pa.int32(), nullable=False),
        pa.field("engine", pa.string(), nullable=False),  # name, version and how, of all that was found
        pa.field("rule", pa.string()),  # ScanCode's rule of the strongest match
        pa.field("score", pa.float32(), nullable=False),  # 0 to 1, of the weakest that counts
    ]
)


@dataclass(frozen=True)
class Said:
    """What lines say that stand together. `first`, `last`: which of them do, from 0. `expressions`: none unless `kind` is
    license or mention.
    """

    kind: Kind
    expressions: tuple[str, ...]
    first: int
    last: int
    engines: tuple[str, ...]
    rule: str | None
    score: float
    words: int = 0  # of the strongest match


class Headers:
    """Reads headers, and keeps what it has met: the answer for each form, and for each notice by its bytes."""

    def __init__(self) -> None:
        self._forms: dict[bytes, Said | None] = {}
        self._notices: dict[bytes, Said | None] = {}

    def scan(self, contents: pa.Array | pa.ChunkedArray) -> pa.Array:
        """The header of each of n files (string or binary): HEADER of length n, null for files that say nothing."""
        data, offsets = binary_buffers(contents)
        lines = notice_lines(data, offsets)
        rows: list[dict[str, Any] | None] = [None] * (len(offsets) - 1)
        for file in np.flatnonzero(np.diff(lines.bounds)).tolist():
            own = slice(lines.bounds[file], lines.bounds[file + 1])
            rows[file] = self._row(data, offsets[file], lines.start[own], lines.stop[own], lines.number[own])
        for file in wide_files(data, offsets).tolist():
            rows[file] = self._wide(data[offsets[file] : offsets[file + 1]][: 2 * NOTICE_BYTES].tobytes())
        for file in notebooks(data, offsets).tolist():
            content = data[offsets[file] : offsets[file + 1]].tobytes()
            cells = cells_of(content)
            if cells is not None:
                rows[file] = self._notebook(content, cells)
        return pa.array(rows, HEADER)

    def _row(self, data: Bytes, begin: int, start: Offsets, stop: Offsets, number: Offsets) -> dict[str, Any] | None:
        spans = zip((begin + start).tolist(), (begin + stop).tolist(), strict=True)
        said = self.notice(
            b"\n".join([data[a:b].tobytes() for a, b in spans]), (np.flatnonzero(np.diff(number) > 1) + 1).tolist()
        )
        if said is None:
            return None
        return {
            "kind": said.kind,
            "expression": tags.joined(frozenset(said.expressions)) if said.expressions else None,
            "start": int(start[said.first]),
            "end": int(stop[said.last]),
            "first_line": int(number[said.first]),
            "last_line": int(number[said.last]),
            "engine": ", ".join(said.engines),
            "rule": said.rule,
            "score": said.score,
        }

    def _wide(self, content: bytes) -> dict[str, Any] | None:
        """The header of a UTF-16 file, by its head in UTF-8."""
        encoding, mark = wide_encoding(content)
        head = content[mark:].decode(encoding, "replace").encode("utf-8", "replace")
        row: dict[str, Any] | None = self.scan(pa.array([head], pa.large_binary()))[0].as_py()
        if row is not None:
            for name in ("start", "end"):
                row[name] = mark + len(head[: row[name]].decode("utf-8", "replace").encode(encoding, "replace"))
        return row

    def _notebook(self, content: bytes, cells: Cells) -> dict[str, Any] | None:
        """The header of a notebook, by the text of its first cells."""
        row: dict[str, Any] | None = self.scan(pa.array([cells.text], pa.large_binary()))[0].as_py()
        if row is not None:
            row["start"], row["end"] = cells.spans[row["first_line"] - 1][0], cells.spans[row["last_line"] - 1][1]
            row["first_line"], row["last_line"] = line_at(content, row["start"]), line_at(content, row["end"])
        return row

    def notice(self, notice: bytes, breaks: list[int]) -> Said | None:
        """What the lines of a notice (joined by line feeds) say. `breaks`: at which of them, from 0, code lies before."""
        key = blake2b(repr(breaks).encode() + notice, digest_size=16).digest()
        if key not in self._notices:
            _bound(self._notices)
            self._notices[key] = self._say(notice, breaks)
        return self._notices[key]

    def _say(self, notice: bytes, breaks: list[int]) -> Said | None:
        try:
            text = notice.decode("utf-8")
        except UnicodeDecodeError:
            text = notice.decode("latin-1")
        stated, lines = _tags(text.split("\n"))
        named = tuple(sorted({key for one in stated for key in keys_of(one)}))
        parts = [Said("license", (one,), at, at, (tags.ENGINE,), None, 1.0) for one, at in stated.items()]
        for first, stop in zip([0, *breaks], [*breaks, len(lines)], strict=True):
            form = header_form(lines[first:stop])
            tagged = any(first <= at < stop for at in stated.values())
            part = self._form("\n".join(line for _, line in form), named, tagged)
            if part is not None:
                parts.append(replace(part, first=first + form[part.first][0], last=first + form[part.last][0]))
        said = together(parts)
        if said is not None and said.expressions == (tags.UNKNOWN_SPDX,):
            return replace(said, kind="unknown", expressions=())
        return said

    def _form(self, form: str, named: tuple[str, ...], tagged: bool) -> Said | None:
        if not _WORD.search(form):
            return None
        key = blake2b(repr((form, named, tagged)).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if key not in self._forms:
            _bound(self._forms)
            self._forms[key] = read_form(form, named, tagged)
        return self._forms[key]


def together(parts: list[Said]) -> Said | None:
    """What all parts of a notice say: all licences hold, one that nobody recognises among them; a pointer counts where there
    is none. They are mentions where all are.
    """
    for kinds in (("license", "mention", "unknown"), ("refers",)):
        same = [part for part in parts if part.kind in kinds]
        if same:
            strongest = max(same, key=lambda part: part.words)
            named = any(part.expressions for part in same)
            return Said(
                min((part.kind for part in same), key=STRENGTH.index),
                tuple(dict.fromkeys(one for part in same for one in part.expressions or ((UNKNOWN,) if named else ()))),
                min(part.first for part in same),
                max(part.last for part in same),
                tuple(dict.fromkeys(engine for part in same for engine in part.engines)),
                strongest.rule,
                min(part.score for part in same),
            )
    return None


def _bound(cache: dict[bytes, Any]) -> None:
    """Let a cache go that is full, so that it stays within its bound whatever comes."""
    if len(cache) >= CACHED:
        cache.clear()


# ---------------------------------------------------------------- what a notice holds


_WORD = re.compile("copyright notice|" + "|".join(re.escape(word.decode()) for word in WORDS if word != b"copyright"))
_DUNDER = re.compile(r"""^\s*__licen[cs]e__\s*=\s*[rbu]{0,2}["']{1,3}([^"']{1,200})""")


def _tags(raw: list[str]) -> tuple[dict[str, int], list[str]]:
    """The expressions that SPDX tags state, each with its place, and the lines without what was read."""
    stated: dict[str, int] = {}
    rest = []
    for number, (written, speaks) in enumerate(zip(raw, tags.outside_snippets(raw), strict=True)):
        line = written
        module = _DUNDER.match(line)
        if module:
            line = f"license: {module[1]}"
        value = tags.tag_of(line) if speaks else None
        expression = tag_expression(value) if value is not None else None
        if expression is not None:
            stated.setdefault(expression, number)
        rest.append(tags.TAG.split(line, maxsplit=1)[0] if speaks else "")
    return stated, rest


# ---------------------------------------------------------------- what a form says


# What a sentence that restricts must stand beside to be a rider.
_RIGHTS = re.compile(r"licen[cs]e|proprietary|\bconfidential\b|permission|\brights\b")
# A statement that grants or keeps rights in the file, in words that nobody recognises. It takes the file out of what is
# permissive, so that words which prose and code use as well ("confidential", "freely") are none alone.
_STATES = re.compile(
    r"licen[cs]ed (?:under|according|pursuant)|governed by (?:an? |the )?(?:commercial|enterprise|proprietary)\b"
    r"|^licen[cs]e *: +(?!str\b|string\b|none\b|null\b|optional\b|any\b)\S"
    r"|under (?:the )?(?:terms|conditions)(?: and (?:terms|conditions))? of (?:[^.]|\.(?=[0-9])){0,80}\b(?:licen[cs]e|agreement|contract)\b"
    r"|permission is (?:hereby )?(?:granted|given)"
    r"|proprietary (?:and|or|&|/) ?confidential|confidential (?:and|or|&|/) ?proprietary|\btrade secrets?\b"
    r"|(?:proprietary|confidential) (?:information|property|material|code|source|software|work)s? (?:of|to|belonging)\b"
    r"|^(?:[\w&.,'-]+ ){0,4}confidential[ .!]*$|strictly (?:forbidden|prohibited)"
    r"|unauthori[sz]ed (?:use|cop(?:y|ying|ies)|reproduction|duplication|distribution|disclosure)\b"
    r"|(?:may|must|shall|can) ?not be (?:used|copied|reproduced|distributed|redistributed|disclosed|modified|sold)\b"
    r"[^.]{0,200}\b(?:permission|consent|authori[sz]ation|approval|licen[cs]e|agreement)\b"
    r"|(?<!we )(?<!they )\bdo not (?:re)?distribute\b|redistribution [^.]{0,80}\b(?:permitted|prohibited|forbidden|not allowed)\b"
    r"|\b(?:for|only|strictly) non-?commercial\b|non-?commercial (?:use|purposes?) only"
    r"|^licen[cs]e (?:commercial|proprietary|all rights reserved)\b|\buse is subject to licen[cs]e terms"
    r"|(?:^|\. )commercial use (?:is |are )?(?:strictly )?(?:prohibited|forbidden|not (?:permitted|allowed))"
    r"|^(?:this (?:file|software|code|program|work) is )?(?:unpublished )?proprietary(?: (?:source code|software|code|information))?[ .!]*$"
    r"|\bunpublished proprietary source code|\byou (?:need|must (?:have|obtain|buy|purchase)) (?:an? |the )?(?:[a-z]+ )?licen[cs]e\b",
    re.MULTILINE,
)
_FIELD = re.compile(r"(?:software )?licen[cs]e ?:")
_TOKEN = re.compile(r"\w+")
_OTHERS = re.compile(
    r"\b(?:portions?|parts|based (?:up)?on|deriv(?:ed|es)|adapted|taken|borrowed|copied|ported|translated|inspired|originates"
    r"|uses|using|includes|bundle[sd]?|embed(?:s|ded)|depends|dependenc(?:y|ies)|third[- ]party|3rd[- ]party|relicensed|previously"
    r"|formerly|originally|was|were|until|no longer|example code|(?:code|file|version|function|routine)s? (?:is |are )?from)\b"
)
_POINTS = re.compile(
    r"\b(?:see|view|found in|read|refer to|consult|accompany\w{0,12}|included|contained in|described in|terms in"
    r"|in(?![ \n](?:compliance|accordance)))"
    r"[ \n](?:[^ \n]+[ \n]){0,8}?"
    r"[\"'(]?[./\w-]*(?:licen[cs]e|copying|copyright|notice)s?(?:\.\w{2,5})?\b"
)


def read_form(form: str, named: tuple[str, ...], tagged: bool) -> Said | None:
    """What a form says beside tags that name some keys; `tagged`: one of them stood among these lines. A function of
    these alone.
    """
    lines = form.split("\n")
    found = _matches(form)
    there = {plain_key(key) for key in named}
    fresh = [
        one for one in found if _counts(one, lines) and not {plain_key(key) for key in keys_of(one.expression)} <= there
    ]
    denied = {one for one in fresh if _denied(one, lines)}
    expressions = [UNKNOWN if one in denied else one.expression for one in fresh]
    spans = [(one.first, one.last) for one in fresh]
    engines = [engine_name("scancode", "exact")] if fresh else []
    worst = max((severity_of(key) for one in fresh for key in keys_of(one.expression)), default=-1)
    if worst < SEVERITY["non_permissive"] and (fresh or tagged or _RIGHTS.search(form)):
        for key, span in riders.riding(lines, riders.known_lines(found), header=True).items():
            expressions.append(key)
            spans.append(span)
            engines.append(riders.engine())
    if not expressions:
        return None if named else _unnamed(form, found)
    strongest = max(fresh, key=lambda one: (one.words, -one.first), default=None)
    own = not fresh or any(one in denied or _states(one, lines) for one in fresh)
    unknown = set(expressions) == {UNKNOWN}
    return Said(
        "unknown" if unknown else "license" if own else "mention",
        () if unknown else tuple(dict.fromkeys(expressions)),
        min(first for first, _ in spans),
        max(last for _, last in spans),
        tuple(dict.fromkeys(engines)),
        strongest.rule if strongest else None,
        round(min((one.score for one in fresh), default=1.0), 4),
        strongest.words if strongest else 0,
    )


def _matches(form: str) -> list[Match]:
    """ScanCode's matches, without those of licences that are only named as compatible, outside of whole texts."""
    found = matches(form)
    if not found or "compatible" not in form:
        return found
    known = {line for one in found if one.words >= riders.KNOWN_WORDS for line in range(one.first, one.last + 1)}
    plain, named = wording.without_compatible(form)
    if not named:
        return found
    lines = zip(form.split("\n"), plain.split("\n"), strict=True)
    again = matches("\n".join(before if number in known else after for number, (before, after) in enumerate(lines)))
    kept = [one for one in found if one not in again and wording.families(one.expression).isdisjoint(named)]
    return sorted([*again, *kept], key=lambda one: one.first)


def _denied(one: Match, lines: list[str]) -> bool:
    """Whether the lines of a short match deny what it names."""
    return one.words < riders.KNOWN_WORDS and wording.denies(" ".join(lines[one.first : one.last + 1]))


def _counts(one: Match, lines: list[str]) -> bool:
    """Whether a match names a licence, and is not a mere mention in prose."""
    if one.expression == UNKNOWN_REFERENCE or not stands_for_a_license(one.expression):
        return False
    return one.words >= SHORT_WORDS or any(_WORD.search(line) for line in lines[one.first : one.last + 1])


def _states(one: Match, lines: list[str]) -> bool:
    """Whether a match states what the file is under: a text, a notice, a tag, "License: X" or X alone in its lines; and the
    words around a notice, or before a text, are not about other people's code or another time.
    """
    own = lines[one.first : one.last + 1]
    states = one.states or _FIELD.match(own[0]) or len(_TOKEN.findall(" ".join(own))) <= one.words
    last = one.first if one.words >= riders.KNOWN_WORDS else one.last
    if one.words < riders.KNOWN_WORDS and not _POINTS.search(near := "\n".join(lines[one.first : one.last + 2])):
        states = states and not wording.is_only_like(one.expression, near)
    return bool(states) and not _OTHERS.search(" ".join(lines[max(one.first - 2, 0) : last + 1]))


def _unnamed(form: str, found: list[Match]) -> Said | None:
    """What a form says that names no licence: it points to a file, or states what nobody recognises."""
    pointer = next((one for one in found if one.expression == UNKNOWN_REFERENCE and "intro" not in one.rule), None)
    points = _POINTS.search(form)
    engine = engine_name("scancode", "exact")
    states = _STATES.search(form)
    if states is not None and (pointer or points) and wording.names_another(form):
        return Said("unknown", (), *_lines(form, states), (ENGINE,), None, 0.0)
    if pointer is not None:
        return Said("refers", (), pointer.first, pointer.last, (engine,), pointer.rule, round(pointer.score, 4))
    unknown = next((one for one in found if UNKNOWN in keys_of(one.expression) or "unknown" in one.expression), None)
    if points is not None:
        return Said("refers", (), *_lines(form, points), (ENGINE,), None, 0.0)
    if unknown is not None:
        return Said("unknown", (), unknown.first, unknown.last, (engine,), unknown.rule, round(unknown.score, 4))
    if states is not None:
        return Said("unknown", (), *_lines(form, states), (ENGINE,), None, 0.0)
    return None


def _lines(form: str, found: re.Match[str]) -> tuple[int, int]:
    first = form.count("\n", 0, found.start())
    return first, first + found[0].count("\n")
