"""What licence a content has that stands in several places, and that may say itself what it is under.

The Stack v1 and v2 take the copy that is kept for all; v1 keeps a content as soon as one repository that holds it is
permissive, so that a GPL file which somebody re-hosted under MIT passes: what its users complained of most. Ours: a content's
own header decides; else it has the licence of the copy that is the origin of the others, whoever is kept. A re-host can grant
nothing, so the origin's licence stands even where it is worse. A copy in a folder of other people's code (node_modules/,
third_party/ ...) is no origin where another is not; of the others it is the one in the repository that was created first, if
that is known of all of them. Where it is not, nobody can tell who took from whom, and the least permissive copy speaks; one of
which nothing says a licence does so only if all are such. Stars say who is popular, and dates of commits when a repository was
last worked on: neither tells an origin.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.licenses.decide import UNKNOWN, UNKNOWN_REFERENCE, decide, representatives
from stackbuild.licenses.evidence import Rows, distinct, lists, with_field, within
from stackbuild.licenses.expression import keys_of
from stackbuild.licenses.inherit import worst_keys
from stackbuild.licenses.lists import data_path, read_toml
from stackbuild.licenses.policy import Policy
from stackbuild.licenses.reading import SAID, formats_of, is_statement
from stackbuild.schema import EVIDENCE, ID, LICENSE_FIELDS

HEADERS = pa.schema(
    [
        pa.field("bucket", pa.uint16(), nullable=False),  # partition of the contents
        pa.field("content_id", ID, nullable=False),
        pa.field("said", pa.list_(SAID), nullable=False),
    ]
)
# What a header fills in of SAID; a mention counts together with what else is said, so it has REUSE's word for that.
SPEAKING = ("expression", "engine", "score", "first_line", "last_line", "precedence")
UNREAD = ("refers",)  # kinds of headers that say nothing themselves
BEST_FIRST = ("permissive", "no_license", "unknown", "weak_copyleft", "non_permissive")
SAFEST_FIRST = ("non_permissive", "weak_copyleft", "unknown", "permissive", "no_license")
ORIGIN = (
    ("vendored", "ascending", "at_end"),
    ("created", "ascending", "at_end"),
    ("safety", "ascending", "at_end"),
    ("repo_name", "ascending", "at_end"),
    ("revision_id", "ascending", "at_end"),
    ("path_bytes", "ascending", "at_end"),
)  # no two copies agree in the last three


def of_contents(copies: pa.Table, starts: Rows, headers: pa.Table, policy: Policy) -> Mapping[str, pa.Array]:
    """The licence columns of each of n contents.

    `copies`: occurrences with their licence columns, those of one content together, the one that is kept first; `starts`:
    where each content begins, int64 (n,). `headers`: HEADERS of some contents.
    """
    chosen = speaking(copies, starts, policy)
    found = copies.select([field.name for field in LICENSE_FIELDS]).take(pa.array(chosen))
    columns = {name: found[name].combine_chunks() for name in found.column_names}
    columns["license_evidence"] = _with_repositories(columns["license_evidence"], copies, starts, chosen)
    place = policy.data.group_of("header")
    if place is None or not len(headers):
        return columns
    kept = copies.select(["content_id", "path"]).take(pa.array(starts)).combine_chunks()
    spoken = np.asarray(is_statement(formats_of(kept["path"].combine_chunks(), policy)))
    return _with_headers(columns, kept["content_id"].combine_chunks(), ~spoken, headers.combine_chunks(), policy, place)


def said_by_headers(headers: pa.Array) -> pa.Array:
    """What the heads of n files say (`headers.HEADER`), as lists of SAID of length n: none, or one."""
    says = pc.and_(headers.is_valid(), pc.invert(pc.is_in(headers.field("kind"), value_set=pa.array(UNREAD))))
    rows = headers.filter(says)
    known = {name: rows.field(name) for name in SPEAKING[:-1]}
    known["precedence"] = pc.if_else(pc.equal(rows.field("kind"), "mention"), "aggregate", None).cast(pa.string())
    values = [known.get(field.name, pa.nulls(len(rows), field.type)) for field in SAID]
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.asarray(says))))
    said = pa.StructArray.from_arrays(values, fields=list(SAID))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), said)


# ---------------------------------------------------------------- which copy


def speaking(copies: pa.Table, starts: Rows, policy: Policy) -> Rows:
    """The row of the copy whose licence each content has."""
    if policy.data.copies == "winner" or len(starts) == len(copies):
        return starts
    sizes = np.diff(np.append(starts, len(copies)))
    asked = sizes > 1
    if policy.data.copies == "origin":
        asked &= np.asarray(copies["length"].take(pa.array(starts))) >= policy.data.origin_from
    rows = np.flatnonzero(np.repeat(asked, sizes))
    content = np.repeat(np.arange(len(starts)), sizes)[rows]
    if policy.data.copies == "origin":
        order = _origins_first(copies, rows, content)
    else:
        classes = pc.index_in(copies["license_class"].take(pa.array(rows)), value_set=pa.array(BEST_FIRST))
        rank = np.asarray(pc.fill_null(classes, len(BEST_FIRST))).astype(np.int64)
        order = np.lexsort((np.arange(len(rows)), rank if policy.data.copies == "best" else -rank, content))
    first = np.unique(content[order], return_index=True)[1]
    chosen = starts.copy()
    chosen[asked] = rows[order[first]]
    return chosen


def _origins_first(copies: pa.Table, rows: Rows, content: Rows) -> Rows:
    """The order of some rows in which those of one content (int64, sorted) stand together, the origin first."""
    table = (
        copies.select([name for name, _, _ in ORIGIN[3:]])
        .take(pa.array(rows))
        .append_column("content", pa.array(content))
    )
    inside = np.asarray(vendored(copies["path"].take(pa.array(rows))))
    created = copies["gha_created_at"].take(pa.array(rows)).combine_chunks()
    undated = np.zeros(int(content[-1]) + 1 if len(content) else 0, bool)
    own = np.zeros(len(undated), bool)
    own[content[~inside]] = True
    counts = ~inside | ~own[content]  # may be the origin
    undated[content[counts & ~np.asarray(created.is_valid())]] = True
    safety = pc.index_in(copies["license_class"].take(pa.array(rows)), value_set=pa.array(SAFEST_FIRST))
    table = table.append_column("vendored", pa.array(inside)).append_column("safety", safety)
    table = table.append_column("created", pc.if_else(pa.array(undated[content]), None, created))
    return np.asarray(pc.sort_indices(table, [("content", "ascending", "at_end"), *ORIGIN])).astype(np.int64)


def vendored(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which paths (string, n) lie in a folder of other people's code: bool (n,)."""
    return pc.match_substring_regex(paths, _vendor_pattern())


@cache
def _vendor_pattern() -> str:
    names = read_toml(data_path("vendored.toml"))["folders"]
    return rf"(?i)(?:^|/)(?:{'|'.join(names)})/"


# ---------------------------------------------------------------- evidence


def _with_repositories(evidence: pa.Array, copies: pa.Table, starts: Rows, chosen: Rows) -> pa.Array:
    """The evidence of each content, with the repository that it is from where that is not the one of the copy kept."""
    moved = np.flatnonzero(starts != chosen)
    if not len(moved):
        return evidence
    kept, theirs = (copies["repo_name"].take(pa.array(rows[moved])) for rows in (starts, chosen))
    other = moved[np.asarray(pc.not_equal(kept, theirs))]
    offsets, values = lists(evidence)
    of_value = np.repeat(np.arange(len(evidence)), np.diff(offsets))
    said = np.isin(of_value, other)
    names = copies["repo_name"].take(pa.array(chosen)).combine_chunks().take(pa.array(of_value))
    values = with_field(values, "repo_name", pc.if_else(pa.array(said), names, None))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _with_headers(
    columns: Mapping[str, pa.Array],
    ids: pa.Array,
    source: npt.NDArray[np.bool_],
    headers: pa.Table,
    policy: Policy,
    place: int,
) -> dict[str, pa.Array]:
    """The columns where a content's own header is as strong as what decided so far, or stronger, and its evidence everywhere.
    `source`: which contents have one; the head of a licence file or a read-me is what the whole of it says already.
    """
    first, of_header = distinct(headers["said"].combine_chunks(), SPEAKING)
    forms = headers["said"].combine_chunks().take(pa.array(first)).to_pylist()
    at = pc.index_in(ids, value_set=headers["content_id"].combine_chunks())
    form_of = np.full(len(ids), -1, np.int64)
    with_header = np.flatnonzero(np.asarray(at.is_valid()) & source)
    form_of[with_header] = of_header[np.asarray(at.take(pa.array(with_header)))]
    evidence = columns["license_evidence"]
    speaks = np.array([*(_speaks(form, policy) for form in forms), False])[form_of]
    mention = np.array([*(_is_mention(form) for form in forms), False])[form_of]
    strength = _strength(evidence, policy)
    alone = speaks & ~mention & (strength > place)
    beside = speaks & ((strength == place) | (mention & (strength > place)))
    rows = np.flatnonzero(alone | beside)
    if len(rows):
        deciding = pc.if_else(pa.array(beside[rows]), evidence.take(pa.array(rows)), pa.scalar([], evidence.type))
        of_rest, kind = distinct(deciding, ("expression", "decides"))
        pairs, pair_of = np.unique(kind * len(forms) + form_of[rows], return_inverse=True)
        rest = deciding.take(pa.array(of_rest)).to_pylist()
        answers = [
            _answer([*forms[pair % len(forms)], *(one for one in rest[pair // len(forms)] if one["decides"])], policy)
            for pair in pairs.tolist()
        ]
    result = dict(columns)
    for name, position in (("detected_licenses", 0), ("license_type", 1), ("license_class", 2)) if len(rows) else ():
        theirs = pa.array([answer[position] for answer in answers], columns[name].type)
        taken = np.arange(len(ids))
        taken[rows] = len(ids) + pair_of.reshape(-1)
        result[name] = pa.concat_arrays([columns[name], theirs]).take(pa.array(taken))
    result["license_evidence"] = _joined(evidence, forms, form_of, alone | beside, alone)
    return result


def _is_mention(said: list[dict[str, Any]]) -> bool:
    return all(one["precedence"] == "aggregate" for one in said)


def _speaks(said: list[dict[str, Any]], policy: Policy) -> bool:
    """Whether a header says more than that a licence stands elsewhere, and more than the mention of a permissive one: in
    passing, a file's licence can become worse and never better.
    """
    if _is_mention(said) and _answer(said, policy)[2] == "permissive":
        return False
    return any(one["expression"] != UNKNOWN_REFERENCE for one in said)


def _answer(said: list[dict[str, Any]], policy: Policy) -> tuple[list[str], str, str]:
    """(keys, type, class) of what counts together: of a header, and of rules that ask to be added to it."""
    expressions = [one["expression"] for one in said if one["expression"] is not None]
    detected = [one["expression"] for one in said if one["expression"] is not None and one.get("kind") != "host"]
    keys = frozenset().union(*map(keys_of, detected))
    stated = [one["expression"] or UNKNOWN for one in said] if expressions else []
    counting = representatives(policy.keys(stated), policy)
    decision = decide(None, counting, policy, unrecognised=not expressions)
    return worst_keys(keys, policy), decision.type, decision.license_class


def _strength(evidence: pa.Array, policy: Policy) -> Rows:
    """The place in the policy's order of what decided of each content; behind all where nothing did."""
    offsets, values = lists(evidence)
    order = [kind for group in policy.data.order for kind in group]
    places = np.array([*(policy.data.group_of(kind) for kind in order), len(policy.data.order)], np.int64)
    kinds = np.asarray(pc.fill_null(pc.index_in(values.field("kind"), value_set=pa.array(order)), len(order)))
    counted = np.where(np.asarray(pc.fill_null(values.field("decides"), False)), places[kinds], len(policy.data.order))
    result = np.full(len(evidence), len(policy.data.order), np.int64)
    some = np.flatnonzero(np.diff(offsets))
    if len(some):
        result[some] = np.minimum.reduceat(counted, offsets[some])
    return result


def _joined(
    evidence: pa.Array,
    forms: list[list[dict[str, Any]]],
    form_of: Rows,
    before: npt.NDArray[np.bool_],
    alone: npt.NDArray[np.bool_],
) -> pa.Array:
    """The evidence of each content with that of its header (`form_of`, -1 for none): in front of the rest where `before` says
    so, else behind. Where the header decides `alone`, the rest does so no more.
    """
    offsets, values = lists(evidence)
    sizes = np.array([*map(len, forms), 0], np.int64)
    bounds = np.cumsum(sizes) - sizes
    rest, own = np.diff(offsets), sizes[form_of]
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(rest + own)))
    of_rest, of_own = (np.repeat(np.arange(len(evidence)), count) for count in (rest, own))
    index = np.empty(starts[-1], np.int64)
    index[starts[of_rest] + np.where(before, own, 0)[of_rest] + within(rest)] = np.arange(len(values))
    said = bounds[form_of[of_own]] + within(own)
    index[starts[of_own] + np.where(before, 0, rest)[of_own] + within(own)] = (
        len(values) + np.where(before[of_own], sizes.sum(), 0) + said
    )
    headers = [
        pa.array([{**one, "kind": "header", "decides": decides} for form in forms for one in form], EVIDENCE)
        for decides in (False, True)
    ]
    decides = pc.and_(values.field("decides"), pa.array(~alone[of_rest]))
    everything = pa.concat_arrays([with_field(values, "decides", decides), *headers])
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), everything.take(pa.array(index)))
